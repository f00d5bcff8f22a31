"""Batches: partial failures, answers that acknowledge nothing, poison, sizes, advertisements."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pytest
from conftest import QuickClient
from driving import calls, duplicates, eventually, one_each, track

from otel_analytics.testing import (
    Accept,
    AcceptPartly,
    Answer,
    Exchange,
    FaultyCollector,
    Hang,
    Poison,
    ResetAtOnce,
    TooLarge,
    Unavailable,
)

_ADVERTISED = "max=100; bytes=1000000"


def _sizes(collector: FaultyCollector) -> list[int]:
    return [len(request.events) for request in collector.requests]


def test_only_what_failed_of_a_batch_is_sent_again(quick_client: QuickClient) -> None:
    with FaultyCollector(AcceptPartly(rejected=[0, 5], retry=[2, 3])) as collector:
        client = quick_client(collector.url, batching="on")
        ids = sorted(track(client, 6))
        assert client.flush(3_000)
        stats = client.stats()
        assert (stats.delivered, stats.dropped) == (4, {"rejected": 2})
        assert _sizes(collector) == [6, 2]
        one_each(collector, ids[1:5])


def test_a_batch_wanted_again_whole_is_waited_for(quick_client: QuickClient) -> None:
    with FaultyCollector(*[AcceptPartly(retry=range(5))] * 3) as collector:
        client = quick_client(collector.url, batching="on")
        ids = track(client, 5)
        assert client.flush(3_000)
        one_each(collector, ids)
        assert _sizes(collector) == [5, 5, 5, 5]
        assert len({request.headers["idempotency-key"] for request in collector.requests}) == 1


@pytest.mark.parametrize("wanted", [[2], range(5)], ids=["one", "all"])
def test_retry_after_beside_an_acknowledgement_is_waited_for(
    quick_client: QuickClient, wanted: Collection[int]
) -> None:
    failures = [{"index": index, "status": "retry"} for index in wanted]
    busy = Answer(202, _acknowledgement(5, failures), {"Retry-After": "0.2"})
    with FaultyCollector(busy) as collector:
        client = quick_client(collector.url, batching="on")
        track(client, 5)
        assert client.flush(3_000)
        assert _sizes(collector) == [5, len(wanted)]
        first, second = (request.received_at for request in collector.requests)
        assert 0.2 <= second - first < 0.2 + 0.3


def test_a_batch_rejected_whole_is_dropped(quick_client: QuickClient) -> None:
    with FaultyCollector(AcceptPartly(rejected=range(5))) as collector:
        client = quick_client(collector.url, batching="on")
        track(client, 5)
        assert client.flush(3_000)
        assert client.stats().dropped == {"rejected": 5}


def _acknowledgement(received: Any, failures: Any = ()) -> bytes:
    return json.dumps({"received": received, "failures": failures}).encode()


_NO_ACKNOWLEDGEMENTS = {
    "empty": b"",
    "empty object": b"{}",
    "text": b"OK",
    "null": b"null",
    "number": b"4",
    "array": b"[]",
    "cut": b'{"received": 4',
    "not UTF-8": b'{"received": 4, "failures": "\xff"}',
    "nested": b"[" * 100_000,
    "too few": _acknowledgement(3, []),
    "too many": _acknowledgement(5, []),
    "text number": _acknowledgement("4", []),
    "failures an object": _acknowledgement(4, {"index": 1}),
    "failures text": _acknowledgement(4, "all"),
    "failure no object": _acknowledgement(4, [1]),
    "failure without index": _acknowledgement(4, [{"status": "retry"}]),
    "failure without status": _acknowledgement(4, [{"index": 1}]),
    "unknown status": _acknowledgement(4, [{"index": 1, "status": "maybe"}]),
    "status no text": _acknowledgement(4, [{"index": 1, "status": ["retry"]}]),
    "index beyond": _acknowledgement(4, [{"index": 4, "status": "retry"}]),
    "index below": _acknowledgement(4, [{"index": -1, "status": "retry"}]),
    "index text": _acknowledgement(4, [{"index": "1", "status": "retry"}]),
    "index boolean": _acknowledgement(4, [{"index": True, "status": "retry"}]),
    "index twice": _acknowledgement(4, [{"index": 1, "status": s} for s in ("retry", "rejected")]),
}


@pytest.mark.parametrize("body", _NO_ACKNOWLEDGEMENTS.values(), ids=_NO_ACKNOWLEDGEMENTS)
def test_what_acknowledges_no_batch_sends_it_singly_and_stops_batching(
    quick_client: QuickClient, body: bytes
) -> None:
    with FaultyCollector(Answer(200, body), batch=_ADVERTISED) as collector:
        client = quick_client(collector.url, batching="on")
        ids = track(client, 4)
        assert client.flush(3_000)
        ids |= track(client, 3)
        assert client.flush(3_000)
        assert _sizes(collector) == [4] + [1] * 7
        assert calls(collector) == ids
        assert duplicates(collector) == 4  # stored from the array too, under the same ids
        assert client.stats().delivered == 7


@pytest.mark.parametrize("status", [404, 405, 415, 501])
def test_a_collector_that_takes_no_arrays_gets_single_events(quick_client: QuickClient, status: int) -> None:
    with FaultyCollector(Answer(status)) as collector:
        client = quick_client(collector.url, batching="on")
        ids = track(client, 4)
        assert client.flush(3_000)
        assert _sizes(collector) == [4, 1, 1, 1, 1]
        one_each(collector, ids)


def test_gzip_refused_sends_the_same_uncompressed(quick_client: QuickClient) -> None:
    with FaultyCollector(Answer(415)) as collector:
        client = quick_client(collector.url, batching="on", compression="gzip")
        ids = track(client, 20)
        assert client.flush(3_000)
        assert [r.headers.get("content-encoding") for r in collector.requests] == ["gzip", None]
        one_each(collector, ids)


@pytest.mark.parametrize("limit", [50, 3, 1])
def test_413_halves_down_to_what_fits(quick_client: QuickClient, limit: int) -> None:
    with FaultyCollector(then=TooLarge(above_events=limit)) as collector:
        client = quick_client(collector.url, batching="on")
        ids = track(client, 100)
        assert client.flush(3_000)
        one_each(collector, ids)
        assert client.stats().dropped == {}


def test_413_in_bytes_is_remembered(quick_client: QuickClient) -> None:
    with FaultyCollector(then=TooLarge(above_bytes=4_000)) as collector:
        client = quick_client(collector.url, batching="on")
        ids = track(client, 100)
        assert client.flush(3_000)
        refused = sum(len(request.body) > 4_000 for request in collector.requests)
        ids |= track(client, 100)
        assert client.flush(3_000)
        one_each(collector, ids)
        assert sum(len(request.body) > 4_000 for request in collector.requests) == refused


def test_413_to_everything_drops_each_event_with_its_reason(quick_client: QuickClient) -> None:
    with FaultyCollector(then=Answer(413)) as collector:
        client = quick_client(collector.url, batching="on")
        track(client, 64)
        assert client.flush(3_000)
        assert client.stats().dropped == {"too_large": 64}
        assert len(collector.requests) < 2 * 64


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize(("status", "reason"), [(400, "rejected"), (422, "rejected"), (413, "too_large")])
def test_poison_is_dropped_alone(quick_client: QuickClient, position: int, status: int, reason: str) -> None:
    with FaultyCollector(then=Poison(_is_poison, status)) as collector:
        client = quick_client(collector.url, batching="on", max_batch_size=8)
        good = _track_around_poison(client, position)
        assert client.flush(3_000)
        assert client.stats().dropped == {reason: 1}
        one_each(collector, good)


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("status", [500, 403, None], ids=["500", "403", "reset"])
def test_poison_that_breaks_the_collector_waits_alone(
    quick_client: QuickClient, position: int, status: int | None
) -> None:
    """No other traffic shows that it is the batch's own fault."""
    with FaultyCollector(then=Poison(_is_poison, status)) as collector:
        client = quick_client(collector.url, batching="on", max_batch_size=8)
        good = _track_around_poison(client, position)
        assert eventually(lambda: client.stats().delivered == 7)
        assert client.stats().pending == 1
        good |= track(client, 20)
        assert eventually(lambda: client.stats().delivered == 27)
        one_each(collector, good)


