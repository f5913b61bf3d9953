// ioredis: what applications do with it.
const { Redis } = require("ioredis");
const { HOST, PORT, assert, error, eventually, run, sleep, test, workload } = require("./checks.cjs");

/** It never connects twice, so that a lost connection is an error and not repaired. */
function connect(options = {}) {
  const client = new Redis({ host: HOST, port: PORT, retryStrategy: null, maxRetriesPerRequest: 0, ...options });
  client.on("error", () => {});
  return client;
}

test("handshake", async () => {
  const seen = [];
  for (const protocol of [2, 3]) {
    const c = connect({ protocol, connectionName: "billing", db: 3 });
    seen.push(await c.ping(), await c.client("GETNAME"), await c.set("k", protocol), await c.get("k"));
    for (const [username, password] of [["alice", "secret"], ["alice", "wrong"], ["nobody", "x"]]) {
      seen.push(await error(connect({ protocol, username, password, lazyConnect: true }).acl("WHOAMI")));
    }
    seen.push(await c.select(4), await c.get("k"), await c.auth("alice", "secret"), await c.acl("WHOAMI"));
    c.disconnect();
  }
  return seen;
});

test("values", async () => {
  const seen = [];
  for (const protocol of [2, 3]) {
    const c = connect({ protocol });
    await c.flushdb();
    seen.push(await c.set("a", 1, "EX", 100), await c.get("a"), await c.get("nosuch"), await c.incrbyfloat("a", 0.5));
    seen.push(await c.hset("h", { x: 1, y: 2 }), await c.hgetall("h"), await c.rpush("l", 1, 2), await c.lrange("l", 0, -1));
    seen.push(await c.sadd("s", "a", "b"), (await c.smembers("s")).sort(), await c.zadd("z", 1.5, "b"), await c.zrange("z", 0, -1, "WITHSCORES"));
    seen.push(await c.xadd("x", "1-1", "f", "v"), await c.xrange("x", "-", "+"), await error(c.lpush("a", 1)), await error(c.call("NOSUCH")));
    const every = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => i % 256));
    await c.set("bytes", every);
    seen.push(every.equals(await c.getBuffer("bytes")));
    const keys = [];
    for await (const batch of c.scanStream({ count: 2 })) keys.push(...batch);
    seen.push(keys.sort(), await c.dbsize());
    c.disconnect();
  }
  return seen;
});

test("pipelines", async () => {
  const [c, automatic] = [connect(), connect({ enableAutoPipelining: true })];
  const pipe = c.pipeline();
  for (let i = 0; i < 2_000; i++) pipe.set(`k${i}`, i).get(`k${i}`);
  const wrong = (await pipe.exec()).filter(([e, reply], i) => e || reply !== (i % 2 ? String((i - 1) / 2) : "OK"));
  const seen = await Promise.all(Array.from({ length: 1000 }, (_, i) => automatic.get(`k${i}`)));
  const some = await c.pipeline().set("t", "text").incr("t").get("t").exec();
  [c, automatic].forEach((client) => client.disconnect());
  return [wrong, seen.every((reply, i) => reply === String(i)), some.map(([e, reply]) => [e && e.message, reply ?? null])];
});

test("transactions", async () => {
  const c = connect();
  await c.del("n");
  const increments = async () => {
    const mine = connect();
    for (let done = 0; done < 10; ) {
      await mine.watch("n");
      const n = Number(await mine.get("n"));
      if (await mine.multi().set("n", n + 1).exec()) done++;
    }
    mine.disconnect();
  };
  await Promise.all(Array.from({ length: 4 }, increments));
  const seen = [await c.get("n"), await c.multi().set("x", 1).get("x").exec()];
  seen.push((await c.multi().set("y", "text").incr("y").exec()).map(([e, reply]) => [e && e.message, reply ?? null]));
  seen.push(await error(c.multi().set("x", 2).call("NOSUCH").exec()), await c.get("x"));
  // One command after the other, without a pipeline.
  await c.multi({ pipeline: false });
  seen.push(await c.set("x", 3), await c.get("x"), await c.exec(), await c.multi({ pipeline: false }), await c.discard());
  c.disconnect();
  return seen;
});

