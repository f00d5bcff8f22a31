"""The application's own functions: before_send and on_drop."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_analytics import AnalyticsClient, EngagementEvent, ViewEvent
from otel_analytics.testing import FaultyCollector, Hang, Poison, Unavailable

Event = ViewEvent | EngagementEvent
Client = Callable[..., AnalyticsClient]


class Losses:
    """An on_drop that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Event]] = []
        self.threads: set[str] = set()

    def __call__(self, reason: str, events: Sequence[Event]) -> None:
        self.heard.extend((reason, event) for event in events)
        self.threads.add(threading.current_thread().name)

    def reasons(self) -> dict[str, int]:
        return dict(Counter(reason for reason, _ in self.heard))


def without_address(event: Event) -> Event:
    return replace(event, ip_address=None) if isinstance(event, ViewEvent) else event


def track(client: AnalyticsClient, count: int = 1) -> None:
    for number in range(count):
        client.track_api_call(f"/{number}", "GET", 200, ip_address="203.0.113.7")


def test_before_send_changes_an_event(quick_client: Client) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url, before_send=without_address)
        track(client)
        client.track_engagement("u", "like", "t", "content", {"stars": 5})
        assert client.flush()
        (view,), (engagement,) = collector.bodies("view"), collector.bodies("engagement")
        assert "ipAddress" not in view
        assert view["metadata"]["statusCode"] == 200
        assert engagement["metadata"]["stars"] == 5
        assert collector.requests[0].headers["idempotency-key"] == view["metadata"]["eventId"]


def test_before_send_cannot_change_the_id_that_makes_repeats_count_once(quick_client: Client) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url, before_send=lambda event: replace(event, event_id="mine"))
        track(client)
        assert client.flush()
        assert "mine" not in collector.event_ids()


def test_before_send_drops_what_it_returns_none_for(quick_client: Client) -> None:
    losses = Losses()
    with FaultyCollector() as collector:
        client = quick_client(
            collector.url,
            before_send=lambda event: None if event.content_id == "GET:/1" else event,
            on_drop=losses,
        )
        track(client, 3)
        assert client.flush()
        assert sorted(body["contentId"] for body in collector.bodies()) == ["GET:/0", "GET:/2"]
        assert client.stats().dropped == {"before_send": 1}
    client.shutdown()
    assert losses.reasons() == {"before_send": 1}


def wrong_kind(event: Event) -> Event:
    return EngagementEvent(event.event_id, event.timestamp, "u", "m", "t")


def failing(_: Event) -> Event:
    raise KeyError("secret value")


@pytest.mark.parametrize("broken", [failing, wrong_kind, lambda _: 3], ids=["raises", "kind", "type"])
def test_before_send_fails_closed(
    quick_client: Client, broken: Callable[[Event], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url, before_send=broken)
        track(client, 2)
        assert client.flush()
        assert collector.requests == []
        assert client.stats().dropped == {"before_send": 2}
    assert "before_send raised" in caplog.text
    assert "secret value" not in caplog.text


def test_before_send_sees_each_event_once_whatever_is_tried_again(quick_client: Client) -> None:
    seen: Counter[str] = Counter()

    def count(event: Event) -> Event:
        seen[event.event_id] += 1
        return without_address(event)

    with FaultyCollector(*[Unavailable(503)] * 4, batch="max=10") as collector:
        client = quick_client(collector.url, before_send=count)
        track(client, 12)
        assert client.flush()
        assert len(collector.event_ids()) == 12
        assert all("ipAddress" not in body for body in collector.bodies())
    assert set(seen.values()) == {1}


def test_before_send_decides_at_once_and_on_drop_runs_off_the_calling_thread(quick_client: Client) -> None:
    here, threads, losses = threading.current_thread().name, list[str](), Losses()

    def remember(_: Event) -> None:
        threads.append(threading.current_thread().name)

    with FaultyCollector() as collector:
        client = quick_client(collector.url, before_send=remember, on_drop=losses)
        track(client)
        assert threads == [here]
        assert client.flush()
        assert client.shutdown()
    assert here not in losses.threads
    assert len(losses.threads) == 1


def full_queue(client: AnalyticsClient) -> None:
    track(client, 20)


def poisoned(client: AnalyticsClient) -> None:
    track(client, 3)
    client.flush()


LOSSES: dict[str, tuple[Any, Callable[[AnalyticsClient], None], dict[str, Any]]] = {
    "queue_full": (Hang(millis=20_000), full_queue, {"max_queue_size": 5}),
    "rejected": (Poison(lambda body: body["contentId"] == "GET:/1", 400), poisoned, {}),
    "too_large": (Poison(lambda body: body["contentId"] == "GET:/1", 413), poisoned, {}),
    "shutdown": (Hang(millis=20_000), track, {}),
}


@pytest.mark.parametrize(("reason", "loss"), LOSSES.items(), ids=LOSSES.keys())
def test_on_drop_hears_of_every_loss(
    quick_client: Client,
    reason: str,
    loss: tuple[Any, Callable[[AnalyticsClient], None], dict[str, Any]],
) -> None:
    behaviour, lose, options = loss
    losses = Losses()
    with FaultyCollector(then=behaviour) as collector:
        client = quick_client(collector.url, on_drop=losses, **options)
        lose(client)
        client.shutdown(300)
        dropped = client.stats().dropped
    assert dropped[reason] >= 1
    assert losses.reasons() == dropped
    assert all(isinstance(event, ViewEvent) for _, event in losses.heard)


def test_on_drop_that_raises_or_takes_long_holds_up_nothing(
    quick_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def slow_and_wrong(reason: str, events: Sequence[Event]) -> None:  # noqa: ARG001 - the hook's signature
        time.sleep(0.2)
        raise RuntimeError("payload")

    with FaultyCollector(Poison(lambda _: True, 400)) as collector:
        client = quick_client(collector.url, on_drop=slow_and_wrong)
        track(client, 30)
        started = time.monotonic()
        assert client.flush()
        assert time.monotonic() - started < 5
        assert len(collector.bodies()) == 29
        client.shutdown()
    assert "on_drop raised RuntimeError" in caplog.text
    assert "payload" not in caplog.text


def test_hooks_with_a_spool(quick_client: Client, tmp_path: Path) -> None:
    losses = Losses()
    with FaultyCollector() as collector:
        client = quick_client(
            collector.url,
            spool_path=str(tmp_path / "spool"),
            before_send=lambda event: None if event.content_id == "GET:/1" else without_address(event),
            on_drop=losses,
        )
        track(client, 3)
        assert client.flush()
        assert len(collector.bodies()) == 2
        assert all("ipAddress" not in body for body in collector.bodies())
        assert client.stats().dropped == {"before_send": 1}
    client.shutdown()
    assert losses.reasons() == {"before_send": 1}
