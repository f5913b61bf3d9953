"""Celery with redis as broker and as result backend, and a worker in a process of its own."""
import sys
import time

import celery
from celery import chord, group

from checks import DEADLINE, HOST, PORT, beside, ended, run, survivor, test, workload

app = celery.Celery("tasks", broker=f"redis://{HOST}:{PORT}/1", backend=f"redis://{HOST}:{PORT}/2")
app.conf.update(
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="total")
def total(numbers):
    return sum(numbers)


@app.task(name="flaky", bind=True, max_retries=3)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(name="fails")
def fails():
    raise ValueError("as it should")


@test
def tasks():
    results = [add.delay(i, i) for i in range(100)]
    seen = [[result.get(timeout=DEADLINE) for result in results] == [2 * i for i in range(100)]]
    seen += [flaky.delay().get(timeout=DEADLINE), repr(fails.delay().get(timeout=DEADLINE, propagate=False))]
    return seen + [add.apply_async((1, 2), countdown=0.3).get(timeout=DEADLINE)]


@test
def canvas():
    seen = [group(add.s(i, 1) for i in range(10))().get(timeout=DEADLINE), (add.s(1, 2) | add.s(3) | add.s(4))().get(timeout=DEADLINE)]
    return seen + [chord((add.s(i, i) for i in range(10)), total.s())().get(timeout=DEADLINE)]


@test
def remote_control():
    answers = app.control.inspect(timeout=2).ping()
    return [list(answer.values()) for answer in answers.values()]


@workload
def switch_tasks(going):
    n = 0
    while going():
        results = [add.delay(n, i) for i in range(5)]
        assert [result.get(timeout=DEADLINE) for result in results] == [n + i for i in range(5)]
        n += 5
    return "each was done"


@workload
def switch_idle_worker(going):
    while going():
        assert worker.poll() is None
        time.sleep(0.05)
    return add.delay(20, 22).get(timeout=DEADLINE)


@survivor
def kill_idle_worker(going):
    return switch_idle_worker(going)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        app.worker_main(["worker", "--pool", "threads", "--concurrency", "4", "--loglevel", "INFO"])
    else:
        worker = beside(__file__)
        run("Celery", celery.__version__)
        ended(worker)