def test_batches_that_take_too_long_get_smaller(quick_client: QuickClient) -> None:
    """A collector that needs longer than the timeout for many events, and says nothing of it."""

    def slow(exchange: Exchange) -> None:
        (Hang() if len(exchange.request.events) > 10 else Accept())(exchange)

    with FaultyCollector(then=slow) as collector:
        client = quick_client(collector.url, batching="on", timeout_millis=50)
        ids = track(client, 40)
        assert eventually(lambda: client.stats().delivered == 40, 5)
        one_each(collector, ids)


def test_batches_begin_with_the_advertisement(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        ids = track(client, 3)
        assert client.flush(3_000)
        collector.batch = "max=4"
        ids |= track(client, 1)
        assert client.flush(3_000)
        ids |= track(client, 10)
        assert client.flush(3_000)
        assert _sizes(collector)[:4] == [1] * 4
        assert sorted(_sizes(collector)[4:]) == [2, 4, 4]
        one_each(collector, ids)


def test_an_advertisement_in_an_error_counts(quick_client: QuickClient) -> None:
    with FaultyCollector(Unavailable(), batch="max=10") as collector:
        client = quick_client(collector.url)
        ids = track(client, 6)
        assert client.flush(3_000)
        assert len(_sizes(collector)) < 6
        one_each(collector, ids)


def test_an_advertisement_that_changes_is_followed(quick_client: QuickClient) -> None:
    with FaultyCollector(batch="max=8") as collector:
        client = quick_client(collector.url, flush_interval_millis=5_000)
        for limit, sizes in (("max=8", [8, 8]), ("max=2", [2] * 8), ("max=100; bytes=10", [1] * 16)):
            collector.batch = limit
            track(client, 1)
            assert client.flush(3_000)
            before = len(collector.requests)
            ids = track(client, 16)
            assert client.flush(3_000)
            assert _sizes(collector)[before:] == sizes
            assert ids <= calls(collector)
        assert duplicates(collector) == 0


@pytest.mark.parametrize(
    "header",
    ["", "off", "none", "max=", "max=many", "max=0", "max=-1", "max=1.5", "bytes=9", "; ;=", "max=5,max=6"],
)
def test_a_garbage_advertisement_starts_no_batches(quick_client: QuickClient, header: str) -> None:
    with FaultyCollector(batch=header) as collector:
        client = quick_client(collector.url)
        ids = track(client, 6)
        assert client.flush(3_000)
        assert _sizes(collector) == [1] * 6
        one_each(collector, ids)


def test_arrays_stop_where_the_collector_no_longer_knows_them(quick_client: QuickClient) -> None:
    """An older version is rolled out: it advertises nothing, takes anything, and acknowledges no array."""
    with FaultyCollector(batch=_ADVERTISED) as collector:
        client = quick_client(collector.url)
        track(client, 1)
        assert client.flush(3_000)
        collector.batch = None
        collector.behave(then=Answer(200, b"{}"))
        ids = track(client, 5)
        assert client.flush(3_000)
        assert _sizes(collector) == [1, 5, 1, 1, 1, 1, 1]
        assert ids < calls(collector)


@pytest.mark.parametrize("fault", [Answer(500), ResetAtOnce(), Unavailable()], ids=str)
def test_a_batch_sent_again_is_the_same_batch(quick_client: QuickClient, fault: Answer) -> None:
    with FaultyCollector(fault, fault) as collector:
        client = quick_client(collector.url, batching="on")
        ids = track(client, 7)
        assert client.flush(3_000)
        assert len({request.body for request in collector.requests}) == 1
        assert len({request.headers["idempotency-key"] for request in collector.requests}) == 1
        one_each(collector, ids)


def _is_poison(event: dict[str, Any]) -> bool:
    return "poison" in event["contentId"]


def _track_around_poison(client: Any, position: int) -> set[str]:
    good = track(client, position)
    track(client, 1, "poison")
    return good | track(client, 7 - position)
