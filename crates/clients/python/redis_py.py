"""redis-py: what applications do with it."""
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from checks import DEADLINE, HOST, PORT, error, run, test, workload


def connect(**options):
    return redis.Redis(HOST, PORT, decode_responses=True, **{"socket_timeout": DEADLINE, **options})


def strict(**options):
    """One that hides no error by trying again."""
    return connect(retry=Retry(NoBackoff(), 0), **options)


def in_threads(function, count):
    threads = [threading.Thread(target=function, args=(i,)) for i in range(count)]
    [thread.start() for thread in threads]
    [thread.join(DEADLINE) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)


@test
def handshake():
    seen = []
    for protocol in (2, 3):
        r = strict(protocol=protocol, client_name="billing", db=3)
        seen += [r.ping(), r.client_getname(), r.set("k", protocol), r.get("k"), strict(protocol=protocol).get("k")]
        for user, password in [("alice", "secret"), ("alice", "wrong"), ("nobody", "x")]:
            r = strict(protocol=protocol, username=user, password=password, client_name="ours", db=3)
            seen.append(error(r.acl_whoami))
            seen.append(error(r.client_getname))
        seen.append(error(strict(protocol=protocol, password="needless").ping))
        seen.append(error(strict(protocol=protocol, db=99).ping))
        seen.append(error(redis.from_url(f"redis://alice:secret@{HOST}:{PORT}/5?protocol={protocol}").acl_whoami))
    return seen


@test
def values():
    seen = []
    for protocol in (2, 3):
        r = connect(protocol=protocol)
        r.flushdb()
        every = bytes(range(256)) * 8192
        raw = redis.Redis(HOST, PORT, protocol=protocol)
        seen += [raw.set(b"\x00bytes", every), raw.get(b"\x00bytes") == every]
        seen += [r.set("a", 1, ex=100, get=True), r.set("a", 2, nx=True), r.get("nosuch"), r.ttl("a") > 90, r.incrbyfloat("a", 0.5)]
        seen += [r.hset("h", mapping={"x": 1, "y": 2}), r.hgetall("h"), r.hmget("h", "x", "z")]
        seen += [r.rpush("l", 1, 2, 3), r.lrange("l", 0, -1), r.lpos("l", "2"), r.linsert("l", "BEFORE", "2", "x")]
        seen += [r.sadd("s", "a", "b"), r.smembers("s"), r.smismember("s", ["a", "z"])]
        seen += [r.zadd("z", {"one": 1, "two": 2.5}), r.zrange("z", 0, -1, withscores=True), r.zscore("z", "two"), r.zrank("z", "two")]
        seen += [r.xadd("x", {"f": "v"}, id="1-1"), r.xrange("x"), r.xread({"x": "0"}), r.xinfo_stream("x")["length"]]
        seen += [r.geoadd("g", (13.36, 38.11, "palermo")), r.geopos("g", "palermo"), r.pfadd("p", 1, 2, 3), r.pfcount("p")]
        seen += [r.setbit("b", 7, 1), r.bitcount("b"), r.copy("a", "copy"), r.object("encoding", "l"), r.sort("l", alpha=True)]
        seen += [error(r.lpush, "a", 1), error(r.incr, "h"), error(r.execute_command, "NOSUCH", "x"), error(r.execute_command, "GET")]
        seen += [sorted(r.scan_iter(count=2)), sorted(r.hscan_iter("h")), sorted(r.zscan_iter("z")), r.dbsize()]
        seen += [r.swapdb(0, 9), r.dbsize(), connect(db=9, protocol=protocol).dbsize(), r.flushall()]
        seen += [r.config_get("maxmemory-policy"), r.command_count() > 200, "redis_version" in r.info("server"), r.time()[0] > 0]
    return seen


