"""Flush and shutdown while the collector is ill: what can be sent is, and nobody waits in vain."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import QuickClient
from driving import calls, track, within

from otel_analytics import ViewEvent
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.batch import Entry
from otel_analytics.events import EncodedEvent, encode
from otel_analytics.testing import Accept, Answer, Exchange, FaultyCollector, Hang, ResetAtOnce, Unavailable

_LONG = 20_000


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize(
    "fault", [Unavailable(), Unavailable(retry_after=300), Answer(500), Answer(401), ResetAtOnce()], ids=str
)
def test_the_exit_gives_up_on_a_collector_that_is_down(
    quick_client: QuickClient, fault: Answer, batching: str
) -> None:
    policy = RetryPolicy(initial=0.02, ceiling=60)
    with FaultyCollector(then=fault) as collector:
        client = quick_client(collector.url, policy=policy, batching=batching)
        track(client, 10)
        assert not within(1, lambda: client.shutdown(_LONG))
        assert client.stats().dropped == {"shutdown": 10}
        assert len(collector.requests) <= 10


def test_the_exit_gives_up_on_a_refused_port(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        client = quick_client(collector.url)
        track(client, 10)
        assert not within(1, lambda: client.shutdown(_LONG))


@pytest.mark.parametrize("fault", [Unavailable(retry_after=300), Answer(500), Answer(401)], ids=str)
def test_the_exit_does_not_wait_out_a_backoff(quick_client: QuickClient, fault: Answer) -> None:
    with FaultyCollector(fault) as collector:
        client = quick_client(collector.url, policy=RetryPolicy(initial=60, ceiling=60))
        ids = track(client, 10)
        assert not client.flush(100)
        assert within(1, lambda: client.shutdown(_LONG))
        assert calls(collector) == ids


def test_the_exit_sends_the_lane_that_works(quick_client: QuickClient) -> None:
    def views_only(exchange: Exchange) -> None:
        (Accept() if exchange.request.kind == "view" else Answer(404))(exchange)

    with FaultyCollector(then=views_only) as collector:
        client = quick_client(collector.url, policy=RetryPolicy(initial=60, ceiling=60))
        for number in range(5):
            client.track_engagement("user", "purchase", f"order-{number}", "content")
        ids = track(client, 50)
        assert not within(1, lambda: client.shutdown(_LONG))
        assert calls(collector) == ids
        assert client.stats().dropped == {"shutdown": 5}


def test_shutdown_twice_and_flush_after_it_return_at_once(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        track(client, 3)
        assert client.shutdown(1_000)
        assert within(0, lambda: client.shutdown(_LONG))
        assert within(0, lambda: client.flush(_LONG))
        track(client, 2)
        assert client.stats().dropped == {"after_shutdown": 2}


def test_an_event_that_slips_in_behind_shutdown_is_counted(
    quick_client: QuickClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread looked whether all was closed just before it was."""
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        delivery = client._delivery()
        put = delivery._queue.put

        def put_late(events: Sequence[EncodedEvent]) -> list[Entry]:
            client.shutdown(100)
            return put(events)

        monkeypatch.setattr(delivery._queue, "put", put_late)
        delivery.accept([encode(_view(0))])
        assert client.stats().dropped == {"after_shutdown": 1}
        assert client.stats().pending == 0


def test_a_flush_does_not_wait_out_a_drawn_delay(quick_client: QuickClient) -> None:
    policy = RetryPolicy(initial=0.05, ceiling=60)
    with FaultyCollector(*[Unavailable()] * 12) as collector:
        client = quick_client(collector.url, policy=policy, dice=lambda: 0.99)
        track(client, 1)
        while not client.flush(20):
            assert len(collector.requests) <= 13  # the one that gets through may be on its way
        assert client.stats().delivered == 1


def test_events_of_one_call_do_not_wait_for_one_that_hangs(quick_client: QuickClient) -> None:
    """Threads that idle are called to work even where no further event wakes them."""
    with FaultyCollector(then=Accept(after_millis=5)) as collector:
        client = quick_client(collector.url, timeout_millis=3_000, max_connections=4)
        track(client, 50)
        assert client.flush(3_000)
        collector.behave(Hang(), then=Accept())
        client.submit([_view(number) for number in range(20)])
        collector.wait_for_events(69, timeout_millis=1_000)


def test_an_event_refused_again_does_not_pause_the_others(quick_client: QuickClient) -> None:
    """Once others got through, a refusal is that event's own: only the first one pauses its lane."""

    def firewall(exchange: Exchange) -> None:
        (Answer(403) if b"union-select" in exchange.request.body else Accept())(exchange)

    policy = RetryPolicy(initial=0.05, ceiling=0.8)
    with FaultyCollector(then=firewall) as collector:
        client = quick_client(collector.url, policy=policy, dice=lambda: 0.99)
        track(client, 1, "union-select")
        collector.wait_for_requests(1)
        for stored in range(1, 5):
            track(client, 1)
            collector.wait_for_events(stored, timeout_millis=2_000 if stored == 1 else 300)
            collector.wait_for_requests(2 * stored + 1)  # refused again


def _view(number: int) -> ViewEvent:
    return ViewEvent(
        f"event-{number}", "2030-01-01T00:00:00.000Z", f"GET:/{number}", "post", "s", "desktop", "shop"
    )
