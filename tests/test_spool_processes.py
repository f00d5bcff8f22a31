"""Worker processes on one spool: what is accepted is delivered, whoever dies when."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from driving import calls, duplicates, eventually, one_each, track, within
from spooling import LEASE, balanced, ids, line_of, process, rows_of, run, spooled

from otel_analytics.testing import Accept, FaultyCollector, Hang, LostAcknowledgement

TRACK_AND_WAIT = """
client = spooled(url, path)
track(client, "worker", 100)
say("tracked")
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.mark.parametrize("batch", [None, "max=30"], ids=["singly", "batches"])
def test_a_killed_workers_events_are_sent_by_another_once_its_lease_is_over(
    path: Path, batch: str | None
) -> None:
    with FaultyCollector(batch=batch) as collector:
        collector.stop_listening()
        with process(TRACK_AND_WAIT, collector.url, path) as worker:
            assert line_of(worker) == "tracked"
            worker.send_signal(signal.SIGKILL)
            worker.wait(5)
            killed_at = time.monotonic()
        collector.resume()
        with spooled(collector.url, path) as client:
            own = track(client, 1)
            assert eventually(lambda: len(calls(collector)) == 101, LEASE * 3)
            assert time.monotonic() - killed_at > LEASE / 2, "a live worker's events are its own"
            one_each(collector, own | ids("worker", 100))
            assert client.flush(1_000)
            assert balanced(client.stats()).delivered == 101


def test_a_flush_takes_over_what_the_dead_left(path: Path) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        with process(TRACK_AND_WAIT, collector.url, path) as worker:
            line_of(worker)
            worker.kill()
        time.sleep(LEASE * 1.1)
        collector.resume()
        with spooled(collector.url, path, lease=60) as client:  # it would look again in 20 s only
            assert within(2, lambda: client.flush(10_000))
            one_each(collector, ids("worker", 100))


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
        client = spooled(collector.url, path, lease=60)
        tracked = track(client, 50)
        assert within(1, client.shutdown), "nothing is lost"
        assert balanced(client.stats()).pending == 50
        assert rows_of(path, "SELECT count(*) FROM owners") == 0
        collector.resume()
        with spooled(collector.url, path, lease=60) as following:
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
            assert eventually(lambda: client.flush(1_000) and len(calls(collector)) == 10, LEASE * 4)
            one_each(collector, ids("worker", 10))


def test_several_processes_share_one_file(path: Path) -> None:
    """Each delivers its own; nothing is sent twice while all live; the file's books are everybody's."""
    program = """
client = spooled(url, path)
track(client, sys.argv[3], 200)
say(client.flush(10_000))
"""
    with FaultyCollector(batch="max=50") as collector:
        workers = [process(program, collector.url, path, f"w{number}") for number in range(4)]
        running = [worker.__enter__() for worker in workers]
        for worker in running:
            assert worker.wait(15) == 0
        for started in workers:
            started.__exit__(None, None, None)
        one_each(collector, set().union(*(ids(f"w{number}", 200) for number in range(4))))
        with spooled(collector.url, path) as client:
            stats = balanced(client.stats())
            assert (stats.accepted, stats.delivered, stats.pending) == (800, 800, 0)


def test_a_paused_worker_whose_lease_ended_makes_duplicates_by_id_only(path: Path) -> None:
    program = """
client = spooled(url, path)
track(client, "worker", 20)
say("tracked")
sys.stdin.readline()
say(client.flush(5_000), client.stats().accepted == client.stats().delivered)
"""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with process(program, collector.url, path) as worker:
            line_of(worker)
            worker.send_signal(signal.SIGSTOP)
            collector.resume()
            with spooled(collector.url, path) as client:
                track(client, 1)
                assert eventually(lambda: len(calls(collector)) == 21, LEASE * 4)
                worker.send_signal(signal.SIGCONT)
                worker.communicate("go\n", timeout=10)
                assert calls(collector) >= ids("worker", 20)
                assert duplicates(collector) <= 20
                assert len(collector.event_ids()) == 21
                assert client.flush(2_000)
                assert balanced(client.stats()).delivered == 21, "each counts once, whoever sent it"


def test_an_acknowledgement_that_comes_after_shutdown_still_counts(path: Path) -> None:
    """The lease was revoked and the row let go of; the next process need not send it again."""
    with FaultyCollector(Accept(after_millis=200)) as collector:
        client = spooled(collector.url, path, timeout_millis=2_000)
        track(client, 1)
        collector.wait_for_requests(1)
        assert client.shutdown(20)
        assert rows_of(path) == 1
        assert eventually(lambda: rows_of(path) == 0)
        assert balanced(client.stats()).delivered == 1