test("publish and subscribe", async () => {
  const seen = [];
  for (const protocol of [2, 3]) {
    const [c, sub, heard] = [connect({ protocol }), connect({ protocol }), []];
    sub.on("message", (...message) => heard.push(message)).on("pmessage", (...message) => heard.push(message));
    seen.push(await sub.subscribe("news", "sport"), await sub.psubscribe("w*"));
    seen.push(await c.publish("news", "one"), await c.publish("weather", "two"), await c.publish("nosuch", "x"));
    await eventually("two messages", () => heard.length === 2);
    seen.push(await sub.unsubscribe("news", "sport"), await sub.punsubscribe("w*"), heard, await c.publish("news", "nobody"), await sub.set("after", "x"));
    [c, sub].forEach((client) => client.disconnect());
  }
  return seen;
});

test("blocking", async () => {
  const c = connect();
  await c.del("queue", "log");
  const seen = [await c.blpop("queue", 0.05)];
  const taken = [];
  const work = async () => {
    const mine = connect();
    for (let job; (job = (await mine.blpop("queue", 0))[1]) !== "end"; ) taken.push(job);
    mine.disconnect();
  };
  const workers = Array.from({ length: 5 }, work);
  const jobs = Array.from({ length: 100 }, (_, i) => String(i).padStart(2, "0"));
  for (const job of [...jobs, ...Array(5).fill("end")]) await c.rpush("queue", job);
  await Promise.all(workers);
  const reader = connect();
  const entry = reader.xread("BLOCK", 0, "STREAMS", "log", "0");
  await c.xadd("log", "1-1", "f", "v");
  seen.push(taken.sort().join() === jobs.join(), await entry);
  [c, reader].forEach((client) => client.disconnect());
  return seen;
});

test("scripts", async () => {
  const c = connect();
  await c.del("k");
  c.defineCommand("add", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
  const seen = [await c.add("k", 5), await c.script("FLUSH"), await c.add("k", 5), await c.pipeline().add("k", 1).add("k", 2).exec()];
  seen.push(await error(c.evalsha("0".repeat(40), 0)));
  c.disconnect();
  return seen;
});

test("reconnection", async () => {
  // With the library's own way to connect again, and what it does again then.
  const heard = [];
  const c = new Redis({ host: HOST, port: PORT, db: 5, connectionName: "stays" });
  const sub = new Redis({ host: HOST, port: PORT });
  sub.on("message", (_, message) => heard.push(message));
  await sub.subscribe("news");
  await c.set("k", "v");
  [c, sub].forEach((client) => client.disconnect(true));
  const seen = [await c.get("k"), await c.client("GETNAME")];
  await eventually("it is subscribed again", () => c.publish("news", "again"));
  await eventually("it hears that", () => heard.length);
  [c, sub].forEach((client) => client.disconnect());
  return seen;
});

workload("switch counters", async (going) => {
  const c = connect();
  for (let n = 1; going(); n++) {
    assert.equal(await c.incr("switch:n"), n);
    assert.equal((await c.pipeline().set("switch:k", n).get("switch:k").exec())[1][1], String(n));
  }
  return "each counted once";
});

workload("switch transactions", async (going) => {
  const c = connect();
  for (let n = 1; going(); n++) {
    assert.deepEqual(await c.multi().incr("switch:a").incr("switch:b").exec(), [[null, n], [null, n]]);
  }
  return "both counted alike";
});

workload("switch scripts", async (going) => {
  const c = connect();
  c.defineCommand("next", { numberOfKeys: 1, lua: "return redis.call('INCR', KEYS[1])" });
  for (let n = 1; going(); n++) assert.equal(await c.next("switch:script"), n);
  return "each ran once";
});

workload("switch subscribers", async (going) => {
  const [c, sub] = [connect(), connect()];
  const heard = new Set();
  sub.on("message", (_, message) => heard.add(message));
  await sub.subscribe("switch:news");
  // What is published during a switch may be lost, as with Redis.
  while (going()) { await c.publish("switch:news", "more"); await sleep(10); }
  assert.equal(await c.publish("switch:news", "last"), 1);
  await eventually("it hears it", () => heard.has("last"));
  return "still subscribed";
});

workload("switch blocked workers", async (going) => {
  const [c, worker] = [connect(), connect()];
  const job = worker.blpop("switch:queue", 0);
  while (going()) { await c.ping(); await sleep(10); }
  await c.rpush("switch:queue", "job");
  return job;
});

workload("switch blocked readers of streams", async (going) => {
  const [c, reader] = [connect(), connect()];
  const entry = reader.xread("BLOCK", 0, "STREAMS", "switch:log", "$");
  while (going()) { await c.ping(); await sleep(10); }
  await c.xadd("switch:log", "1-1", "f", "v");
  return entry;
});

run("ioredis");
