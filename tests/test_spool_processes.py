"""Worker processes on one spool: what is accepted is delivered, whoever dies when, and nobody waits."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from driving import calls, duplicates, eventually, one_each, track, within
from spooling import balanced, files_of, ids, line_of, process, rows_of, run, spooled

from otel_analytics.testing import Accept, Exchange, FaultyCollector, Hang, LostAcknowledgement

TRACK_AND_WAIT = """
client = spooled(url, path)
track(client, "worker", 100)
say("tracked")
sys.stdin.readline()
track(client, "more", 100)
say("tracked more")
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def leave_behind(url: str, path: Path, name: str = "worker", count: int = 100) -> None:
    """Let a process track events, and die by SIGKILL."""
    program = "track(spooled(url, path), sys.argv[3], int(sys.argv[4]))\nos.kill(os.getpid(), signal.SIGKILL)"
    assert run(program, url, path, name, str(count))[0] == -signal.SIGKILL


@pytest.mark.parametrize("batch", [None, "max=30"], ids=["singly", "batches"])
def test_a_killed_workers_events_are_sent_by_another_that_runs(path: Path, batch: str | None) -> None:
    with FaultyCollector(batch=batch) as collector:
        collector.stop_listening()
        with (
            process(TRACK_AND_WAIT, collector.url, path) as worker,
            spooled(collector.url, path) as client,
        ):
            assert line_of(worker) == "tracked"
            own = track(client, 1)
            collector.resume()
            assert eventually(lambda: calls(collector) == own | ids("worker", 100), 10)
            collector.stop_listening()
            own |= track(client, 1)
            print("more", file=worker.stdin, flush=True)
            assert line_of(worker) == "tracked more"
            assert not client.flush(50)
            assert client.stats().pending == 1, "what a living process holds is its own"
            worker.send_signal(signal.SIGKILL)
            worker.wait(5)
            collector.resume()
            assert eventually(lambda: calls(collector) == own | ids("worker", 100) | ids("more", 100), 5)
            assert duplicates(collector) == 0
            assert client.flush(1_000)
            assert balanced(client.stats()).delivered == 102
            assert len(files_of(path)) == 1


def test_a_job_of_two_seconds_sends_what_a_killed_one_left(path: Path) -> None:
    program = "client = spooled(url, path)\ntrack(client, 'job', 1)\ntime.sleep(2)"
    with FaultyCollector() as collector:
        collector.stop_listening()
        leave_behind(collector.url, path)
        collector.resume()
        assert run(program, collector.url, path)[0] == 0
        one_each(collector, ids("worker", 100) | ids("job", 1))
        assert list(path.iterdir()) == [], "an end without a shutdown leaves nothing either"


def test_a_flush_waits_for_files_that_another_thread_has_just_claimed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = threading.Event()

    class SlowlyStarted(threading.Thread):
        """Takes its time, as every thread does at times: between its start and what is done about it."""

        def start(self) -> None:
            super().start()
            if self.name == "otel-analytics-spool":
                claimed.set()
                time.sleep(0.3)

        def run(self) -> None:
            if self.name == "otel-analytics-spool":
                time.sleep(0.1)
            super().run()

    monkeypatch.setattr(threading, "Thread", SlowlyStarted)
    with FaultyCollector(then=Accept(after_millis=50)) as collector:
        collector.stop_listening()
        leave_behind(collector.url, path, count=3)
        collector.resume()
        with spooled(collector.url, path) as client:
            own = track(client, 1, "mine")
            assert claimed.wait(5)
            assert client.flush(5_000)
            assert calls(collector) == ids("worker", 3) | own


def test_a_flush_sends_what_the_dead_left(path: Path) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        for number in range(3):
            leave_behind(collector.url, path, f"w{number}", 10)
        collector.resume()
        with spooled(collector.url, path) as client:
            assert within(2, lambda: client.flush(10_000))
            one_each(collector, set().union(*(ids(f"w{number}", 10) for number in range(3))))
            assert balanced(client.stats()).delivered == 30
            assert eventually(lambda: list(path.iterdir()) == [])


def test_the_files_of_many_dead_processes_are_all_sent(path: Path) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        clients = [spooled(collector.url, path) for _ in range(10)]
        tracked = set().union(*(track(client, 3) for client in clients))
        for client in clients:
            client.shutdown(0)
        assert len(files_of(path)) == 10
        collector.resume()
        with spooled(collector.url, path) as client:
            tracked |= track(client, 1)
            assert eventually(lambda: calls(collector) == tracked, 5)
            assert eventually(lambda: len(files_of(path)) == 1)
            assert balanced(client.stats()).accepted == 31


