"""A verdict about a URL needs evidence about the URL: bad replicas, deployments, and keys that get right."""

from __future__ import annotations

from itertools import count

import pytest
from conftest import QuickClient
from driving import calls, eventually, one_each, track, within

from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.testing import (
    Accept,
    Answer,
    Behaviour,
    Exchange,
    FaultyCollector,
    Poison,
    ResetAtOnce,
    Unavailable,
)

_REAL = RetryPolicy()
_BAD_REPLICAS = [Answer(401), Answer(403), Answer(404), Answer(500), Unavailable(), ResetAtOnce()]


def _one_in_ten(bad: Behaviour) -> Behaviour:
    numbers = count()

    def answer(exchange: Exchange) -> None:
        (bad if next(numbers) % 10 == 5 else Accept())(exchange)

    return answer


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("bad", _BAD_REPLICAS, ids=str)
def test_one_bad_replica_of_ten_slows_nothing_down(
    quick_client: QuickClient, bad: Behaviour, batching: str
) -> None:
    with FaultyCollector(then=_one_in_ten(bad)) as collector:
        client = quick_client(collector.url, policy=_REAL, batching=batching, max_batch_size=5)
        ids = track(client, 200)
        assert eventually(lambda: client.stats().delivered >= 170, 5)
        assert client.flush(10_000)
        one_each(collector, ids)


@pytest.mark.parametrize("bad", _BAD_REPLICAS, ids=str)
def test_the_exit_delivers_everything_to_such_a_collector(quick_client: QuickClient, bad: Behaviour) -> None:
    with FaultyCollector(then=_one_in_ten(bad)) as collector:
        client = quick_client(collector.url, policy=_REAL)
        ids = track(client, 200)
        assert within(4, lambda: client.shutdown(5_000))
        one_each(collector, ids)


@pytest.mark.parametrize("bad", [Answer(401), Answer(500), Unavailable(), Answer(404)], ids=str)
@pytest.mark.parametrize("connections", [1, 8])
def test_kept_connections_to_a_bad_replica_are_left(
    quick_client: QuickClient, bad: Behaviour, connections: int
) -> None:
    """Every connection of before answers so, every new one is well."""
    with FaultyCollector(then=Accept(after_millis=20)) as collector:
        client = quick_client(collector.url, policy=_REAL, max_connections=connections)
        track(client, 40)
        assert client.flush(3_000)
        before = collector.connections

        def answer(exchange: Exchange) -> None:
            (bad if exchange.request.connection <= before else Accept())(exchange)

        collector.behave(then=answer)
        track(client, 100)
        assert eventually(lambda: client.stats().delivered == 140, 4)
        assert before == connections


@pytest.mark.parametrize("events", [1, 20])
@pytest.mark.parametrize("bad", [Answer(401), Answer(404), Answer(500), Unavailable()], ids=str)
def test_a_flush_asks_again_until_the_key_is_right(
    quick_client: QuickClient, bad: Behaviour, events: int
) -> None:
    """As long as somebody waits the delays stay short, however many there were before."""
    policy = RetryPolicy(initial=0.02, ceiling=60)
    with FaultyCollector(*[bad] * 8) as collector:
        client = quick_client(collector.url, policy=policy, dice=lambda: 0.99)
        ids = track(client, events)
        assert client.flush(2_500)
        one_each(collector, ids)


def test_a_flush_probes_though_the_delay_is_long(quick_client: QuickClient) -> None:
    policy = RetryPolicy(initial=0.02, ceiling=60)
    with FaultyCollector(then=Answer(401)) as collector:
        client = quick_client(collector.url, policy=policy, dice=lambda: 0.99)
        ids = track(client, 1)
        collector.wait_for_requests(6)
        collector.behave(then=Accept())
        assert within(0.3, lambda: client.flush(5_000))
        one_each(collector, ids)


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_flush_does_not_ask_before_the_time_that_the_collector_set(
    quick_client: QuickClient, status: int
) -> None:
    with FaultyCollector(Accept(), Unavailable(status, retry_after=0.25)) as collector:
        client = quick_client(collector.url, max_connections=1)
        track(client, 1)
        assert client.flush(2_000)
        track(client, 3)
        assert client.flush(2_000)
        _, first, second, *_ = (request.received_at for request in collector.requests)
        assert 0.25 <= second - first < 0.5


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("bad", [Answer(401), Unavailable(), Answer(500), ResetAtOnce()], ids=str)
def test_the_exit_tries_every_event_while_there_is_time(
    quick_client: QuickClient, bad: Behaviour, batching: str
) -> None:
    with FaultyCollector(*[bad] * 7) as collector:
        client = quick_client(collector.url, policy=_REAL, batching=batching, max_batch_size=1)
        ids = track(client, 20)
        assert within(2, lambda: client.shutdown(5_000))
        one_each(collector, ids)


@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize("position", [0, 3, 7])
def test_the_exit_drops_only_the_event_that_a_collector_cannot_take(
    quick_client: QuickClient, position: int, status: int
) -> None:
    ids: list[str] = []
    poison = Poison(lambda event: event["contentId"] == ids[position], status)
    with FaultyCollector(then=poison) as collector:
        client = quick_client(collector.url, policy=_REAL, batching="on", flush_interval_millis=60_000)
        for _ in range(8):
            ids += track(client, 1)
        assert not within(2, lambda: client.shutdown(5_000))
        assert calls(collector) == set(ids) - {ids[position]}
        assert client.stats().dropped == {"shutdown": 1}
