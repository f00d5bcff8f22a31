"""More than the collector takes, and for longer: memory is bounded, engagements are kept, little is said."""

from __future__ import annotations

import gc
import json
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import QuickClient
from driving import duplicates, eventually, track
from spooling import balanced, run, spooled

from otel_analytics import AnalyticsClient, EngagementEvent, ViewEvent
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.testing import Accept, FaultyCollector, Unavailable

BURST = 30_000
HOUR = 3_600.0
FULL = 12  # the hour by which memory and file are full
MEGABYTE = 1_000_000
VIEW_BYTES = 1_000  # at most, with all that it takes in memory


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["memory", "spool"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "spool" if request.param else None


class Heard(Counter[str]):
    """How many events `on_drop` was told of, by reason and kind."""

    def __call__(self, reason: str, events: Sequence[ViewEvent | EngagementEvent]) -> None:
        self.update(f"{reason} {event.kind.value}" for event in events)


class FastClock:
    """A clock that goes by at the test's word; waits see it, since they are woken."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def wall(self) -> float:
        return time.time() + self.passed


def lines(caplog: pytest.LogCaptureFixture, reason: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if f"({reason}: " in record.getMessage()]


def pay(client: AnalyticsClient, count: int) -> None:
    for number in range(count):
        client.track_engagement("user", "purchase", f"order-{number}", "content")


BURST_PROGRAM = """
import gc, json, tracemalloc
client = spooled(url, path, max_queue_size=5_000, timeout_millis=5_000, batching="on")
track(client, "warm", 20)
client.flush(5_000)
gc.collect()
tracemalloc.start()
for number in range(30_000):
    client.track_api_call(f"/burst/{number}", "GET", 200)
    if number % 50 == 0:
        client.track_engagement("user", "purchase", f"order-{number}", "content")
peak = tracemalloc.get_traced_memory()[1]
flushed = client.flush(60_000)
stats = client.stats()
say(json.dumps([flushed, stats.accepted, stats.delivered, stats.dropped, stats.pending, peak]))
"""


def test_a_burst_at_a_slow_collector_is_bounded_and_keeps_engagements(path: Path | None) -> None:
    """30,000 views in one go, at a collector that takes 200 ms for a batch of 500."""
    with FaultyCollector(then=Accept(after_millis=200), batch="max=500") as collector:
        _, said = run(BURST_PROGRAM, collector.url, path, wait=100)
        flushed, accepted, delivered, dropped, pending, peak = json.loads(said.splitlines()[-1])
        assert flushed
        assert (accepted, pending) == (20 + BURST + 600, 0)
        assert delivered == len(collector.event_ids()) == accepted - sum(dropped.values())
        assert duplicates(collector) == 0
        assert len(collector.bodies("engagement")) == 600, "views are what is dropped"
        assert dropped.keys() == ({"queue_full"} if path is None else set()), "the file has room for the rest"
        assert peak < 5_000 * VIEW_BYTES * 2
        print(f"{accepted=} {delivered=} {dropped=}, peak {peak / MEGABYTE:.1f} MB")  # noqa: T201 - the figures


def test_a_day_without_a_collector_costs_what_an_hour_costs(
    path: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Each hour 500 views and 20 engagements; then a collector that is well again."""
    heard, clock, memory, asked = Heard(), FastClock(), list[int](), 0
    options: dict[str, Any] = {
        "max_queue_size": 500,
        "max_spool_bytes": MEGABYTE,
        "on_drop": heard,
        "clock": clock.monotonic,
        "wall_clock": clock.wall,
        "policy": RetryPolicy(),
    }
    with FaultyCollector(then=Unavailable(), batch="max=100") as collector:
        client = spooled(collector.url, path, timeout_millis=2_000, **options)
        for hour in range(24):
            if hour == FULL - 2:
                tracemalloc.start()
            track(client, 500, "day")
            pay(client, 20)
            clock.passed += HOUR
            assert not client.flush(0)
            assert eventually(lambda: heard.total() == sum(client.stats().dropped.values()), 10)
            asked += len(collector.requests)
            collector._requests.clear()  # which it would keep, with their bodies
            gc.collect()
            memory.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        before = balanced(client.stats())
        assert (before.accepted, before.delivered) == (24 * 520, 0)
        assert memory[-1] - memory[FULL] < MEGABYTE, "once all is full, nothing grows"
        assert asked < 24 * 60, "no storm"
        assert all(1 <= len(lines(caplog, reason)) <= 24 for reason in before.dropped), "a line a minute"
        assert not [what for what in heard if "engagement" in what], "views make room"
        clock.passed += HOUR  # which ends a request that waits for its answer
        collector.behave(then=Accept())

        def has_delivered() -> bool:
            client.flush(0)  # which looks at once: a wait does not see the clock jump
            return client.stats().delivered >= 600

        assert eventually(has_delivered, 10)
        (new,) = track(client, 1, "new")
        assert client.flush(30_000)
        order = [body["contentId"] for body in collector.bodies("view")]
        assert order.index(new) < 2_000, "recovery does not starve what is new"
        stats = balanced(client.stats())
        assert len(set(order)) + 24 * 20 == len(collector.event_ids()) == stats.delivered
        assert stats.pending == 0
        client.shutdown()
        growth = (memory[-1] - memory[FULL]) / MEGABYTE
        print(f"{stats}, {growth:+.2f} MB from hour {FULL} on")  # noqa: T201 - the figures


def test_lines_are_one_a_minute_for_each_reason_with_totals(caplog: pytest.LogCaptureFixture) -> None:
    clock = FastClock()
    with FaultyCollector(then=Unavailable()) as collector:
        client = spooled(collector.url, None, max_queue_size=10, clock=clock.monotonic)
        for _ in range(3):
            track(client, 100)
            clock.passed += 30
        client.shutdown(0)
        said = lines(caplog, "queue_full")
        assert len(said) == 2
        assert said[0].endswith("(queue_full: 1 now, 1 in all)")
        dropped = client.stats().dropped["queue_full"]
        assert 180 < int(said[1].split("now, ")[1].split(" in all")[0]) <= dropped


def test_threads_that_burst_together_do_not_wait_for_the_collector(path: Path | None) -> None:
    with FaultyCollector(then=Accept(after_millis=3_000)) as collector:
        client = spooled(collector.url, path, timeout_millis=5_000)
        slowest = [0.0] * 8

        def burst(name: int) -> None:
            for number in range(200):
                started = time.monotonic()
                client.track_api_call(f"/burst/{name}/{number}", "GET", 200)
                slowest[name] = max(slowest[name], time.monotonic() - started)

        threads = [threading.Thread(target=burst, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert max(slowest) < 2
        assert balanced(client.stats()).accepted == 1_600
        client.shutdown(0)


def test_single_events_take_as_many_connections_as_the_latency_asks_for(quick_client: QuickClient) -> None:
    """One at a time a connection carries ten events a second here; idle ones are used newest first."""
    with FaultyCollector(then=Accept(after_millis=100)) as collector:
        client = quick_client(collector.url, shutdown_timeout_millis=5_000)
        track(client, 300)
        assert client.shutdown()
        assert client.stats().delivered == 300
        grown = collector.connections
    assert 16 <= grown <= 64
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        for _ in range(20):
            track(client, 1)
            assert client.flush(5_000)
        assert collector.connections == 1
