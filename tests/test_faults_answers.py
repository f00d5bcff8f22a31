"""What collectors answer when they are unwell, misconfigured, or busy; and how often they are asked again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest
from conftest import QuickClient
from driving import calls, duplicates, eventually, one_each, track, within

from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.testing import (
    Accept,
    Answer,
    Behaviour,
    Exchange,
    FaultyCollector,
    Garbage,
    HalfClose,
    Hang,
    LostAcknowledgement,
    Redirect,
    ResetAtOnce,
    ResetMidBody,
    Unavailable,
)

_FLOOR = 0.3  # conftest's cap for what a collector may ask


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "floor"),
    [
        pytest.param(lambda: "0.15", 0.15, id="fraction"),
        pytest.param(lambda: "1", _FLOOR, id="seconds"),
        pytest.param(lambda: formatdate(time.time() + 3_600, usegmt=True), _FLOOR, id="date"),
        pytest.param(lambda: "9" * 30, _FLOOR, id="huge"),
        pytest.param(lambda: formatdate(time.time() - 3_600, usegmt=True), 0, id="past"),
        pytest.param(lambda: "-5", 0, id="negative"),
        pytest.param(lambda: "soon", 0, id="garbage"),
        pytest.param(lambda: "inf", 0, id="infinite"),
        pytest.param(lambda: "", 0, id="empty"),
    ],
)
def test_retry_after_is_a_floor_with_a_cap(
    quick_client: QuickClient, status: int, retry_after: Callable[[], str], floor: float
) -> None:
    with FaultyCollector(Unavailable(status, retry_after=retry_after())) as collector:
        client = quick_client(collector.url)
        ids = track(client, 4)
        assert client.flush(3_000)
        one_each(collector, ids)
        first, second = (request.received_at for request in collector.requests[:2])
        assert floor <= second - first < floor + 0.2


def test_retry_after_stands_when_requests_sent_before_it_succeed(quick_client: QuickClient) -> None:
    """Of eight requests in flight one is told to wait; the others' success does not lift that."""
    started = []

    def busy(exchange: Exchange) -> None:
        started.append(exchange)
        if len(started) == 1:
            Unavailable(429, retry_after=10)(exchange)
        else:
            Accept(after_millis=100)(exchange)

    with FaultyCollector() as collector:
        client = quick_client(collector.url, max_connections=8)
        track(client, 30)
        assert client.flush(3_000)
        collector.behave(then=busy)
        track(client, 60)
        collector.wait_for_requests(31)
        time.sleep(_FLOOR / 2)
        asked = len(started)
        time.sleep(_FLOOR / 4)
        assert len(started) == asked <= 8
        assert client.flush(5_000)


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_storm_of_errors_is_waited_out(quick_client: QuickClient, status: int, batching: str) -> None:
    with FaultyCollector(*[Answer(status)] * 7) as collector:
        client = quick_client(collector.url, batching=batching)
        ids = track(client, 10)
        assert client.flush(4_000)
        one_each(collector, ids)
        assert client.stats().delivered == 10


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize(
    "status", [301, 302, 401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 418, 426, 428, 431, 451, 499]
)
def test_a_wrong_key_or_url_keeps_the_events_until_it_is_right(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture, status: int, batching: str
) -> None:
    with FaultyCollector(*[Answer(status)] * 3) as collector:
        client = quick_client(collector.url, batching=batching)
        ids = track(client, 5)
        assert client.flush(3_000)
        one_each(collector, ids)
        assert client.stats().dropped == {}
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


def test_a_wrong_key_shows_in_no_log_line(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyCollector(write_key="right") as collector:
        client = quick_client(collector.url, write_key="wr0ng-key", debug=True)
        track(client, 2)
        assert not client.flush(150)
        assert client.stats().pending == 2
    url = f"otel-analytics: {collector.url}/analytics/track/view"
    assert f"{url}: HTTP 401 (" in caplog.text or f"{url}: HTTP 401; " in caplog.text
    assert "the key is missing or wrong: set write_key; 2 events wait, sent again in up to" in caplog.text
    assert "wr0ng-key" not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(quick_client: QuickClient, status: int) -> None:
    with FaultyCollector() as elsewhere, FaultyCollector(then=Redirect(elsewhere.url, status)) as collector:
        client = quick_client(collector.url, write_key="s3cret")
        ids = track(client, 3)
        assert not client.flush(150)
        assert client.stats().pending == 3
        collector.behave(then=Accept())
        assert client.flush(3_000)
        one_each(collector, ids)
        assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [400, 409, 422])