@test
def pipelines():
    r = connect()
    pipe = r.pipeline(transaction=False)
    for i in range(2_000):
        pipe.set(f"k{i}", i).get(f"k{i}")
    all_there = pipe.execute() == [x for i in range(2_000) for x in (True, str(i))]
    r.set("text", "x")
    pipe = r.pipeline(transaction=False).set("a", 1).incr("text").get("a")
    return [all_there, [str(x) for x in pipe.execute(raise_on_error=False)], error(r.pipeline().get("a").incr("text").execute)]


@test
def transactions():
    r = connect()
    r.delete("n", "a")

    def increment(_):
        mine = connect()
        for _ in range(25):
            mine.transaction(lambda pipe: (n := int(pipe.get("n") or 0), pipe.multi(), pipe.set("n", n + 1)), "n")

    in_threads(increment, 4)
    seen = [r.get("n")]
    with r.pipeline() as pipe:
        pipe.watch("n")
        r.incr("n")
        pipe.multi()
        pipe.set("a", 1)
        seen.append(error(pipe.execute))
    with r.pipeline() as pipe:
        pipe.watch("n")
        seen.append(pipe.get("n"))
        pipe.unwatch()
        seen.append(pipe.set("a", 2).get("a").execute())
    seen.append(error(r.pipeline().set("x", 1).execute_command("NOSUCH").execute))
    seen.append([str(x) for x in r.pipeline().set("y", "text").incr("y").get("y").execute(raise_on_error=False)])
    seen.append([r.exists("x"), r.get("y")])
    with r.lock("lock", timeout=10) as lock:
        seen += [r.lock("lock").acquire(blocking=False), lock.owned(), lock.reacquire()]
    return seen + [r.exists("lock")]


@test
def publish_and_subscribe():
    seen = []
    for protocol in (2, 3):
        r = connect(protocol=protocol)
        sub = r.pubsub()
        sub.subscribe("news", "sport")
        sub.psubscribe("w*")
        seen += [sub.get_message(timeout=DEADLINE) for _ in range(3)]
        seen += [r.publish("news", "one"), r.publish("weather", "two"), r.publish("nosuch", "x"), r.pubsub_numsub("news")]
        seen += [sub.get_message(timeout=DEADLINE) for _ in range(2)]
        if protocol == 2:
            sub.ping("are you there")
            seen.append(sub.get_message(timeout=DEADLINE))
        sub.unsubscribe()
        sub.punsubscribe()
        # A server leaves its channels in an order of its own.
        seen += sorted([sub.get_message(timeout=DEADLINE)["channel"] for _ in range(3)])
        seen += [sub.subscribed, r.publish("news", "nobody")]
        sub.ssubscribe("shard")
        seen += [sub.get_message(timeout=DEADLINE), r.spublish("shard", "three"), sub.get_message(timeout=DEADLINE)]
        sub.close()
        # In a thread of the library's own.
        heard, done = [], threading.Event()
        sub = r.pubsub(ignore_subscribe_messages=True)
        sub.subscribe(jobs=lambda message: (heard.append(message["data"]), len(heard) == 100 and done.set()))
        thread = sub.run_in_thread(sleep_time=0.01, daemon=True)
        while r.pubsub_numsub("jobs") != [("jobs", 1)]:
            pass
        for i in range(100):
            r.publish("jobs", i)
        seen += [done.wait(DEADLINE), heard == [str(i) for i in range(100)]]
        thread.stop()
        thread.join(DEADLINE)
        # Keyspace notifications are messages as any other.
        r.config_set("notify-keyspace-events", "KEA")
        sub = r.pubsub(ignore_subscribe_messages=True)
        sub.psubscribe("__keyevent@0__:*")
        sub.get_message(timeout=DEADLINE)
        r.set("noticed", 1)
        seen.append(next(m for m in sub.listen() if m["data"] == "noticed"))
        sub.close()
        r.config_set("notify-keyspace-events", "")
    return seen


