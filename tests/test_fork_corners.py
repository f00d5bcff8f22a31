"""Forks where locks, sockets and files are least convenient to inherit."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from driving import eventually, one_each
from serving import Served, environment, free_port, serving
from spooling import balanced, ids, line_of, process, rows_of, run, spooled

from otel_analytics.testing import Accept, FaultyCollector

NO_HOOKS = "import ctypes\nfork = ctypes.PyDLL(None).fork\n"  # as a server written in C forks

IN_FLIGHT = """
client = spooled(url, path)
track(client, "before", 20)
sys.stdin.readline()
pid = os.fork()
track(client, "parent" if pid else "child", 20)
flushed = client.flush(5_000)
if not pid:
    os._exit(0 if flushed else 1)
say(flushed, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

IN_A_THREAD_OF_A_CHILD = """
client = spooled(url, path)
track(client, "before", 5)

def fork_and_wait(name, then):
    pid = os.fork()
    if not pid:
        track(client, name, 5)
        flushed = client.flush(5_000)
        then()
        os._exit(0 if flushed else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def in_a_thread():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(fork_and_wait("grandchild", lambda: None)))
    thread.start()
    thread.join(10)
    if codes != [0]:
        os._exit(2)

say(fork_and_wait("child", in_a_thread), client.flush(5_000))
"""

IN_SEVERAL_THREADS = """
clients = [spooled(url, path), spooled(url, path)]
for number, client in enumerate(clients):
    track(client, f"before{number}", 5)
codes = []

def fork_often():
    for _ in range(10):
        pid = os.fork()
        if not pid:
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

threads = [threading.Thread(target=fork_often) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(10)
say(sum(codes), len(codes), *(client.flush(5_000) for client in clients))
"""

BEFORE_THE_FIRST_EVENT = """
client = spooled(url, path)
pid = fork()
if not pid:
    track(client, "child", 5)
    os._exit(0)
os.waitpid(pid, 0)
say("waited")
sys.stdin.readline()
track(client, "parent", 5)
say(client.flush(5_000))
"""

APP = """
import os
from otel_analytics import AnalyticsClient

client = AnalyticsClient(app_name="shop", spool_path={path!r})
client.track_api_call("/import/0", "GET", 200)

def application(environ, start_response):
    client.track_api_call(environ["PATH_INFO"], "GET", 200)
    if environ["PATH_INFO"] == "/die/0":
        os.kill(os.getpid(), 9)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture(params=[False, True], ids=["memory", "spool"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "spool" if request.param else None


def test_a_socket_is_one_processs_even_with_a_request_in_flight(path: Path | None) -> None:
    with FaultyCollector(then=Accept(after_millis=20)) as collector:
        with process(IN_FLIGHT, collector.url, path) as running:
            collector.wait_for_requests(1)
            output, _ = running.communicate("go\n", timeout=20)
        assert output == "True 0\n"
        one_each(collector, ids("before", 20) | ids("parent", 20) | ids("child", 20))
        users = defaultdict(set)
        for request in collector.requests:
            users[request.connection].add("child" in request.json["contentId"])
        assert all(len(names) == 1 for names in users.values())


def test_a_thread_of_a_child_may_fork_too(path: Path | None) -> None:
    """What a child inherits of its parent's spool is locked for good; nobody may wait for that."""
    with FaultyCollector() as collector:
        assert run(IN_A_THREAD_OF_A_CHILD, collector.url, path) == (0, "0 True\n")
        one_each(collector, ids("before", 5) | ids("child", 5) | ids("grandchild", 5))


def test_several_threads_may_fork_at_once(path: Path | None) -> None:
    with FaultyCollector() as collector:
        assert run(IN_SEVERAL_THREADS, collector.url, path) == (0, "0 30 True True\n")
        one_each(collector, ids("before0", 5) | ids("before1", 5))


def test_a_hookless_fork_before_the_first_event_has_a_spool_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with FaultyCollector() as collector:
        collector.stop_listening()
        with process(NO_HOOKS + BEFORE_THE_FIRST_EVENT, collector.url, path) as running:
            assert line_of(running) == "waited"
            assert len(rows_of(path)) == 5
            collector.resume()
            assert running.communicate("go\n", timeout=15)[0] == "True\n"
        one_each(collector, ids("child", 5) | ids("parent", 5))
        assert rows_of(path) == []


def gunicorn(
    collector: FaultyCollector, folder: Path, path: Path | None, workers: int
) -> AbstractContextManager[Served]:
    """Run a WSGI application whose client is made, and used, before gunicorn forks."""
    (folder / "app.py").write_text(APP.format(path=path and str(path)))
    port = free_port()
    options = ["--preload", "--workers", str(workers), "--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "gunicorn", *options, "app"]
    return serving(command, environment(collector.url), folder, port=port, log=folder / "log")


def test_gunicorn_with_preload(path: Path | None, tmp_path: Path) -> None:
    with FaultyCollector(batch="max=50") as collector:
        with gunicorn(collector, tmp_path, path, workers=2) as served:
            pids = {httpx.get(f"{served.url}/request/{n}", trust_env=False).text for n in range(30)}
            assert served.stop() == 0
        assert len(pids) == 2
        collector.wait_for_events(31)
        one_each(collector, ids("import", 1) | ids("request", 30))


def test_a_killed_gunicorn_workers_events_arrive(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with FaultyCollector() as collector:
        collector.stop_listening()
        with gunicorn(collector, tmp_path, path, workers=1) as served:
            for n in range(5):
                httpx.get(f"{served.url}/request/{n}", trust_env=False)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{served.url}/die/0", trust_env=False)
            assert eventually(lambda: _answers(f"{served.url}/request/5"), 10)
            served.stop()
        collector.resume()
        with spooled(collector.url, path) as client:
            assert client.flush(5_000)
            one_each(collector, ids("import", 1) | ids("request", 6) | ids("die", 1))
            assert balanced(client.stats()).delivered == 8


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
