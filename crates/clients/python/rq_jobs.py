"""RQ: jobs in queues, a worker in a process of its own."""
import sys
import time

import redis
import rq

from checks import DEADLINE, HOST, PORT, beside, ended, run, survivor, test, workload


def connection():
    return redis.Redis(HOST, PORT, db=1)


def add(x, y):
    return x + y


def fails():
    raise ValueError("as it should")


def finished(job):
    """The job's result once it has one."""
    end = time.monotonic() + DEADLINE
    while job.get_status() not in ("finished", "failed"):
        assert time.monotonic() < end, job.get_status()
        time.sleep(0.01)
    latest = job.latest_result()
    return latest.return_value if latest.type == latest.Type.SUCCESSFUL else (latest.exc_string or "").strip().splitlines()[-1]


# Jobs are found by the name of their module, which a script that is run has not.
def enqueue(queue, name, *args, **options):
    return queue.enqueue(f"rq_jobs.{name}", *args, **options)


@test
def jobs():
    queue = rq.Queue("low", connection=connection())
    some = [enqueue(queue, "add", i, i) for i in range(30)]
    seen = [[finished(job) for job in some] == [2 * i for i in range(30)], finished(enqueue(queue, "fails"))]
    first = enqueue(queue, "add", 1, 2)
    seen.append(finished(enqueue(queue, "add", 3, 4, depends_on=first)))
    return seen + [len(queue), queue.failed_job_registry.count]


@workload
def switch_jobs(going):
    queue, n = rq.Queue("low", connection=connection()), 0
    while going():
        n += 1
        assert finished(enqueue(queue, "add", n, n)) == 2 * n
    return "each was done"


@workload
def switch_idle_worker(going):
    r = connection()
    while going():
        assert r.ping() and idle.poll() is None
        time.sleep(0.05)
    return finished(enqueue(rq.Queue("idle", connection=r), "add", 20, 22))


@survivor
def kill_idle_worker(going):
    return switch_idle_worker(going)


def work(queue):
    rq.SimpleWorker([queue], connection=connection()).work(logging_level="INFO")


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work("low")
    elif sys.argv[1:] == ["idle"]:
        work("idle")
    else:
        worker, idle = beside(__file__), beside(__file__, "idle")
        run("RQ", rq.__version__)
        ended(worker)
        ended(idle)