@test
def blocking():
    r = connect()
    r.delete("queue", "done", "log")
    seen = [r.blpop("queue", timeout=0.05), r.bzpopmin("nosuch", timeout=0.05), r.blmove("queue", "done", timeout=0.05)]
    taken = []

    def work(_):
        mine = connect(socket_timeout=None)
        while (job := mine.blpop("queue", timeout=0)[1]) != "end":
            taken.append(job)

    workers = threading.Thread(target=in_threads, args=(work, 4))
    workers.start()
    jobs = [f"job {i:03}" for i in range(200)]
    for job in jobs + ["end"] * 4:
        r.rpush("queue", job)
    workers.join(DEADLINE)
    seen.append(sorted(taken) == jobs)
    # A group of consumers of a stream.
    seen.append(r.xgroup_create("log", "group", mkstream=True))
    read = []

    def consume(i):
        mine = connect(protocol=2)
        while entries := mine.xreadgroup("group", f"consumer {i}", {"log": ">"}, count=5, block=300):
            for key, fields in entries[0][1]:
                mine.xack("log", "group", key)
                read.append(fields["n"])

    consumers = threading.Thread(target=in_threads, args=(consume, 3))
    consumers.start()
    for i in range(100):
        r.xadd("log", {"n": f"{i:02}"})
    consumers.join(DEADLINE)
    return seen + [sorted(read) == [f"{i:02}" for i in range(100)], r.xpending("log", "group")["pending"]]


@test
def other_sessions():
    r, other = strict(client_name="asks"), strict(client_name="other")
    own, named = r.client_info(), other.client_id()
    seen = [own["name"], own["db"], int(own["id"]) == r.client_id(), own["laddr"].endswith(f":{PORT}")]
    popped = []
    thread = threading.Thread(target=lambda: popped.append(other.blpop("nosuch", timeout=0)), daemon=True)
    thread.start()
    begin = time.monotonic()
    while not r.client_unblock(named):
        assert time.monotonic() - begin < DEADLINE
    thread.join(DEADLINE)
    seen += [popped, r.client_unblock(named), r.client_kill_filter(_id=named), r.client_kill_filter(_id=named)]
    return seen + [error(other.ping), other.ping(), r.client_kill_filter(_type="pubsub")]


@test
def scripts():
    r = connect()
    r.delete("k", "l")
    add = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    seen = [add(keys=["k"], args=[5]), r.script_exists(add.sha), r.script_flush(), r.script_exists(add.sha)]
    # It is shown again.
    seen += [add(keys=["k"], args=[5]), error(r.evalsha, "0" * 40, 0)]
    pipe = r.pipeline()
    for i in range(50):
        add(keys=["k"], args=[i], client=pipe)
    seen.append(pipe.execute()[-1])
    seen += [r.eval("return {1, 'two', {3.9, false}}", 0), error(r.eval, "return redis.error_reply('MINE it is')", 0)]
    seen += [error(r.eval, "return redis.call('LPUSH', KEYS[1], 1)", 1, "k"), error(r.eval, "return (", 0)]
    seen.append(r.function_load("#!lua name=ours\nredis.register_function('twice', function(k, a) return a[1] * 2 end)", replace=True))
    return seen + [r.fcall("twice", 0, 21), r.function_delete("ours"), error(r.fcall, "twice", 0, 21)]


@test
def pools():
    pool = redis.BlockingConnectionPool(host=HOST, port=PORT, max_connections=8, timeout=DEADLINE, decode_responses=True)
    wrong = []

    def work(i):
        r = redis.Redis(connection_pool=pool)
        for n in range(20):
            pipe = r.pipeline(transaction=n % 2 == 0)
            if pipe.set(f"own{i}", n).get(f"own{i}").execute() != [True, str(n)]:
                wrong.append((i, n))

    in_threads(work, 40)
    # A connection with another database and name is another connection.
    one = redis.Redis(connection_pool=redis.ConnectionPool(host=HOST, port=PORT, db=2, client_name="two", decode_responses=True))
    seen = [wrong, one.get("own1"), one.client_getname(), connect().client_getname()]
    # Connections that were closed by either side are made again.
    r = connect(single_connection_client=True, protocol=2)
    seen += [r.set("k", "v"), r.quit(), r.get("k")]
    r.connection.disconnect()
    seen += [r.get("k"), r.client_setname("after"), r.reset(), r.client_getname(), r.get("k")]
    r = connect(health_check_interval=1)
    return seen + [r.get("k"), r.execute_command("CLIENT", "NO-EVICT", "ON"), r.get("k")]


