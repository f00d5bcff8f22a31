"""Random faults from a seeded schedule, many threads: at the end the books and the collector agree."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import QuickClient
from driving import STORING_NOTHING, calls, one_each

from otel_analytics import AnalyticsClient
from otel_analytics.testing import (
    Accept,
    AcceptPartly,
    Answer,
    Behaviour,
    CloseIdle,
    FaultyCollector,
    Hang,
    LostAcknowledgement,
)


def _is_invalid(event: dict[str, Any]) -> bool:
    return str(event["contentId"]).endswith("7")


def _is_untimely(event: dict[str, Any]) -> bool:
    return str(event["contentId"]).endswith(("1", "2"))


_STORING: tuple[Behaviour, ...] = (
    Answer(200, b"{}"),
    AcceptPartly(retry=_is_untimely),
    LostAcknowledgement(),
    CloseIdle(),
    CloseIdle(under_request=True),
)
_REJECTING = AcceptPartly(rejected=_is_invalid)
_REJECTING_AND_MORE = AcceptPartly(rejected=_is_invalid, retry=_is_untimely)


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("seed", range(3))
def test_every_event_is_stored_whatever_happens(quick_client: QuickClient, seed: int, batching: str) -> None:
    schedule = _schedule(seed, (*STORING_NOTHING, *_STORING), well=Accept())
    with FaultyCollector(*schedule, batch="max=20") as collector:
        client = quick_client(collector.url, batching=batching, timeout_millis=200)
        expected = _track_from_threads(client, threads=4, each=150)
        assert client.flush(15_000)
        assert client.stats().delivered == 600
        assert calls(collector) == expected
        assert len(collector.event_ids()) == 600


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("seed", range(3))
def test_every_event_is_stored_once_or_rejected(quick_client: QuickClient, seed: int, batching: str) -> None:
    schedule = _schedule(seed, (*STORING_NOTHING, _REJECTING_AND_MORE), well=_REJECTING)
    with FaultyCollector(*schedule, then=_REJECTING, batch="max=20") as collector:
        client = quick_client(collector.url, batching=batching, timeout_millis=200)
        expected = _track_from_threads(client, threads=4, each=150)
        assert client.flush(15_000)
        assert client.stats().dropped == {"rejected": 60}
        assert client.stats().delivered == 540
        one_each(collector, {call for call in expected if not call.endswith("7")})


def test_what_is_tracked_while_it_shuts_down_is_delivered_or_counted(quick_client: QuickClient) -> None:
    for _ in range(20):
        with FaultyCollector() as collector:
            client = quick_client(collector.url)
            tracker = threading.Thread(target=_track_from_threads, args=(client, 3, 100))
            tracker.start()
            client.shutdown(100)
            tracker.join(10)
            stats = client.stats()
            assert stats.accepted == 300
            assert stats.pending == 0
            assert stats.delivered <= len(collector.event_ids())


def test_a_flush_ends_when_another_thread_shuts_down(quick_client: QuickClient) -> None:
    with FaultyCollector(then=Hang()) as collector:
        client = quick_client(collector.url, timeout_millis=10_000)
        _track_from_threads(client, 1, 3)
        ended = threading.Event()

        def flush() -> None:
            client.flush(8_000)
            ended.set()

        threading.Thread(target=flush, daemon=True).start()
        collector.wait_for_requests(1)
        client.shutdown(50)
        assert ended.wait(1)


def _schedule(seed: int, faults: Sequence[Behaviour], well: Behaviour) -> list[Behaviour]:
    dice = random.Random(seed)  # noqa: S311 - a test's schedule
    return [dice.choice(faults) if dice.random() < 0.5 else well for _ in range(60)]


def _track_from_threads(client: AnalyticsClient, threads: int, each: int) -> set[str]:
    def track(name: int) -> None:
        for number in range(each):
            client.track_api_call(f"/{name}/{number}", "GET", 200)

    tracking = [threading.Thread(target=track, args=(name,)) for name in range(threads)]
    for thread in tracking:
        thread.start()
    for thread in tracking:
        thread.join(10)
    return {f"GET:/{name}/{number}" for name in range(threads) for number in range(each)}
