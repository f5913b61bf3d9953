"""What the Python scripts share: tests in their order, and workloads that go on while the runner changes the master.

A script prints one line of JSON for each test. Whatever it prints must be the same from a server and through the proxy.
"""
import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
import time
import traceback

HOST, PORT = os.environ["REDIS_HOST"], int(os.environ["REDIS_PORT"])
# Longer than anything here takes, on the slowest machine.
DEADLINE = 60
_tests, _workloads, _survivors = [], [], []


def test(function):
    """The function's result is compared; an exception is a failure."""
    _tests.append(function)
    return function


def workload(function):
    """The function goes on while `going()` says so; its result is compared."""
    _workloads.append(function)
    return function


def survivor(function):
    """So does this one, while the master is killed."""
    _survivors.append(function)
    return function


def run(library, version):
    """Runs all tests, then all workloads at once with a switch in their middle, and those that survive a master's death."""
    say(library=library, version=version)
    for function in _tests:
        report(function, outcome(function))
    through("switch", _workloads)
    through("kill", _survivors)


def through(change, functions):
    """Runs them all at once, and has the master changed meanwhile."""
    if not functions:
        return
    changed = threading.Event()
    results = {}

    def play(function):
        results[function] = outcome(function, Going(changed))

    threads = [threading.Thread(target=play, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    # Each has begun, and most have said a lot.
    time.sleep(0.3)
    say(**{change: True})
    sys.stdin.readline()
    changed.set()
    for thread in threads:
        thread.join(DEADLINE)
    for function in functions:
        report(function, results.get(function, {"failed": "it does not end"}))


def beside(script, argument="worker"):
    """A process that runs the same script with that argument."""
    return subprocess.Popen([sys.executable, script, argument], stdin=subprocess.DEVNULL, stdout=sys.stderr)


def ended(process):
    """Asks it to end as an operator does, and says how it did."""
    process.terminate()
    return process.wait(DEADLINE)


class Going:
    """Says True until the master has changed, and then a few times more, so that each workload speaks to the new one."""

    def __init__(self, changed):
        self.changed, self.left = changed, 20

    def __call__(self):
        if self.changed.is_set():
            self.left -= 1
        return self.left > 0


def outcome(function, *args):
    try:
        result = function(*args)
        if inspect.isawaitable(result):
            result = asyncio.run(asyncio.wait_for(result, DEADLINE))
        return {"result": result}
    except Exception:
        return {"failed": traceback.format_exc(limit=-3).strip()}


def error(function, *args, **named):
    """What it raises, as text."""
    try:
        return repr(function(*args, **named))
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def report(function, result):
    say(test=function.__name__.replace("_", " "), **result)


def say(**line):
    print(json.dumps(line, default=plain), flush=True)


def plain(value):
    """Sets in order, bytes as text; JSON knows neither."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return repr(value)