@test
def client_side_cache():
    other = connect()
    other.set("cached", 1)
    try:
        r = connect(protocol=3, cache_config=CacheConfig())
        r.get("cached")
    except redis.ConnectionError as e:
        # It asks for a server of version 7.4.
        return str(e)
    seen = [r.get("cached"), r.get_cache().size]
    other.set("cached", 2)
    while (value := r.get("cached")) != "2":
        assert value == "1"
    return seen + [value, r.get_cache().size]


@workload
def switch_counters(going):
    r, n = strict(), 0
    while going():
        n += 1
        assert r.incr("switch:n") == n
        assert r.set("switch:k", n) and int(r.get("switch:k")) == n
    return "each counted once"


@workload
def switch_pipelines(going):
    r, n = strict(), 0
    while going():
        pipe = r.pipeline(transaction=False)
        [pipe.rpush("switch:list", n + i) for i in range(20)]
        assert pipe.execute() == list(range(n + 1, n + 21))
        n += 20
    return [int(x) for x in r.lrange("switch:list", 0, -1)] == list(range(n))


@workload
def switch_transactions(going):
    r, n = strict(), 0
    while going():
        n += 1
        assert r.pipeline().incr("switch:a").incr("switch:b").execute() == [n, n]
    return [int(x) for x in r.mget("switch:a", "switch:b")] == [n, n]


@workload
def switch_optimistic_locks(going):
    r, n = strict(), 0

    def increment(pipe):
        value = int(pipe.get("switch:watched") or 0)
        pipe.multi()
        pipe.set("switch:watched", value + 1)

    while going():
        n += 1
        r.transaction(increment, "switch:watched")
    return int(r.get("switch:watched")) == n


@workload
def switch_scripts(going):
    r, n = strict(), 0
    add = r.register_script("return redis.call('INCR', KEYS[1])")
    while going():
        n += 1
        assert add(keys=["switch:script"]) == n
    return "each ran once"


@workload
def switch_subscribers(going):
    subscribers = [strict(protocol=protocol).pubsub(ignore_subscribe_messages=True) for protocol in (2, 3)]
    for sub in subscribers:
        sub.subscribe("switch:news")
        sub.get_message(timeout=DEADLINE)
    publisher = strict()
    while going():
        publisher.publish("switch:news", "more")
        for sub in subscribers:
            # What is published during a switch may be lost, as with Redis.
            sub.get_message(timeout=0.05)
    assert publisher.publish("switch:news", "last") == 2
    return [next(m["data"] for m in sub.listen() if m["data"] == "last") for sub in subscribers]


@workload
def switch_blocked_workers(going):
    r, taken = strict(), []
    worker = threading.Thread(target=lambda: taken.append(strict(socket_timeout=None).blpop("switch:queue", timeout=0)), daemon=True)
    worker.start()
    # Nothing comes while the master changes.
    while going():
        r.ping()
        time.sleep(0.01)
    r.rpush("switch:queue", "job")
    worker.join(DEADLINE)
    return taken


@workload
def switch_blocked_readers_of_streams(going):
    r, entries = strict(), []
    reader = threading.Thread(target=lambda: entries.append(strict(socket_timeout=None, protocol=2).xread({"switch:log": "$"}, block=0)), daemon=True)
    reader.start()
    while going():
        r.ping()
        time.sleep(0.01)
    r.xadd("switch:log", {"f": "v"}, id="1-1")
    reader.join(DEADLINE)
    return entries


if __name__ == "__main__":
    run("redis-py", redis.__version__)
