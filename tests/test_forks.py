"""After a fork parent and child each deliver their own events, once, whatever the parent was doing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_analytics.testing import Accept, FaultyCollector

SET_UP = """
import ctypes, multiprocessing, os, sys, threading, time
from otel_analytics import AnalyticsClient

client = AnalyticsClient(app_name="shop")

def track(name, count=3):
    for number in range(count):
        client.track_api_call(f"/{name}/{number}", "GET", 200)

def child(name="child"):
    track(name)
    os._exit(0 if client.flush(10_000) else 1)

def wait(pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
"""

FORKS = {
    "before the first event": """
pid = os.fork()
if pid == 0: child()
track("parent")
wait(pid)
""",
    "with events waiting": """
track("parent")
pid = os.fork()
if pid == 0: child()
wait(pid)
""",
    "with a connection in use": """
track("parent", 1)
assert client.flush()
track("parent/again")
pid = os.fork()
if pid == 0: child()
wait(pid)
track("parent/later")
""",
    "twice": """
track("parent")
pid = os.fork()
if pid == 0:
    track("child")
    pid = os.fork()
    if pid == 0: child("grandchild")
    wait(pid)
    os._exit(0 if client.flush(10_000) else 1)
wait(pid)
""",
    "while another thread holds the lock": """
track("parent")
queue = client._delivery()._queue
queue = getattr(queue, "_own", queue)
held, go_on = threading.Event(), threading.Event()
def hold():
    with queue._lock:
        held.set()
        go_on.wait(0.3)
holder = threading.Thread(target=hold)
holder.start()
held.wait()
pid = os.fork()
if pid == 0: child()
go_on.set()
wait(pid)
holder.join()
""",
    "while other threads track": """
stop = threading.Event()
def busy(name):
    number = 0
    while not stop.is_set() and number < 400:
        client.track_api_call(f"/parent/{name}/{number}", "GET", 200)
        number += 1
threads = [threading.Thread(target=busy, args=(name,)) for name in range(3)]
for thread in threads: thread.start()
pids = []
for number in range(4):
    pid = os.fork()
    if pid == 0: child(f"child{number}")
    pids.append(pid)
    time.sleep(0.02)
for pid in pids: wait(pid)
stop.set()
for thread in threads: thread.join()
""",
    "by multiprocessing, forked": """
track("parent")
def work():
    track("child")
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
assert process.exitcode == 0
""",
}


END = """
assert client.shutdown()
print(client.stats().dropped)
"""


def run(program: str, variables: Mapping[str, str]) -> str:
    """Run a program to its end, which must lose nothing; return what it logged."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SET_UP + program + "\nassert client.shutdown()\nprint(client.stats().dropped)",
        ],
        env={"PATH": "", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}\n"
    return done.stderr


IN_C = """
# As a server written in C forks: no os.register_at_fork function runs. CPython survives that only while no
# thread holds or awaits the GIL, whose condition variable counts waiters that the child does not have: hence
# PyDLL, which keeps the GIL, and a moment for the threads to come to rest.
track("parent")
assert client.flush()
time.sleep(0.5)
pid = ctypes.PyDLL(None).fork()
if pid == 0: child()
wait(pid)
track("parent/later")
"""


@pytest.mark.parametrize("program", FORKS.values(), ids=FORKS.keys())
@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
def test_each_process_delivers_its_own_events_once(program: str, *, spooled: bool, tmp_path: Path) -> None:
    with FaultyCollector(then=Accept(after_millis=5)) as collector:
        variables = {"OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector.url}
        if spooled:
            variables["OTEL_EXPORTER_ANALYTICS_SPOOL_PATH"] = str(tmp_path / "spool")
        run(program, variables)
        sent = [body["contentId"] for body in collector.bodies()]
        assert len(sent) == len(set(sent)), "each event once"
        assert {name.split("/")[1].rstrip("0123456789") for name in sent} >= {"parent", "child"}
        for child in {name.split("/")[1] for name in sent if "child" in name}:
            assert sum(name.startswith(f"GET:/{child}/") for name in sent) == 3
        assert set(collector.event_ids().values()) == {1}


@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
def test_a_fork_without_hooks_is_known_by_its_pid(*, spooled: bool, tmp_path: Path) -> None:
    with FaultyCollector() as collector:
        variables = {"OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector.url}
        if spooled:
            variables["OTEL_EXPORTER_ANALYTICS_SPOOL_PATH"] = str(tmp_path / "spool")
        told = run(IN_C, variables)
        collector.wait_for_events(9)
        assert set(collector.event_ids().values()) == {1}
        assert "spool" not in told, "the child has a file of its own"


SPAWNED = """
import multiprocessing
from otel_analytics import AnalyticsClient

def work():
    client = AnalyticsClient(app_name="shop")
    client.track_api_call("/child", "GET", 200)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
"""


def test_a_spawned_process_begins_anew(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNED)
    with FaultyCollector() as collector:
        subprocess.run(
            [sys.executable, script],
            env={"PATH": "", "OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector.url},
            timeout=60,
            check=True,
        )
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/child"]


LOST = """
track("child", 50)
os._exit(0)
"""


def test_what_a_process_spooled_before_os_exit_is_sent_by_the_next(tmp_path: Path) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        variables = {
            "PATH": "",
            "OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector.url,
            "OTEL_EXPORTER_ANALYTICS_SPOOL_PATH": str(tmp_path / "spool"),
        }
        ended = subprocess.run([sys.executable, "-c", SET_UP + LOST], env=variables, timeout=60, check=False)
        assert ended.returncode == 0
        collector.resume()
        program = "print(client.flush(10_000), client.stats().delivered)\nclient.shutdown()"
        done = subprocess.run(
            [sys.executable, "-c", SET_UP + program],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "True 50\n"
