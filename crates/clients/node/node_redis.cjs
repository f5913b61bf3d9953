// node-redis: what applications do with it.
const { createClient, createClientPool, defineScript } = require("redis");
const { DEADLINE, HOST, PORT, assert, error, eventually, run, sleep, test, workload } = require("./checks.cjs");

const open = [];

/** A client that is connected; it never connects twice, so that a lost connection is an error and not repaired. */
async function connect(options = {}) {
  const client = createClient({ RESP: 2, commandOptions: { timeout: DEADLINE }, ...options, socket: { host: HOST, port: PORT, reconnectStrategy: false } });
  client.on("error", () => {});
  open.push(client);
  return client.connect();
}

test("handshake", async () => {
  const seen = [];
  for (const RESP of [2, 3]) {
    const client = await connect({ RESP, name: "billing", database: 3 });
    seen.push(await client.ping(), await client.clientGetName(), await client.set("k", RESP), await client.get("k"));
    for (const [username, password] of [["alice", "secret"], ["alice", "wrong"], ["nobody", "x"]]) {
      seen.push(await error(connect({ RESP, username, password }).then((c) => c.aclWhoAmI())));
    }
    seen.push(await error(connect({ RESP, database: 99 }).then((c) => c.ping())));
    seen.push(await client.select(4), await client.get("k"), await client.auth({ username: "alice", password: "secret" }), await client.aclWhoAmI());
  }
  return seen;
});

test("values", async () => {
  const seen = [];
  for (const RESP of [2, 3]) {
    const c = await connect({ RESP });
    await c.flushDb();
    seen.push(await c.set("a", "1", { EX: 100 }), await c.get("a"), await c.get("nosuch"), await c.incrByFloat("a", 0.5));
    seen.push(await c.hSet("h", { x: 1, y: 2 }), await c.hGetAll("h"), await c.rPush("l", ["1", "2"]), await c.lRange("l", 0, -1));
    seen.push(await c.sAdd("s", ["a", "b"]), (await c.sMembers("s")).sort(), await c.zAdd("z", { score: 1.5, value: "b" }), await c.zRangeWithScores("z", 0, -1));
    seen.push(await c.xAdd("x", "1-1", { f: "v" }), await c.xRange("x", "-", "+"), await error(c.lPush("a", "1")), await error(c.sendCommand(["NOSUCH"])));
    const keys = [];
    for await (const batch of c.scanIterator({ COUNT: 2 })) keys.push(...batch);
    seen.push(keys.sort(), await c.dbSize());
  }
  return seen;
});

test("pipelines", async () => {
  // What is sent in one turn is one pipeline.
  const c = await connect();
  const replies = await Promise.all(Array.from({ length: 2_000 }, (_, i) => [c.set(`k${i}`, i), c.get(`k${i}`)]).flat());
  const wrong = replies.filter((reply, i) => reply !== (i % 2 ? String((i - 1) / 2) : "OK"));
  return [replies.length, wrong, await c.multi().set("t", "text").incr("t").get("t").execAsPipeline().then(String, (e) => [e.name, e.replies?.map(String)])];
});

test("transactions", async () => {
  const pool = createClientPool({ socket: { host: HOST, port: PORT }, RESP: 2 }, { maximum: 4, acquireTimeout: DEADLINE });
  await pool.connect();
  await pool.del("n");
  const increment = () =>
    pool.execute(async (c) => {
      await c.watch("n");
      const n = Number(await c.get("n"));
      return c.multi().set("n", n + 1).exec();
    }).catch((e) => (e.name === "WatchError" || e.constructor.name === "WatchError" ? increment() : Promise.reject(e)));
  await Promise.all(Array.from({ length: 40 }, increment));
  const seen = [await pool.get("n"), await pool.multi().set("x", 1).get("x").exec()];
  seen.push(await pool.multi().set("y", "text").incr("y").exec().then(String, (e) => [e.name, e.replies?.map(String)]));
  seen.push(await pool.multi().set("x", 2).addCommand(["NOSUCH"]).exec().then(String, (e) => [e.name, String(e)]), await pool.get("x"));
  await pool.close();
  return seen;
});

test("publish and subscribe", async () => {
  const seen = [];
  for (const RESP of [2, 3]) {
    const heard = [];
    const [c, sub] = [await connect({ RESP }), await connect({ RESP })];
    const listen = (message, channel) => heard.push([channel, message]);
    await sub.subscribe(["news", "sport"], listen);
    await sub.pSubscribe("w*", listen);
    await sub.sSubscribe("shard", listen);
    seen.push(await c.publish("news", "one"), await c.publish("weather", "two"), await c.sPublish("shard", "three"), await c.publish("nosuch", "x"));
    await eventually("three messages", () => heard.length === 3);
    // With RESP3 a subscriber may ask other things too.
    seen.push(await error(sub.set("from", "a subscriber")), await sub.ping());
    await sub.unsubscribe();
    await sub.pUnsubscribe();
    await sub.sUnsubscribe();
    seen.push(heard.sort(), await c.publish("news", "nobody"), await sub.get("from"));
  }
  return seen;
});

