"""Django: its cache, and sessions that are kept in it."""
import threading

import django
from django.conf import settings
from django.http import HttpResponse
from django.test import RequestFactory

from checks import DEADLINE, HOST, PORT, error, run, test, workload

settings.configure(
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://{HOST}:{PORT}/1"},
        "alice": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://alice:secret@{HOST}:{PORT}/2"},
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SECRET_KEY="none",
)
django.setup()

from django.contrib.sessions.middleware import SessionMiddleware  # noqa: E402: it wants the settings
from django.core.cache import cache, caches  # noqa: E402


def view(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def visit(cookies):
    """A request of somebody with these cookies; what is answered."""
    request = RequestFactory().get("/")
    request.COOKIES.update(cookies)
    response = SessionMiddleware(view)(request)
    cookies.update({name: morsel.value for name, morsel in response.cookies.items()})
    return int(response.content)


@test
def cache_values():
    cache.clear()
    seen = [cache.set("k", {"a": [1, 2]}, 100), cache.get("k"), cache.get("nosuch", "default"), cache.add("k", 1), cache.add("n", 1)]
    seen += [cache.incr("n", 41), cache.decr("n"), cache.touch("n", 50), error(cache.incr, "nosuch")]
    seen += [cache.set_many({f"m{i}": i for i in range(100)}), len(cache.get_many([f"m{i}" for i in range(200)]))]
    seen += [cache.get_or_set("lazy", lambda: "made"), cache.has_key("lazy"), cache.delete("lazy"), cache.delete_many(["m1", "m2"])]
    caches["alice"].set("k", "hers")
    return seen + [caches["alice"].get("k"), cache.get("k"), cache.clear(), cache.get("k")]


@test
def sessions():
    wrong = []

    def browse():
        cookies = {}
        if [visit(cookies) for _ in range(10)] != list(range(1, 11)):
            wrong.append(cookies)

    threads = [threading.Thread(target=browse) for _ in range(20)]
    [thread.start() for thread in threads]
    [thread.join(DEADLINE) for thread in threads]
    return [wrong, visit({}), visit({"sessionid": "invented"})]


@workload
def switch_sessions(going):
    cookies, n = {}, 0
    while going():
        n += 1
        assert visit(cookies) == n
    return "no visit was forgotten"


@workload
def switch_cache(going):
    n = 0
    cache.set("switch", 0)
    while going():
        n += 1
        assert cache.incr("switch") == n
        cache.set_many({"a": n, "b": n})
        assert cache.get_many(["a", "b"]) == {"a": n, "b": n}
    return "all there"


if __name__ == "__main__":
    run("Django", django.__version__)
