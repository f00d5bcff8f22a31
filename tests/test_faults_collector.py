"""The fault-injecting collector itself, seen by a plain HTTP client."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from otel_analytics.testing import (
    Accept,
    AcceptPartly,
    Answer,
    Exchange,
    FaultyCollector,
    Garbage,
    Gigantic,
    HalfClose,
    Hang,
    LostAcknowledgement,
    Poison,
    Redirect,
    ResetAtOnce,
    ResetMidBody,
    SlowDrip,
    TooLarge,
    Unavailable,
)

_VIEW = "/analytics/track/view"
_ENGAGEMENT = "/analytics/track/engagement"


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        yield client


def _event(event_id: str) -> dict[str, Any]:
    return {"metadata": {"eventId": event_id}}


def test_it_acknowledges_and_keeps(http: httpx.Client) -> None:
    with FaultyCollector(batch="max=5") as collector:
        one = http.post(collector.url + _VIEW, json=_event("a"))
        two = http.post(collector.url + _ENGAGEMENT, json=[_event("b"), _event("a")])
        assert (one.status_code, one.json(), one.headers["x-analytics-batch"]) == (200, {}, "max=5")
        assert two.json() == {"received": 2, "failures": []}
        assert collector.event_ids() == {"a": 2, "b": 1}
        assert collector.bodies("view") == [_event("a")]
        assert [event.kind for event in collector.stored] == ["view", "engagement", "engagement"]
        assert [request.connection for request in collector.requests] == [1, 1]


def test_an_event_without_an_id_goes_by_its_idempotency_key(http: httpx.Client) -> None:
    with FaultyCollector() as collector:
        http.post(collector.url + _VIEW, json={}, headers={"Idempotency-Key": "k"})
        assert collector.event_ids() == {"k": 1}


def test_it_reads_gzip_and_chunks(http: httpx.Client) -> None:
    body = json.dumps(_event("a")).encode()
    with FaultyCollector() as collector:
        packed = {"Content-Encoding": "gzip"}
        http.post(collector.url + _VIEW, content=gzip.compress(body), headers=packed)
        http.post(collector.url + _VIEW, content=iter([body[:5], body[5:]]))
        assert [request.body for request in collector.requests] == [body, body]
        assert collector.event_ids() == {"a": 2}


def test_the_script_runs_once_then_the_rest(http: httpx.Client) -> None:
    with FaultyCollector(Answer(500), Unavailable(429, retry_after=7), then=Answer(204)) as collector:
        answers = [http.post(collector.url + _VIEW, json={}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [500, 429, 204, 204]
        assert answers[1].headers["retry-after"] == "7"
        assert len(collector.stored) == 2
        collector.behave(Answer(400), then=Accept(201))
        assert [http.post(collector.url + _VIEW, json={}).status_code for _ in range(3)] == [400, 201, 201]


def test_a_wrong_key_or_path_uses_up_no_behaviour(http: httpx.Client) -> None:
    with FaultyCollector(Answer(418), write_key="right") as collector:
        assert http.post(collector.url + _VIEW, json={}).status_code == 401
        key = {"X-Write-Key": "right"}
        assert http.post(collector.url + "/elsewhere", json={}, headers=key).status_code == 404
        assert http.post(collector.url + _VIEW, json={}, headers=key).status_code == 418
        assert not collector.stored


def test_partial_acceptance_by_index_and_by_predicate(http: httpx.Client) -> None:
    partly = AcceptPartly(rejected=[0], retry=lambda event: event["metadata"]["eventId"] == "c")
    with FaultyCollector(then=partly) as collector:
        answer = http.post(collector.url + _VIEW, json=[_event("a"), _event("b"), _event("c")])
        failures = [(item["index"], item["status"]) for item in answer.json()["failures"]]
        assert failures == [(0, "rejected"), (2, "retry")]
        assert collector.event_ids() == {"b": 1}
        assert http.post(collector.url + _VIEW, json=_event("x")).status_code == 400


def test_limits_and_poison(http: httpx.Client) -> None:
    with FaultyCollector(TooLarge(above_events=1), TooLarge(above_bytes=3)) as collector:
        assert http.post(collector.url + _VIEW, json=[{}, {}]).status_code == 413
        assert http.post(collector.url + _VIEW, json={"a": 1}).status_code == 413
        collector.behave(then=Poison(lambda event: "bad" in event, 422))
        assert http.post(collector.url + _VIEW, json=[{}, {"bad": 1}]).status_code == 422
        assert http.post(collector.url + _VIEW, json={}).status_code == 200


def test_a_redirect_names_the_other_place(http: httpx.Client) -> None:
    with FaultyCollector(Redirect("http://127.0.0.1:1", 308)) as collector:
        answer = http.post(collector.url + _VIEW, json={})
        assert (answer.status_code, answer.headers["location"]) == (308, "http://127.0.0.1:1" + _VIEW)


@pytest.mark.parametrize(
    ("behaviour", "error", "stored"),
    [
        (Hang(), httpx.ReadTimeout, 0),
        (Hang("body"), httpx.ReadTimeout, 0),
        (SlowDrip("head", interval_millis=2_000), httpx.ReadTimeout, 1),
        (SlowDrip("body", interval_millis=2_000), httpx.ReadTimeout, 1),
        (ResetAtOnce(), httpx.ReadError, 0),
        (ResetMidBody(), httpx.ReadError, 0),
        (HalfClose(), httpx.RemoteProtocolError, 0),
        (LostAcknowledgement(), httpx.ReadError, 1),
        (Garbage(), httpx.RemoteProtocolError, 0),
        (Poison(bool, None), httpx.ReadError, 0),
    ],
    ids=str,
)
def test_breakages_are_what_they_say(behaviour: Any, error: type[Exception], stored: int) -> None:
    with FaultyCollector(behaviour) as collector, httpx.Client(timeout=0.3, trust_env=False) as http:
        with pytest.raises(error):
            http.post(collector.url + _VIEW, json=_event("a"))
        assert len(collector.stored) == stored
        assert http.post(collector.url + _VIEW, json=_event("b")).status_code == 200


def test_a_gigantic_answer_is_as_long_as_it_says(http: httpx.Client) -> None:
    with FaultyCollector(Gigantic(size=3_000_001)) as collector:
        assert len(http.post(collector.url + _VIEW, json={}).content) == 3_000_001


def test_it_stops_listening_and_resumes_on_its_port(http: httpx.Client) -> None:
    with FaultyCollector() as collector:
        http.post(collector.url + _VIEW, json=_event("a"))
        collector.stop_listening()
        with pytest.raises(httpx.ConnectError):
            http.post(collector.url + _VIEW, json={})
        collector.resume()
        http.post(collector.url + _VIEW, json=_event("b"))
        assert collector.event_ids() == {"a": 1, "b": 1}


def test_waiting_ends_with_what_was_seen(http: httpx.Client) -> None:
    with FaultyCollector() as collector:
        http.post(collector.url + _VIEW, json=[_event("a"), _event("a")])
        collector.wait_for_requests(1)
        collector.wait_for_events(1)
        with pytest.raises(TimeoutError, match=r"2 events; there were 1 requests on 1 connections, and 2"):
            collector.wait_for_events(2, timeout_millis=10)


def test_a_behaviour_may_be_any_callable(http: httpx.Client) -> None:
    def teapot(exchange: Exchange) -> None:
        exchange.answer(418, exchange.request.body)

    with FaultyCollector(teapot) as collector:
        assert http.post(collector.url + _VIEW, content=b"hello").text == "hello"


def test_closing_leaves_no_thread_behind(http: httpx.Client) -> None:
    before = threading.active_count()
    with FaultyCollector(then=Hang()) as collector:
        with pytest.raises(httpx.ReadTimeout):
            http.post(collector.url + _VIEW, json={}, timeout=0.05)
        assert threading.active_count() > before
    assert threading.active_count() == before