def test_an_end_is_held_up_by_its_own_events_only(path: Path) -> None:
    """The collector takes this process's events and hangs on those it has adopted."""
    with FaultyCollector(then=Accept()) as collector:
        collector.stop_listening()
        leave_behind(collector.url, path)
        collector.resume()
        collector.behave(then=OnlyNew())
        client = spooled(collector.url, path, timeout_millis=5_000, shutdown_timeout_millis=5_000)
        track(client, 1, "own")
        assert eventually(lambda: client.stats().accepted == 101)
        track(client, 3, "own")
        assert within(1, client.shutdown), "nothing is lost"
        assert {name.split("/")[1] for name in calls(collector)} == {"own"}
        collector.behave(then=Accept())
        with spooled(collector.url, path) as following:
            assert following.flush(5_000)
            assert balanced(following.stats()).delivered == 100, "they went back with the lock"


class OnlyNew:
    """Hangs on what a worker that is gone has tracked."""

    def __call__(self, exchange: Exchange) -> None:
        old = any("/worker/" in event["contentId"] for event in exchange.request.events)
        (Hang() if old else Accept())(exchange)


def test_a_worker_killed_in_the_middle_of_a_request_loses_nothing(path: Path) -> None:
    """What of its last batch was stored is stored again, by the same ids."""
    with FaultyCollector(LostAcknowledgement(), then=Hang(), batch="max=20") as collector:
        with process(TRACK_AND_WAIT, collector.url, path) as worker:
            line_of(worker)
            collector.wait_for_requests(2)
            worker.kill()
        collector.behave(then=Accept())
        with spooled(collector.url, path) as client:
            own = track(client, 1)
            assert eventually(lambda: calls(collector) == own | ids("worker", 100), 5)
            assert len(collector.event_ids()) == 101
            assert duplicates(collector) == 1


def test_a_shutdown_with_the_collector_down_leaves_all_to_the_next_at_once(path: Path) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        client = spooled(collector.url, path)
        tracked = track(client, 50)
        assert within(1, client.shutdown), "nothing is lost"
        assert balanced(client.stats()).pending == 50
        assert len(rows_of(path)) == 50
        collector.resume()
        with spooled(collector.url, path) as following:
            assert within(1, lambda: following.flush(5_000))
            one_each(collector, tracked)
            assert balanced(following.stats()).delivered == 50


ENDS = ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(3)", "1 / 0"]


@pytest.mark.parametrize("end", ENDS)
def test_events_survive_however_the_process_ends(path: Path, end: str) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        run(f"client = spooled(url, path)\ntrack(client, 'worker', 10)\n{end}", collector.url, path)
        collector.resume()
        with spooled(collector.url, path) as client:
            assert client.flush(5_000)
            one_each(collector, ids("worker", 10))


def test_several_processes_share_one_directory(path: Path) -> None:
    """Each delivers its own; nothing is sent twice while all live; and nothing is left."""
    program = """
client = spooled(url, path)
track(client, sys.argv[3], 200)
say(client.flush(10_000), client.stats().accepted >= 200, client.stats().pending)
"""
    with FaultyCollector(batch="max=50") as collector, ExitStack() as stack:
        names = [f"w{number}" for number in range(4)]
        workers = [stack.enter_context(process(program, collector.url, path, name)) for name in names]
        assert [worker.communicate(timeout=20)[0] for worker in workers] == ["True True 0\n"] * 4
        one_each(collector, set().union(*(ids(name, 200) for name in names)))
        assert list(path.iterdir()) == []


def test_nobody_waits_for_a_process_that_has_stopped(path: Path) -> None:
    """Neither its lock nor its file: it goes on where it was, and nothing is sent twice."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with process(TRACK_AND_WAIT, collector.url, path) as worker:
            line_of(worker)
            worker.send_signal(signal.SIGSTOP)
            collector.resume()
            with spooled(collector.url, path) as client:
                own = within(0.5, lambda: track(client, 20))
                assert client.flush(2_000)
                one_each(collector, own)
                worker.send_signal(signal.SIGCONT)
                assert eventually(lambda: calls(collector) == own | ids("worker", 100), 10)
                assert duplicates(collector) == 0


def test_a_child_does_not_keep_its_dead_parents_events(path: Path) -> None:
    """The child has copies of all its parent's descriptors; the lock is the parent's all the same."""
    program = """
client = spooled(url, path)
track(client, "parent", 20)
if not os.fork():
    say("child")
    sys.stdin.readline()
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with process(program, collector.url, path) as worker:
            assert line_of(worker) == "child"
            worker.wait(5)
            collector.resume()
            with spooled(collector.url, path) as client:
                assert client.flush(5_000)
                one_each(collector, ids("parent", 20))


def test_an_acknowledgement_that_comes_after_shutdown_still_counts(path: Path) -> None:
    """The lease was revoked and the file let go of; the next process need not send it again."""
    with FaultyCollector(Accept(after_millis=200)) as collector:
        client = spooled(collector.url, path, timeout_millis=2_000)
        track(client, 1)
        collector.wait_for_requests(1)
        assert client.shutdown(20)
        assert len(rows_of(path)) == 1
        assert eventually(lambda: list(path.iterdir()) == [])
        assert balanced(client.stats()).delivered == 1
