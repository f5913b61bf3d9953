// What the scripts for Node share: tests in their order, and workloads that go on while the runner changes the master.
//
// A script prints one line of JSON for each test. Whatever it prints must be the same from a server and through the proxy.
const assert = require("node:assert/strict");
const { once } = require("node:events");
const readline = require("node:readline");

const HOST = process.env.REDIS_HOST;
const PORT = Number(process.env.REDIS_PORT);
// Longer than anything here takes, on the slowest machine.
const DEADLINE = 60_000;
const tests = [];
const workloads = [];
const survivors = [];

/** The function's result is compared; an exception is a failure. */
const test = (name, run) => tests.push({ name, run });

/** The function goes on while `going()` says so; its result is compared. */
const workload = (name, run) => workloads.push({ name, run });

/** So does this one, while the master is killed. */
const survivor = (name, run) => survivors.push({ name, run });

/** What it is rejected with, as text. */
const error = (promise) => promise.then((value) => JSON.stringify(value), (e) => `${e.name}: ${e.message}`);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until it holds. */
async function eventually(what, is) {
  for (const end = Date.now() + DEADLINE; !(await is()); await sleep(5)) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
  }
}

/**
 * Runs all tests, then all workloads at once with a switch in their middle, and those that survive a master's death. `close`
 * ends what is open.
 */
async function run(library, close = () => {}) {
  const { version } = require(`${library}/package.json`);
  say({ library: library === "redis" ? "node-redis" : library, version });
  for (const { name, run } of tests) report(name, await outcome(run));
  const lines = readline.createInterface({ input: process.stdin });
  await through(lines, "switch", workloads);
  await through(lines, "kill", survivors);
  await close();
  process.exit(0);
}

/** Runs them all at once, and has the master changed meanwhile. */
async function through(lines, change, all) {
  if (all.length === 0) return;
  let changed = false;
  const going = () => {
    // Until the master has changed, and then a few times more, so that each workload speaks to the new one.
    let left = 20;
    return () => !changed || --left > 0;
  };
  const results = all.map(({ run }) => outcome(run, going()));
  // Each has begun, and most have said a lot.
  await sleep(300);
  say({ [change]: true });
  await once(lines, "line");
  changed = true;
  for (const [i, { name }] of all.entries()) report(name, await results[i]);
}

async function outcome(run, ...args) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not end")), 2 * DEADLINE);
  });
  try {
    return { result: (await Promise.race([run(...args), late])) ?? null };
  } catch (e) {
    return { failed: e.stack ?? String(e) };
  } finally {
    clearTimeout(timer);
  }
}

const report = (test, result) => say({ test, ...result });
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

module.exports = { DEADLINE, HOST, PORT, assert, error, eventually, run, sleep, survivor, test, workload };
