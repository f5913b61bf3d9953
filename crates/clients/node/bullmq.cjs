// BullMQ: queues, workers, flows and events, over ioredis.
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");
const { HOST, PORT, assert, error, eventually, run, survivor, test, workload } = require("./checks.cjs");

const connection = { host: HOST, port: PORT, maxRetriesPerRequest: null };
const open = [];

function make(Kind, ...args) {
  const made = new Kind(...args);
  made.on("error", () => {});
  open.push(made);
  return made;
}

/** A queue, its events, and a worker that adds. */
async function workshop(name) {
  const queue = make(Queue, name, { connection });
  const events = make(QueueEvents, name, { connection });
  const work = async ({ data, attemptsMade }) => {
    if (data.failures > attemptsMade) throw new Error("as it should");
    return data.x + data.y;
  };
  const worker = make(Worker, name, work, { connection, concurrency: 5 });
  await Promise.all([queue, events, worker].map((part) => part.waitUntilReady()));
  const done = (job) => job.waitUntilFinished(events, 30_000);
  return { queue, worker, done };
}

test("jobs", async () => {
  const { queue, done } = await workshop("jobs");
  const jobs = await queue.addBulk(Array.from({ length: 50 }, (_, x) => ({ name: "add", data: { x, y: 1 } })));
  const seen = [(await Promise.all(jobs.map(done))).map(Number)];
  seen.push(await done(await queue.add("add", { x: 1, y: 2 }, { delay: 200, priority: 3 })));
  seen.push(await done(await queue.add("add", { x: 1, y: 3, failures: 2 }, { attempts: 3, backoff: 50 })));
  seen.push(await error(done(await queue.add("add", { failures: 9 }))));
  // The counts may come a moment after the last event.
  await eventually("all is done", async () => (await queue.getActiveCount()) === 0);
  return [...seen, await queue.getJobCounts("completed", "failed", "waiting")];
});

test("flows", async () => {
  const { done } = await workshop("flows");
  const flow = make(FlowProducer, { connection });
  const child = { name: "add", queueName: "flows", data: { x: 1, y: 1 } };
  const { job } = await flow.add({ name: "add", queueName: "flows", data: { x: 2, y: 2 }, children: [child, child] });
  return [await done(job), Object.values(await job.getChildrenValues())];
});

workload("switch jobs", async (going) => {
  const { queue, done } = await workshop("switch");
  for (let n = 1; going(); n++) assert.equal(await done(await queue.add("add", { x: n, y: n })), 2 * n);
  return "each was done";
});

const idle = (name) => async (going) => {
  const { queue, done } = await workshop(name);
  while (going()) await new Promise((resolve) => setTimeout(resolve, 50));
  return done(await queue.add("add", { x: 20, y: 22 }));
};

workload("switch idle worker", idle("idle"));
survivor("kill idle worker", idle("killed"));

run("bullmq", () => Promise.race([Promise.all(open.map((part) => part.close())), new Promise((end) => setTimeout(end, 2000))]));
