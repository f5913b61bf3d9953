"""redis.asyncio: what applications do with it."""
import asyncio

import redis
import redis.asyncio as aio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from checks import DEADLINE, HOST, PORT, run, test, workload


def connect(**options):
    return aio.Redis(host=HOST, port=PORT, decode_responses=True, **{"socket_timeout": DEADLINE, **options})


def strict(**options):
    """One that hides no error by trying again."""
    return connect(retry=Retry(NoBackoff(), 0), **options)


async def error(awaitable):
    """What it raises, as text."""
    try:
        return repr(await awaitable)
    except Exception as e:
        return f"{type(e).__name__}: {e}"


@test
async def handshake():
    seen = []
    for protocol in (2, 3):
        async with strict(protocol=protocol, client_name="billing", db=3) as r:
            seen += [await r.ping(), await r.client_getname(), await r.set("k", protocol), await r.get("k")]
        for user, password in [("alice", "secret"), ("alice", "wrong"), ("nobody", "x")]:
            async with strict(protocol=protocol, username=user, password=password) as r:
                seen.append(await error(r.acl_whoami()))
        async with strict(protocol=protocol, db=99) as r:
            seen.append(await error(r.ping()))
    return seen


@test
async def values():
    seen = []
    for protocol in (2, 3):
        async with connect(protocol=protocol) as r:
            await r.flushdb()
            seen += [await r.set("a", 1, ex=100), await r.get("a"), await r.get("nosuch"), await r.incrbyfloat("a", 0.5)]
            seen += [await r.hset("h", mapping={"x": 1, "y": 2}), await r.hgetall("h"), await r.rpush("l", 1, 2), await r.lrange("l", 0, -1)]
            seen += [await r.sadd("s", "a", "b"), await r.smembers("s"), await r.zadd("z", {"b": 1.5}), await r.zrange("z", 0, -1, withscores=True)]
            seen += [await r.xadd("x", {"f": "v"}, id="1-1"), await r.xrange("x"), await error(r.lpush("a", 1)), await error(r.execute_command("NOSUCH"))]
            seen += [sorted([k async for k in r.scan_iter(count=2)]), await r.dbsize()]
    return seen


@test
async def pipelines():
    async with connect() as r:
        pipe = r.pipeline(transaction=False)
        for i in range(2_000):
            pipe.set(f"k{i}", i).get(f"k{i}")
        return await pipe.execute() == [x for i in range(2_000) for x in (True, str(i))]


@test
async def transactions():
    async with connect() as r:
        await r.delete("n")

        async def increment():
            async def step(pipe):
                value = int(await pipe.get("n") or 0)
                pipe.multi()
                pipe.set("n", value + 1)

            for _ in range(20):
                await r.transaction(step, "n")

        await asyncio.gather(*(increment() for _ in range(4)))
        seen = [await r.get("n"), await error(r.pipeline().set("x", 1).execute_command("NOSUCH").execute())]
        async with r.lock("lock", timeout=10):
            seen.append(await r.lock("lock").acquire(blocking=False))
        return seen + [await r.exists("lock", "x")]


@test
async def publish_and_subscribe():
    seen = []
    for protocol in (2, 3):
        async with connect(protocol=protocol) as r, r.pubsub() as sub:
            await sub.subscribe("news")
            await sub.psubscribe("w*")
            seen += [await sub.get_message(timeout=DEADLINE) for _ in range(2)]
            seen += [await r.publish("news", "one"), await r.publish("weather", "two")]
            seen += [await sub.get_message(timeout=DEADLINE) for _ in range(2)]
            await sub.unsubscribe()
            seen += [await sub.get_message(timeout=DEADLINE), await r.publish("news", "nobody")]
    return seen


@test
async def blocking():
    async with connect(socket_timeout=None) as r:
        await r.delete("queue")
        seen, taken = [await r.blpop("queue", timeout=0.05)], []

        async def work():
            while (job := (await r.blpop("queue", timeout=0))[1]) != "end":
                taken.append(job)

        workers = [asyncio.create_task(work()) for _ in range(5)]
        for i in range(100):
            await r.rpush("queue", f"{i:02}")
        await r.rpush("queue", *["end"] * 5)
        await asyncio.gather(*workers)
        # One that is cancelled while it waits takes nothing with it.
        waits = asyncio.create_task(r.blpop("queue", timeout=0))
        await asyncio.sleep(0.2)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        # The server has noticed that it is gone.
        while int((await r.info("clients"))["blocked_clients"]):
            await asyncio.sleep(0.01)
        return seen + [sorted(taken) == [f"{i:02}" for i in range(100)], await r.rpush("queue", "kept"), await r.llen("queue")]


@test
async def scripts():
    async with connect() as r:
        await r.delete("k")
        add = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        return [await add(keys=["k"], args=[5]), await r.script_flush(), await add(keys=["k"], args=[5]), await error(r.evalsha("0" * 40, 0))]


@test
async def pools():
    pool = aio.BlockingConnectionPool(host=HOST, port=PORT, max_connections=8, timeout=DEADLINE, decode_responses=True)
    async with aio.Redis(connection_pool=pool) as r:

        async def work(i):
            replies = [await r.pipeline(transaction=n % 2 == 0).set(f"own{i}", n).get(f"own{i}").execute() for n in range(10)]
            return replies == [[True, str(n)] for n in range(10)]

        seen = await asyncio.gather(*(work(i) for i in range(100)))
        await pool.disconnect()
        return seen + [await r.get("own1")]


@workload
async def switch_counters(going):
    async with strict() as r:
        n = 0
        while going():
            n += 1
            assert await r.incr("switch:n") == n
        return "each counted once"


@workload
async def switch_many_tasks(going):
    async with strict() as r:

        async def work(i):
            for n in range(1, 4):
                assert await r.set(f"switch:{i}", n) and int(await r.get(f"switch:{i}")) == n

        while going():
            await asyncio.gather(*(work(i) for i in range(30)))
        return "each has its own"


@workload
async def switch_transactions(going):
    async with strict() as r:
        n = 0
        while going():
            n += 1
            assert await r.pipeline().incr("switch:a").incr("switch:b").execute() == [n, n]
        return "both counted alike"


@workload
async def switch_subscribers(going):
    async with strict() as r, r.pubsub(ignore_subscribe_messages=True) as sub:
        await sub.subscribe("switch:news")
        await sub.get_message(timeout=DEADLINE)
        while going():
            await r.publish("switch:news", "more")
            # What is published during a switch may be lost, as with Redis.
            await sub.get_message(timeout=0.05)
        assert await r.publish("switch:news", "last") == 1
        async for message in sub.listen():
            if message["data"] == "last":
                return "still subscribed"


@workload
async def switch_blocked_workers(going):
    async with strict(socket_timeout=None) as r:
        worker = asyncio.create_task(r.blpop("switch:queue", timeout=0))
        # Nothing comes while the master changes.
        while going():
            await r.ping()
            await asyncio.sleep(0.01)
        await r.rpush("switch:queue", "job")
        return await worker


if __name__ == "__main__":
    run("redis.asyncio", redis.__version__)
