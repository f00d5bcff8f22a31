"""Processes that gevent has patched: threads are greenlets, and everything still ends in time."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
from driving import one_each
from serving import environment, free_port, serving
from spooling import ids, run

from otel_analytics.testing import Accept, FaultyCollector, Hang, Unavailable

PATCH = "from gevent import monkey\nmonkey.patch_all()\nimport gevent\n"

TRACKING = """
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
client = spooled(url, path, on_drop=lambda reason, events: say(reason, len(events)))
jobs = [gevent.spawn(track, client, f"greenlet{number}", 20) for number in range(10)]
gevent.joinall(jobs)
"""

APP = """
from otel_analytics import AnalyticsClient
client = AnalyticsClient(app_name="shop")

def application(environ, start_response):
    client.track_api_call(environ["PATH_INFO"], "GET", 200)
    start_response("200 OK", [])
    return [b"done"]
"""

ALL = set().union(*(ids(f"greenlet{number}", 20) for number in range(10)))


@pytest.fixture(params=[False, True], ids=["memory", "spool"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "spool" if request.param else None


@pytest.mark.parametrize("batch", [None, "max=50"], ids=["singly", "batches"])
def test_greenlets_track_and_flush(path: Path | None, batch: str | None) -> None:
    with FaultyCollector(Unavailable(), then=Accept(after_millis=2), batch=batch) as collector:
        code, said = run(PATCH + TRACKING + "say(client.flush(10_000))", collector.url, path)
        assert (code, said.splitlines()[-1]) == (0, "True")
        one_each(collector, ALL)


def test_the_end_of_the_process_delivers(path: Path | None) -> None:
    with FaultyCollector(batch="max=50") as collector:
        client = "spooled(url, path, shutdown_timeout_millis=5_000, timeout_millis=5_000,"
        program = (PATCH + TRACKING).replace("spooled(url, path,", client)
        assert run(program, collector.url, path) == (0, "")
        one_each(collector, ALL)


def test_a_collector_that_hangs_holds_up_neither_greenlets_nor_the_exit() -> None:
    program = """
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)
gevent.spawn(tick)
gevent.sleep(1)
assert max(later - earlier for earlier, later in zip(ticks, ticks[1:])) < 0.7
started = time.monotonic()
assert not client.shutdown(300)
assert time.monotonic() - started < 3
"""
    with FaultyCollector(then=Hang()) as collector:
        code, said = run(PATCH + TRACKING + program, collector.url, None)
        assert code == 0
        assert "shutdown 200" in said, "on_drop hears of it"


def test_a_greenlet_may_fork_with_a_request_in_flight(path: Path | None) -> None:
    """Unlike threads, greenlets live on in the child: those that send must end there."""
    program = """
while not client._delivery()._sender._transports or not client.stats().delivered:
    gevent.sleep(0.001)
pid = os.fork()
if not pid:
    track(client, "child", 5)
    gevent.sleep(0.3)
    os._exit(0 if client.flush(5_000) else 1)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), client.flush(5_000))
"""
    with FaultyCollector(then=Accept(after_millis=3)) as collector:
        patient = TRACKING.replace("spooled(url, path,", "spooled(url, path, timeout_millis=4_000,")
        assert run(PATCH + patient + program, collector.url, path) == (0, "0 True\n")
        one_each(collector, ALL | ids("child", 5))
        users = defaultdict(set)
        for request in collector.requests:
            users[request.connection].add("child" in request.json["contentId"])
        assert all(len(names) == 1 for names in users.values()), "a socket is one process's"


def test_gunicorns_gevent_workers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    options = ["--worker-class", "gevent", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "gunicorn", *options, "app"]
    with FaultyCollector(batch="max=50") as collector:
        with serving(
            command, environment(collector.url), tmp_path, port=port, log=tmp_path / "log"
        ) as served:
            for number in range(30):
                httpx.get(f"{served.url}/request/{number}", trust_env=False)
            assert served.stop() == 0
        one_each(collector, ids("request", 30))
