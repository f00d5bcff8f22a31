"""What the spool keeps, what gives way, and what a commit costs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from driving import calls, eventually, one_each, track, within
from spooling import balanced, line_of, process, rows_of, spooled

from otel_analytics import AnalyticsClient, ViewEvent
from otel_analytics.contract import Kind
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.events import EncodedEvent
from otel_analytics.testing import FaultyCollector

HOUR = 3_600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class Heard(dict[str, int]):
    """How many events `on_drop` was told of, by reason."""

    def __call__(self, reason: str, events: list[object]) -> None:
        self[reason] = self.get(reason, 0) + len(events)


def pay(client: AnalyticsClient, count: int) -> None:
    for number in range(count):
        client.track_engagement("user", "purchase", f"order-{number}", "content")


def sizes(path: Path) -> dict[str, int]:
    """Return the bytes of each kind in the spool."""
    return {kind.value: sum(rows_of(path, "length(body)", kind.value)) for kind in Kind}


def test_what_memory_has_no_room_for_waits_in_the_file(path: Path) -> None:
    with FaultyCollector(batch="max=20") as collector:
        collector.stop_listening()
        with spooled(collector.url, path, max_queue_size=50) as client:
            tracked = track(client, 500)
            assert balanced(client.stats()).pending == 500
            collector.resume()
            assert client.flush(10_000)
            one_each(collector, tracked)
            assert balanced(client.stats()).delivered == 500


def test_new_events_do_not_wait_behind_a_backlog(path: Path) -> None:
    with FaultyCollector(batch="max=10") as collector:
        collector.stop_listening()
        with spooled(collector.url, path, max_queue_size=100) as client:
            track(client, 2_000, "old")
            collector.resume()
            collector.wait_for_events(200)
            (new,) = track(client, 1, "new")
            assert eventually(lambda: new in calls(collector))
            assert client.flush(10_000)
            order = [body["contentId"] for body in collector.bodies()]
            assert order.index(new) < 500, "most of the backlog comes after it"
            assert len(order) == 2_001


@pytest.mark.parametrize("max_queue_size", [50, 10_000], ids=["file", "memory"])
def test_views_give_way_to_engagements(path: Path, max_queue_size: int) -> None:
    """Whether they are in memory or in the file only."""
    heard = Heard()
    with FaultyCollector() as collector:
        collector.stop_listening()
        options: dict[str, Any] = {"max_spool_bytes": 100_000, "max_queue_size": max_queue_size}
        with spooled(collector.url, path, on_drop=heard, **options) as client:
            track(client, 400)
            assert 90_000 < sum(sizes(path).values()) <= 100_000
            pay(client, 300)
            after = sizes(path)
            assert after["engagement"] > after["view"] > 0
            pay(client, 500)
            track(client, 5)
            stats = balanced(client.stats())
            after = sizes(path)
            assert 90_000 < after["engagement"] <= 100_000
            assert after["view"] == 0
            assert len(rows_of(path)) == stats.pending
            assert stats.dropped == {"spool_full": 1_205 - stats.pending}
            assert eventually(lambda: heard == stats.dropped)
            collector.resume()
            assert client.flush(10_000)
            paid = {body["targetId"] for body in collector.bodies("engagement")}
            assert paid >= {f"order-{number}" for number in range(300, 500)}, "the oldest gave way"


FILL = """
client = spooled(url, path, max_spool_bytes=100_000, max_queue_size=50)
track(client, "worker", int(sys.argv[3]))
say("tracked")
sys.stdin.readline()
"""


@pytest.mark.parametrize("ends", [False, True], ids=["running", "killed"])
def test_the_bound_is_the_directorys(path: Path, *, ends: bool) -> None:
    """One process fills it with views; to what another tracks they give way where that is worth more."""
    options: dict[str, Any] = {"max_spool_bytes": 100_000, "max_queue_size": 50}
    with FaultyCollector() as collector:
        collector.stop_listening()
        with process(FILL, collector.url, path, "500") as worker:
            assert line_of(worker) == "tracked"
            if ends:
                worker.kill()
                worker.wait(5)
            with spooled(collector.url, path, **options) as client:
                track(client, 200)
                assert sum(sizes(path).values()) <= 100_000
                pay(client, 300)
                stats = balanced(client.stats())
                assert len(rows_of(path, table="engagement")) == 300
                assert eventually(lambda: sum(sizes(path).values()) <= 100_000, 5)
                assert len(rows_of(path, table="engagement")) == 300, "whoever has the views drops them"
                assert stats.dropped.keys() == {"spool_full"}


def test_what_is_too_old_is_dropped_and_what_is_not_is_kept(path: Path) -> None:
    heard = Heard()
    clock = Clock()
    with FaultyCollector() as collector:
        collector.stop_listening()
        options: dict[str, Any] = {"clock": clock, "max_queue_size": 20, "on_drop": heard}
        with spooled(collector.url, path, max_spool_age_hours=24, **options) as client:
            track(client, 50, "old")  # 20 of them in this process's memory, too
            clock.passed += 23 * HOUR
            track(client, 10, "young")
            assert not client.flush(50)
            assert client.stats().pending == 60
            clock.passed += 2 * HOUR
            client.flush(0)
            assert eventually(lambda: client.stats().pending <= 11), "one may be in a request just now"
            assert eventually(lambda: client.stats().pending == 10)
            assert balanced(client.stats()).dropped == {"expired": 50}
            assert eventually(lambda: heard == {"expired": 50})
            collector.resume()
            assert client.flush(5_000)
            assert len(calls(collector)) == 10


class Clock:
    """The system's monotonic clock, which goes by faster at the test's word."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.passed


