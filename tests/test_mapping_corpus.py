"""Each recorded request of each framework gives the view that its client would expect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import corpus_truth as truth
import pytest
from corpus_spans import FRAMEWORKS, MODES, Recording, load

from otel_analytics.config import Config
from otel_analytics.contract import Kind
from otel_analytics.events import EngagementEvent, Event, ViewEvent, encode
from otel_analytics.mapping.options import options_from_config
from otel_analytics.mapping.spans import SpanMapper

ALL = [pytest.param(framework, mode, id=f"{framework}-{mode}") for framework in FRAMEWORKS for mode in MODES]


def recordings(framework: str, mode: str) -> list[Recording]:
    return [recording for recording in load(framework) if recording.mode == mode]


def events_of(recording: Recording, **options: Any) -> list[Event]:
    mapper = SpanMapper(options_from_config(Config(**options)))
    return [event for span in recording.spans for event in mapper.map(span).events]


def views_of(recording: Recording, **options: Any) -> list[ViewEvent]:
    return [event for event in events_of(recording, **options) if isinstance(event, ViewEvent)]


def each_view(framework: str, mode: str) -> Iterator[tuple[Recording, ViewEvent]]:
    for recording in recordings(framework, mode):
        for view in views_of(recording):
            yield recording, view


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_one_request_gives_one_view(framework: str, mode: str) -> None:
    got = {str(r): len(views_of(r)) for r in recordings(framework, mode)}
    assert got == {str(r): truth.expected_views(r) for r in recordings(framework, mode)}
    assert sum(got.values()) > 15


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_method_and_endpoint_are_what_was_asked_for(framework: str, mode: str) -> None:
    wrong = {
        (str(recording), view.content_id)
        for recording, view in each_view(framework, mode)
        if view.content_id != f"{truth.expected_method(recording)}:{truth.expected_endpoint(recording)}"
    }
    assert wrong == set()


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_status_is_what_the_client_saw(framework: str, mode: str) -> None:
    wrong = {
        (str(recording), view.metadata.get("statusCode"))
        for recording, view in each_view(framework, mode)
        if view.metadata.get("statusCode") != truth.expected_status(recording)
    }
    assert wrong == set()


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_address_is_the_clients_or_none(framework: str, mode: str) -> None:
    wrong = {
        (str(recording), view.ip_address)
        for recording, view in each_view(framework, mode)
        if view.ip_address != truth.expected_address(recording)
    }
    assert wrong == set()


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_nothing_of_a_query_string_or_credential_leaves(framework: str, mode: str) -> None:
    for recording in recordings(framework, mode):
        for event in events_of(recording):
            body = encode(event).body.decode()
            for secret in (*truth.SECRETS, *truth.query_parts(recording)):
                assert secret not in body, str(recording)


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_every_body_is_within_the_contract(framework: str, mode: str) -> None:
    for recording in recordings(framework, mode):
        for event in events_of(recording):
            body = json.loads(encode(event).body)
            assert None not in {value for value in body.values() if not isinstance(value, dict)}
            assert body["metadata"]["eventId"] == event.event_id
            if event.kind is Kind.VIEW:
                assert_view(body)


def assert_view(body: dict[str, object]) -> None:
    assert (body["contentType"], body["deviceType"], body["app"]) == ("post", "desktop", "shop")
    if "ipAddress" in body:
        ip_address(str(body["ipAddress"]))
    assert ("duration" in body) != str(body["contentId"]).startswith("WS:")
    assert float(str(body.get("duration", 0))) >= 0


@pytest.mark.parametrize(("framework", "mode"), ALL)
def test_orders_are_a_purchase_by_their_user_and_a_message(framework: str, mode: str) -> None:
    orders = [r for r in recordings(framework, mode) if "order" in r.request["id"] and len(r.spans) > 1]
    orders += [r for r in recordings(framework, mode) if r.request["id"] == "unary_events"]
    for recording in orders:
        events = events_of(recording)
        engagements = [event for event in events if isinstance(event, EngagementEvent)]
        made = {event.metric_type: event for event in engagements}
        assert set(made) == {"purchase", "comment"}, str(recording)
        (view,) = (event for event in events if isinstance(event, ViewEvent))
        assert made["purchase"].target_id == "pay_1"
        assert made["purchase"].user_id == view.user_id == "user-77"
        assert made["comment"].target_id == "msg_9"
    assert orders


def test_event_ids_are_unique_and_the_same_on_every_run() -> None:
    every = [r for framework in FRAMEWORKS for r in load(framework)]
    first = [event.event_id for r in every for event in events_of(r)]
    assert first == [event.event_id for r in every for event in events_of(r)]
    assert len(first) == len(set(first))


@pytest.mark.parametrize(("hops", "address"), [(1, "198.51.100.2"), (2, "203.0.113.7")])
@pytest.mark.parametrize("framework", ["fastapi", "starlette", "flask", "django_wsgi"])
def test_captured_forwarded_headers_count_from_the_right(framework: str, hops: int, address: str) -> None:
    recorded = [r for r in load(framework) if r.variant == "capture_headers"]
    forwarded = [r for r in recorded if r.request["id"] == "forwarded_phone"]
    assert len(forwarded) == len(MODES)
    for recording in forwarded:
        (view,) = views_of(recording, trusted_proxy_hops=hops)
        assert view.ip_address == address


@pytest.mark.parametrize(
    ("request_id", "device", "bot"),
    [("android_ua", "mobile", None), ("bot_ua", "bot", True), ("get_item", "desktop", None)],
)
@pytest.mark.parametrize("framework", ["fastapi", "starlette", "flask", "django_wsgi"])
def test_device_and_bot_are_read_from_the_user_agent(
    framework: str, request_id: str, device: str, bot: bool | None
) -> None:
    for recording in (r for r in load(framework) if r.request["id"] == request_id):
        (view,) = views_of(recording, device_type="auto")
        assert (view.device_type, view.metadata.get("bot")) == (device, bot)
