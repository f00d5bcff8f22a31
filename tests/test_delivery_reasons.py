"""What a collector says of why, in the shapes that frameworks give it: into the log, and to `on_drop`."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import QuickClient
from driving import track
from hypothesis import given
from hypothesis import strategies as st

from otel_analytics import EngagementEvent, ViewEvent
from otel_analytics.delivery.hooks import StatedReason
from otel_analytics.delivery.http.reasons import stated_reason
from otel_analytics.testing import Accept, Answer, FaultyCollector

_JSON = "application/json"
_KEY = "wk_4711_0815"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": "title is required"}, "title is required"),
        ({"error": {"code": 17, "message": "bad\r\nline"}}, "bad line"),
        ({"statusCode": 400, "message": ["a is no id", "b is late"], "error": "Bad Request"},
         "a is no id; b is late; Bad Request"),
        ({"detail": [{"loc": ["body", "contentId"], "msg": "Field required", "input": {"userId": "u-1"}}]},
         "body.contentId: Field required"),
        ({"errors": [{"field": "app", "message": "unknown"}]}, "app: unknown"),
        ({"type": "about:blank", "title": "Invalid", "detail": "no such app"}, "no such app; Invalid"),
        ({"error": "invalid_token", "error_description": "it is over"}, "it is over; invalid_token"),
        ({"message": "x" * 5_000}, "x" * 2_000),
        ({"message": "a\x1b[31m\u202eb"}, "a [31m b"),
        ({"message": None, "errors": 3, "error": {}}, ""),
        ({"input": "payload"}, ""),
        (["one", "two", "two", "three", "four"], "one; two; three"),
        ([], ""),
    ],
)  # fmt: skip
def test_the_reason_is_read(body: Any, reason: str) -> None:
    assert stated_reason(_JSON, json.dumps(body).encode()) == reason


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("text/plain; charset=utf-8", b" no\n such  app ", "no such app"),
        ("text/html", b"<html><title>Sign in</title>", ""),
        ("", b"no such app", ""),
        ("", b'{"error": "no such app"}', "no such app"),
        (_JSON, b'{"error": "cut', ""),
        (_JSON, b"[" * 60_000, ""),
        (_JSON, b'{"error": "' + b"x" * 100_000 + b'"}', ""),
        ("text/plain", b"\xff", "\ufffd"),
    ],
)
def test_what_is_no_reason_gives_none(content_type: str, body: bytes, reason: str) -> None:
    assert stated_reason(content_type, body) == reason


_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "loc", "message", "x"]), inner),
    max_leaves=20,
)


@given(_ANY_JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_any_body_is_read_without_an_error(body: bytes) -> None:
    assert stated_reason(_JSON, body).isprintable()


def test_a_stated_reason_is_its_word() -> None:
    reason = StatedReason("rejected", "title is required")
    assert reason == "rejected"
    assert {"rejected": 1}[reason] == 1
    assert (f"{reason}", repr(reason)) == ("rejected", "StatedReason('rejected', 'title is required')")
    assert pickle.loads(pickle.dumps(reason)).stated == reason.stated  # noqa: S301 - ours


_ACKNOWLEDGED = {
    "received": 3,
    "failures": [
        {"index": 0, "status": "rejected", "reason": "too old"},
        {"index": 2, "status": "rejected", "reason": "no such app"},
    ],
}


@pytest.mark.parametrize(
    ("count", "answer", "heard"),
    [
        (1, Answer(422, b'{"error": "too old"}'), [("rejected", "too old")]),
        (1, Answer(413, b"too long", {"Content-Type": "text/plain"}), [("too_large", "too long")]),
        (1, Answer(400, b"<html>", {"Content-Type": "text/html"}), [("rejected", "")]),
        (
            3,
            Answer(200, json.dumps(_ACKNOWLEDGED).encode()),
            [("rejected", "too old"), ("rejected", "no such app")],
        ),
    ],
)
def test_on_drop_and_the_log_hear_the_collectors_reason(
    quick_client: QuickClient,
    caplog: pytest.LogCaptureFixture,
    count: int,
    answer: Answer,
    heard: list[tuple[str, str]],
) -> None:
    reasons = []

    def on_drop(reason: StatedReason, events: Sequence[ViewEvent | EngagementEvent]) -> None:
        reasons.extend([(str(reason), reason.stated)] * len(events))

    with FaultyCollector(answer) as collector:
        client = quick_client(collector.url, batching="on", on_drop=on_drop)
        track(client, count)
        assert client.flush(3_000)
        client.shutdown()
        assert client.stats().dropped == {heard[0][0]: len(heard)}
    assert reasons == heard
    stated = heard[0][1]
    lines = [record.getMessage() for record in caplog.records if "an event is dropped" in record.getMessage()]
    assert len(lines) == 1
    assert (f"({stated})" in lines[0]) is bool(stated)


@pytest.mark.parametrize("status", [401, 429, 500])
def test_what_a_collector_in_trouble_says_is_in_the_log(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    with FaultyCollector(Answer(status, b'{"message": "quota of the month"}')) as collector:
        client = quick_client(collector.url)
        track(client, 1)
        assert client.flush(3_000)
    assert f"HTTP {status} (quota of the month)" in caplog.text


@pytest.mark.parametrize("status", [401, 422])
def test_a_collector_that_repeats_the_key_is_not_quoted_with_it(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    reasons: list[str] = []
    said = json.dumps({"message": f"{'.' * 190} {_KEY} is no key"}).encode()
    with FaultyCollector(Answer(status, said)) as collector:
        client = quick_client(
            collector.url, write_key=_KEY, on_drop=lambda reason, _: reasons.append(reason.stated)
        )
        track(client, 1)
        assert client.flush(3_000)
        client.shutdown()
    assert "<hidden>" in caplog.text
    assert all("<hidden>" in reason for reason in reasons)
    assert _KEY[:4] not in caplog.text + "".join(reasons)


@pytest.mark.parametrize("batching", ["off", "on"])
def test_a_page_in_answer_to_events_is_told_once(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture, batching: str
) -> None:
    page = Answer(200, b"<html>Sign in", {"Content-Type": "Text/HTML; charset=utf-8"})
    with FaultyCollector(then=page) as collector:
        client = quick_client(collector.url, batching=batching)
        track(client, 10)
        assert client.flush(3_000)
        assert client.stats().delivered == 10
    lines = [record for record in caplog.records if "HTML" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.WARNING]


def test_an_answer_that_is_no_page_is_not_told(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyCollector(Answer(200, b"OK", {"Content-Type": "text/plain"}), then=Accept()) as collector:
        client = quick_client(collector.url)
        track(client, 3)
        assert client.flush(3_000)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