test("blocking", async () => {
  const c = await connect();
  await c.del("queue");
  const seen = [await c.blPop("queue", 0.05)];
  const taken = [];
  const work = async () => {
    const mine = await connect();
    for (let job; (job = (await mine.blPop("queue", 0)).element) !== "end"; ) taken.push(job);
  };
  const workers = Array.from({ length: 5 }, work);
  const jobs = Array.from({ length: 100 }, (_, i) => String(i).padStart(2, "0"));
  for (const job of [...jobs, ...Array(5).fill("end")]) await c.rPush("queue", job);
  await Promise.all(workers);
  // One that leaves while it waits takes nothing with it.
  const leaves = await connect();
  const waits = error(leaves.blPop("queue", 0));
  const blocked = async (n) => (await c.info("clients")).includes(`blocked_clients:${n}\r`);
  await eventually("it is blocked", () => blocked(1));
  leaves.destroy();
  await waits;
  await eventually("the server has noticed", () => blocked(0));
  return [...seen, taken.sort().join() === jobs.join(), await c.rPush("queue", "kept"), await c.lLen("queue")];
});

const add = defineScript({
  SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
  NUMBER_OF_KEYS: 1,
  parseCommand: (parser, key, n) => { parser.pushKey(key); parser.push(String(n)); },
  transformReply: (reply) => reply,
});

test("scripts", async () => {
  const c = await connect({ scripts: { add } });
  await c.del("k");
  const seen = [await c.add("k", 5), await c.scriptFlush(), await c.add("k", 5), await c.multi().add("k", 1).add("k", 2).exec()];
  return [...seen, await error(c.evalSha("0".repeat(40))), await error(c.eval("return redis.error_reply('MINE it is')"))];
});

test("pools", async () => {
  const pool = createClientPool({ socket: { host: HOST, port: PORT }, database: 2 }, { minimum: 2, maximum: 8, acquireTimeout: DEADLINE });
  await pool.connect();
  const work = async (i) => {
    for (let n = 0; n < 10; n++) {
      const replies = await pool.multi().set(`own${i}`, n).get(`own${i}`).exec();
      assert.deepEqual(replies.map(String), ["OK", String(n)]);
    }
  };
  await Promise.all(Array.from({ length: 50 }, (_, i) => work(i)));
  const seen = [await pool.get("own1")];
  await pool.close();
  return seen;
});

test("reconnection", async () => {
  // With the library's own way to connect again.
  const c = createClient({ socket: { host: HOST, port: PORT }, name: "stays", database: 5 });
  let reconnected = 0;
  c.on("error", () => {}).on("reconnecting", () => reconnected++);
  await c.connect();
  open.push(c);
  await c.set("k", "v");
  await c.sendCommand(["QUIT"]);
  await eventually("it is connected again", () => c.isReady && reconnected);
  return [await c.get("k"), await c.clientGetName(), reconnected];
});

test("client side cache", async () => {
  const [c, other] = [await connect({ RESP: 3, clientSideCache: { maxEntries: 100 } }), await connect()];
  await other.set("cached", "1");
  const seen = [await c.get("cached"), await c.get("cached")];
  await other.set("cached", "2");
  await eventually("it is told", async () => (await c.get("cached")) === "2");
  return seen;
});

workload("switch counters", async (going) => {
  const c = await connect();
  for (let n = 1; going(); n++) {
    assert.equal(await c.incr("switch:n"), n);
    const [, seen] = await Promise.all([c.set("switch:k", n), c.get("switch:k")]);
    assert.equal(seen, String(n));
  }
  return "each counted once";
});

workload("switch resp3", async (going) => {
  const c = await connect({ RESP: 3, database: 7, name: "three" });
  for (let n = 1; going(); n++) {
    assert.equal(await c.hIncrBy("switch:h", "n", 1), n);
    assert.equal((await c.hGetAll("switch:h")).n, String(n));
  }
  return "each counted once";
});

workload("switch transactions", async (going) => {
  const c = await connect();
  for (let n = 1; going(); n++) assert.deepEqual((await c.multi().incr("switch:a").incr("switch:b").exec()).map(Number), [n, n]);
  return "both counted alike";
});

workload("switch scripts", async (going) => {
  const c = await connect({ scripts: { add } });
  for (let n = 1; going(); n++) assert.equal(Number(await c.add("switch:script", 1)), n);
  return "each ran once";
});

workload("switch subscribers", async (going) => {
  const [c, two, three] = [await connect(), await connect({ RESP: 2 }), await connect({ RESP: 3 })];
  const heard = [new Set(), new Set()];
  await two.subscribe("switch:news", (message) => heard[0].add(message));
  await three.subscribe("switch:news", (message) => heard[1].add(message));
  // What is published during a switch may be lost, as with Redis.
  while (going()) { await c.publish("switch:news", "more"); await sleep(10); }
  assert.equal(await c.publish("switch:news", "last"), 2);
  await eventually("both hear it", () => heard.every((h) => h.has("last")));
  return "still subscribed";
});

workload("switch blocked workers", async (going) => {
  const [c, worker] = [await connect(), await connect()];
  const job = worker.blPop("switch:queue", 0);
  while (going()) { await c.ping(); await sleep(10); }
  await c.rPush("switch:queue", "job");
  return job;
});

run("redis", () => open.forEach((client) => client.isOpen && client.destroy()));
