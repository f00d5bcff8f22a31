"""What the spool keeps, what gives way, and what a commit costs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from driving import calls, eventually, one_each, track, within
from spooling import balanced, line_of, process, rows_of, spooled

from otel_analytics import AnalyticsClient, ViewEvent
from otel_analytics.contract import Kind
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.delivery.spool.rows import Row, make_room
from otel_analytics.events import EncodedEvent
from otel_analytics.testing import FaultyCollector

HOUR = 3_600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


class Heard(dict[str, int]):
    """How many events `on_drop` was told of, by reason."""

    def __call__(self, reason: str, events: list[object]) -> None:
        self[reason] = self.get(reason, 0) + len(events)


def pay(client: AnalyticsClient, count: int) -> None:
    for number in range(count):
        client.track_engagement("user", "purchase", f"order-{number}", "content")


def kinds(path: Path) -> dict[str, int]:
    return dict(rows_of(path, "SELECT kind, count(*) FROM events GROUP BY kind UNION SELECT '', 0"))


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


def test_views_give_way_to_engagements_and_held_rows_to_nobody(path: Path) -> None:
    """50 views are in the memory of a process; the others are anybody's."""
    heard = Heard()
    with FaultyCollector() as collector:
        collector.stop_listening()
        options: dict[str, Any] = {"max_spool_bytes": 100_000, "max_queue_size": 50, "on_drop": heard}
        with spooled(collector.url, path, **options) as client:
            track(client, 300)
            held = kinds(path)["view"]
            pay(client, 300)
            after = kinds(path)
            pay(client, 500)
            track(client, 5)
            stats = balanced(client.stats())
            stored = rows_of(path, "SELECT sum(length(body)) FROM events")
            assert rows_of(path, "SELECT bytes FROM books") == stored
            assert rows_of(path, "SELECT bytes FROM books") <= 100_000
            assert held > 50
            assert kinds(path)["view"] == 50, "what a process holds stays"
            assert after["engagement"] > 100
            assert stats.dropped == {"spool_full": 1_105 - stats.pending}
            assert eventually(lambda: heard == stats.dropped)


def test_an_engagement_never_gives_way_to_a_view() -> None:
    engagements = [Row(n, EncodedEvent(Kind.ENGAGEMENT, f"e{n}", b"x" * 10)) for n in range(5)]
    views = [Row(n + 10, EncodedEvent(Kind.VIEW, f"v{n}", b"x" * 10)) for n in range(2)]
    waiting = {Kind.VIEW: views, Kind.ENGAGEMENT: engagements}
    view, engagement = views[0].event, engagements[0].event
    assert make_room([view] * 4, 40, waiting.__getitem__) == (views, {0, 1})
    assert make_room([engagement] * 4, 40, waiting.__getitem__) == (views + engagements[:2], set())
    assert make_room([view, engagement], 20, waiting.__getitem__) == (views, set())
    assert make_room([view, engagement], 40, waiting.__getitem__) == (views + engagements[:1], {0})
    huge = EncodedEvent(Kind.ENGAGEMENT, "huge", b"x" * 1_000)
    assert make_room([huge], 1_000, waiting.__getitem__) == ([], {0}), "nobody gives way in vain"


def test_what_is_too_old_is_dropped_and_what_is_not_is_kept(path: Path) -> None:
    heard = Heard()
    now = [1_000_000.0]
    with FaultyCollector() as collector:
        collector.stop_listening()
        options: dict[str, Any] = {"wall_clock": lambda: now[0], "max_queue_size": 20, "on_drop": heard}
        with spooled(collector.url, path, max_spool_age_hours=24, **options) as client:
            track(client, 50, "old")  # 20 of them in this process's memory, too
            now[0] += 23 * HOUR
            track(client, 10, "young")
            assert not client.flush(50)
            assert client.stats().pending == 60
            now[0] += 2 * HOUR
            assert eventually(lambda: client.stats().pending <= 11), "one may be in a request just now"
            assert eventually(lambda: client.stats().pending == 10)
            assert balanced(client.stats()).dropped == {"expired": 50}
            assert eventually(lambda: heard == {"expired": 50})
            collector.resume()
            assert client.flush(5_000)
            assert len(calls(collector)) == 10


def test_threads_share_commits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    append = Journal.append

    def counted(journal: Journal, events: list[EncodedEvent], held: set[int]) -> object:
        commits.append(len(events))
        return append(journal, events, held)

    monkeypatch.setattr(Journal, "append", counted)
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            queue: Any = client._delivery()._queue._spool  # type: ignore[attr-defined]
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
            inserting = [part for part in "".join(statements).split("COMMIT") if "INSERT INTO events" in part]
            assert len(inserting) == 1
            assert inserting[0].count("INSERT INTO events") == 500


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
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("BEGIN")
rows = connection.execute("SELECT * FROM events")
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
    delivery._queue._spool._file._journal._connection.set_trace_callback(statements.append)  # type: ignore[attr-defined]
    return statements