@pytest.mark.parametrize("jump", [-500 * HOUR, -24 * HOUR, 24 * HOUR, 500 * HOUR])
def test_a_clock_that_jumps_neither_expires_nor_holds_anything(path: Path, jump: float) -> None:
    """What is written while the wall's clock is wrong is sent by the next process, by the right one."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        before = spooled(collector.url, path, wall_clock=lambda: time.time() + jump)
        tracked = track(before, 10)
        before.shutdown(0)
        with spooled(collector.url, path) as client:
            track(client, 1)
            assert eventually(lambda: client.stats().pending == 11)
            collector.resume()
            assert client.flush(5_000)
            assert calls(collector) > tracked
            assert client.stats().dropped == {}


def test_what_waited_while_nobody_ran_is_as_old_as_it_is(path: Path) -> None:
    clock = Clock()
    with FaultyCollector() as collector:
        collector.stop_listening()
        before = spooled(collector.url, path)
        track(before, 10)
        before.shutdown(0)
        clock.passed += 25 * HOUR
        with spooled(collector.url, path, max_spool_age_hours=24, clock=clock) as client:
            track(client, 1)
            assert eventually(lambda: client.stats().dropped == {"expired": 10})
            assert client.stats().pending == 1


def test_a_boot_makes_nothing_older(path: Path) -> None:
    """It begins the monotonic clock anew; from then on what was left grows older as all else does."""
    clock = Clock()
    clock.passed += 1_000 * HOUR
    with FaultyCollector() as collector:
        collector.stop_listening()
        before = spooled(collector.url, path, clock=clock)
        track(before, 10)
        before.shutdown(0)
        clock.passed = 0
        with spooled(collector.url, path, max_spool_age_hours=24, clock=clock) as client:
            track(client, 1)
            assert eventually(lambda: client.stats().pending == 11)
            clock.passed = 25 * HOUR
            client.flush(0)
            assert eventually(lambda: client.stats().dropped == {"expired": 11})


def test_looking_at_the_books_holds_up_nobody(path: Path) -> None:
    """However much waits in the file: it is counted in memory."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path, max_queue_size=100) as client:
            for first in range(0, 20_000, 2_000):
                client.submit([_view(number) for number in range(first, first + 2_000)])
            statements = _traced(client)
            assert balanced(client.stats()).pending == 20_000
            assert not [text for text in statements if "count" in text or "total" in text]


def test_threads_share_commits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    write = Journal.write

    def counted(journal: Journal, after: int, events: list[EncodedEvent], settled: Any) -> None:
        commits.append(len(events))
        write(journal, after, events, settled)

    monkeypatch.setattr(Journal, "write", counted)
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            queue: Any = client._delivery()._queue._own  # type: ignore[attr-defined]
            threads = [threading.Thread(target=track, args=(client, 1)) for _ in range(16)]
            with queue._lock:  # as another thread's commit does
                for thread in threads:
                    thread.start()
                assert eventually(lambda: len(queue._tickets) == 16)
            for thread in threads:
                thread.join()
            assert commits == [16]
            assert balanced(client.stats()).accepted == 16


def test_a_batch_of_spans_is_one_commit(path: Path) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            client.submit([_view(number) for number in range(500)])
            statements = _traced(client)
            client.submit([_view(number) for number in range(500, 1_000)])
            inserting = [part for part in "".join(statements).split("COMMIT") if "INSERT INTO view" in part]
            assert len(inserting) == 1
            assert inserting[0].count("INSERT INTO view") == 500


def test_settling_is_a_commit_a_batch(path: Path) -> None:
    with FaultyCollector(batch="max=500") as collector, spooled(collector.url, path, batching="on") as client:
        track(client, 1)
        assert client.flush(1_000)
        statements = _traced(client)
        client.submit([_view(number) for number in range(1_000)])
        assert client.flush(5_000)
        assert len([text for text in statements if text.startswith("COMMIT")]) <= 6


def test_reading_the_books_of_others_holds_up_nobody(path: Path) -> None:
    """A reader in the middle of the file, as `otel-analytics spool list` is one."""
    program = """
import sqlite3
connection = sqlite3.connect(*path.glob("*.db"), isolation_level=None)
connection.execute("BEGIN")
rows = connection.execute("SELECT * FROM view")
rows.fetchone()
say("reading")
time.sleep(60)
"""
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        collector.stop_listening()
        track(client, 10)
        with process(program, collector.url, path) as reader:
            assert line_of(reader) == "reading"
            within(0.3, lambda: track(client, 100))
            collector.resume()
            assert client.flush(5_000)
            assert balanced(client.stats()).delivered == 110


def _view(number: int) -> ViewEvent:
    return ViewEvent(
        f"event-{number}", "2030-01-01T00:00:00.000Z", f"GET:/{number}", "post", "s", "desktop", "shop"
    )


def _traced(client: AnalyticsClient) -> list[str]:
    """Return a list that grows by every statement this process sends to the file."""
    (delivery,) = client._deliveries.values()
    statements: list[str] = []
    delivery._queue._own._file._journal._connection.set_trace_callback(statements.append)  # type: ignore[attr-defined]
    return statements
