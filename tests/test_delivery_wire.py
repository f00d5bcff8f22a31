"""What an answer means, for every status there is; and what a request looks like."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.wire import (
    Answer,
    NoAnswer,
    Outcome,
    Request,
    Verdict,
    build_request,
    interpret,
)
from otel_analytics.events import EncodedEvent

_NOW = 1_700_000_000.125

_REFUSED = {501, *range(300, 500)}  # what is unknown keeps the events
_UNAVAILABLE = {429, 503}
_FAILED = {408, 425, 500, 502, *range(504, 600), *range(100, 200)}
_EXPECTED_SINGLE = {
    **dict.fromkeys(range(200, 300), Verdict.ACCEPTED),
    **dict.fromkeys(_REFUSED, Verdict.REFUSED),
    **dict.fromkeys((400, 422), Verdict.REJECTED),
    409: Verdict.CONFLICT,
    **dict.fromkeys(_FAILED, Verdict.FAILED),
    **dict.fromkeys(_UNAVAILABLE, Verdict.UNAVAILABLE),
    413: Verdict.TOO_LARGE,
}
_EXPECTED_BATCH = {
    **_EXPECTED_SINGLE,
    **dict.fromkeys(range(200, 300), Verdict.NO_BATCHES),  # no acknowledgement in the body
    **dict.fromkeys((404, 405, 415, 501), Verdict.NO_BATCHES),
}


@pytest.mark.parametrize(("count", "expected"), [(1, _EXPECTED_SINGLE), (2, _EXPECTED_BATCH)])
def test_every_status_has_its_verdict(count: int, expected: dict[int, Verdict]) -> None:
    assert {status: _outcome(Answer(status), count).verdict for status in range(100, 600)} == expected


@pytest.mark.parametrize("status", [0, 600, 999])
def test_a_status_of_no_class_is_a_fault_of_the_server(status: int) -> None:
    assert _outcome(Answer(status), 1).verdict is Verdict.FAILED


@pytest.mark.parametrize("count", [1, 2])
def test_415_to_a_compressed_request_is_about_the_compression(count: int) -> None:
    request = Request("/", {"Content-Encoding": "gzip"}, b"")
    assert interpret(Answer(415), request, count, unix_now=_NOW).verdict is Verdict.NO_GZIP


@pytest.mark.parametrize("count", [1, 3])
def test_409_to_a_request_that_a_broken_connection_had_sent_before_is_a_delivery(count: int) -> None:
    assert _outcome(Answer(409, repeated=True), count) == Outcome(Verdict.ACCEPTED)


@pytest.mark.parametrize(("reached", "verdict"), [(True, Verdict.FAILED), (False, Verdict.UNAVAILABLE)])
def test_only_a_request_that_arrived_can_be_what_broke_it(*, reached: bool, verdict: Verdict) -> None:
    outcome = _outcome(NoAnswer("why", reached=reached), 1)
    assert (outcome.verdict, outcome.reason) == (verdict, "why")


def test_retry_after_comes_along() -> None:
    assert _outcome(Answer(503, {"retry-after": "7"}), 1).retry_after == 7.0


@pytest.mark.parametrize(
    ("failed", "verdict"), [([1], Verdict.ACCEPTED), ([0, 1], Verdict.UNAVAILABLE)], ids=["some", "all"]
)
def test_retry_after_beside_an_acknowledgement_is_for_what_it_wants_again(
    failed: list[int], verdict: Verdict
) -> None:
    failures = [{"index": index, "status": "retry"} for index in failed]
    body = json.dumps({"received": 2, "failures": failures}).encode()
    outcome = _outcome(Answer(202, {"retry-after": "7"}, body), 2)
    assert (outcome.verdict, outcome.retry_after) == (verdict, 7.0)


@given(st.lists(st.sampled_from(["accepted", "rejected", "retry"]), min_size=2, max_size=20))
def test_an_acknowledgement_says_what_became_of_each(changes: list[str]) -> None:
    listed = [{"index": i, "status": fate} for i, fate in enumerate(changes) if fate != "accepted"]
    body = json.dumps({"received": len(changes), "failures": listed, "more": 1}).encode()
    outcome = _outcome(Answer(202, {}, body), len(changes))
    if set(changes) == {"retry"}:
        assert outcome.verdict is Verdict.UNAVAILABLE
        return
    assert outcome.verdict is Verdict.ACCEPTED
    assert set(outcome.rejected) == {i for i, fate in enumerate(changes) if fate == "rejected"}
    assert outcome.again == {i for i, fate in enumerate(changes) if fate == "retry"}


@pytest.mark.parametrize("failures", ['"failures":[]', '"failures":null', '"x":0'])
def test_an_acknowledgement_may_leave_out_failures(failures: str) -> None:
    outcome = _outcome(Answer(200, {}, f'{{"received":2,{failures}}}'.encode()), 2)
    assert (outcome.verdict, dict(outcome.rejected), outcome.again) == (Verdict.ACCEPTED, {}, frozenset())


@given(st.binary() | st.text().map(str.encode))
def test_any_body_is_read_without_an_error(body: bytes) -> None:
    assert _outcome(Answer(200, {}, body), 3).verdict is Verdict.NO_BATCHES
    assert _outcome(Answer(200, {}, body), 1).verdict is Verdict.ACCEPTED


def test_a_lone_event_is_an_object() -> None:
    request = build_request(_parcel(b'{"a":1}'), compress=False, unix_now=_NOW)
    assert request.path == "/analytics/track/view"
    assert request.body == b'{"a":1}'
    assert request.headers["Idempotency-Key"] == "id-0"
    assert request.headers["X-Sent-At"] == "2023-11-14T22:13:20.125Z"
    assert request.headers["Content-Type"] == "application/json"
    assert "X-Retry-Count" not in request.headers


def test_several_events_are_an_array_of_the_same_objects() -> None:
    request = build_request(_parcel(b'{"a":1}', b"{}", kind=Kind.ENGAGEMENT), compress=False, unix_now=_NOW)
    assert request.path == "/analytics/track/engagement"
    assert request.body == b'[{"a":1},{}]'


def test_a_batch_keeps_its_key_on_every_retry_and_shares_it_with_no_other() -> None:
    batch = _parcel(b"1", b"2", b"3")
    again = Batch(batch.kind, batch.entries, attempts=4)
    batches = (batch, again, *batch.halves(), *batch.singles())
    requests = [build_request(p, compress=False, unix_now=_NOW) for p in batches]
    keys = [request.headers["Idempotency-Key"] for request in requests]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 1 + 1 + 3  # the batch, its second half, and the singles: the first half is one
    assert requests[1].headers["X-Retry-Count"] == "4"


@pytest.mark.parametrize(("size", "compressed"), [(100, False), (100_000, True)])
def test_what_is_worth_it_is_compressed(size: int, *, compressed: bool) -> None:
    request = build_request(_parcel(b"x" * size), compress=True, unix_now=_NOW)
    assert (request.headers.get("Content-Encoding") == "gzip") is compressed
    assert (gzip.decompress(request.body) if compressed else request.body) == b"x" * size


def _outcome(result: Answer | NoAnswer, count: int) -> Outcome:
    return interpret(result, Request("/", {}, b""), count, unix_now=_NOW)


def _parcel(*bodies: bytes, kind: Kind = Kind.VIEW) -> Batch:
    entries = (Entry(n, 0.0, EncodedEvent(kind, f"id-{n}", body)) for n, body in enumerate(bodies))
    return Batch(kind, tuple(entries))