def test_an_invalid_event_is_dropped_alone(quick_client: QuickClient, status: int) -> None:
    with FaultyCollector(Answer(status)) as collector:
        client = quick_client(collector.url)
        track(client, 5)
        assert client.flush(3_000)
        assert client.stats().delivered == 4
        assert client.stats().dropped == {"rejected": 1}
        assert len(collector.event_ids()) == 4


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("lost", [LostAcknowledgement(), Hang()], ids=str)
def test_409_to_a_repeated_key_is_a_delivery(
    quick_client: QuickClient, lost: Behaviour, batching: str
) -> None:
    """A collector that knows its keys answers so to what it has stored already."""
    with FaultyCollector(Accept(), lost, then=Answer(409)) as collector:
        client = quick_client(collector.url, batching=batching, max_connections=1)
        track(client, 1)
        assert client.flush(3_000)
        track(client, 3 if batching == "on" else 1)
        assert client.flush(3_000)
        stats = client.stats()
        assert (stats.delivered, stats.dropped) == (stats.accepted, {})


def test_one_event_that_is_always_refused_does_not_hold_up_its_lane(quick_client: QuickClient) -> None:
    """A firewall that answers 403 for what is in one body."""
    with FaultyCollector(then=_firewall) as collector:
        client = quick_client(collector.url)
        track(client, 1, "union-select")
        ids = track(client, 300)
        assert eventually(lambda: client.stats().delivered == 300)
        assert client.stats().pending == 1
        one_each(collector, ids)


def test_a_lane_whose_url_is_missing_does_not_hold_up_the_other(quick_client: QuickClient) -> None:
    with FaultyCollector(then=_views_only) as collector:
        client = quick_client(collector.url)
        for number in range(50):
            client.track_engagement("user", "purchase", f"order-{number}", "content")
        ids = track(client, 300)
        assert eventually(lambda: client.stats().delivered == 300)
        assert client.stats().pending == 50
        one_each(collector, ids)


def test_a_lost_acknowledgement_sends_the_same_ids_again(quick_client: QuickClient) -> None:
    with FaultyCollector(LostAcknowledgement(), Accept(), LostAcknowledgement()) as collector:
        client = quick_client(collector.url, max_connections=1)
        ids = track(client, 5)
        assert client.flush(3_000)
        assert calls(collector) == ids
        assert len(collector.event_ids()) == 5
        assert duplicates(collector) == 2
        assert client.stats().delivered == 5
        keys = [request.headers["idempotency-key"] for request in collector.requests]
        assert len(set(keys)) == 5


def test_a_retry_says_so_and_is_otherwise_the_same(quick_client: QuickClient) -> None:
    with FaultyCollector(Answer(500), Answer(503)) as collector:
        client = quick_client(collector.url)
        track(client, 1)
        assert client.flush(3_000)
        first, second, third = collector.requests
        assert first.body == second.body == third.body
        assert len({r.headers["idempotency-key"] for r in collector.requests}) == 1
        counts = [r.headers.get("x-retry-count") for r in collector.requests]
        assert counts == [None, "1", "2"]


_BROKEN: dict[str, Behaviour] = {
    "500": Answer(500),
    "503": Unavailable(),
    "429": Unavailable(429),
    "401": Answer(401),
    "404": Answer(404),
    "307": Answer(307),
    "reset": ResetAtOnce(),
    "reset mid-body": ResetMidBody(),
    "half-close": HalfClose(),
    "garbage": Garbage(),
    "acknowledgement lost": LostAcknowledgement(),
}


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("broken", _BROKEN.values(), ids=_BROKEN)
def test_a_broken_collector_is_not_stormed(
    quick_client: QuickClient, broken: Behaviour, batching: str
) -> None:
    """A tenth of the real delays; the dice always show their mean."""
    policy = RetryPolicy(initial=0.05, ceiling=0.2)
    with FaultyCollector() as collector:
        client = quick_client(
            collector.url, policy=policy, dice=lambda: 0.5, batching=batching, max_connections=8
        )
        track(client, 20)
        assert client.flush(3_000)
        before = len(collector.requests)
        collector.behave(then=broken)
        track(client, 2_000)
        time.sleep(0.4)
        # Those in flight together at the break, once more each on a fresh connection, then one at a time:
        # 25 ms, 50 ms, 100 ms, 100 ms, ...
        assert len(collector.requests) - before <= 2 * 8 + 7
        assert client.stats().pending == 2_000


def test_a_refused_port_is_not_stormed(quick_client: QuickClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "otel_analytics")
    with FaultyCollector() as collector:
        collector.stop_listening()
        client = quick_client(
            collector.url, policy=RetryPolicy(initial=0.05, ceiling=0.2), dice=lambda: 0.5, debug=True
        )
        track(client, 500)
        assert not within(0.8, lambda: client.flush(800))
        attempts = [record for record in caplog.records if "UNAVAILABLE" in record.getMessage()]
        assert 3 <= len(attempts) <= 14
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1


def _firewall(exchange: Exchange) -> None:
    blocked = b"union-select" in exchange.request.body
    (Answer(403) if blocked else Accept())(exchange)


def _views_only(exchange: Exchange) -> None:
    (Accept() if exchange.request.kind == "view" else Answer(404))(exchange)
