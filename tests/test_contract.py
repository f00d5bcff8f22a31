"""The four methods of the contract's own client, each request byte by byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_analytics import AnalyticsClient, __version__
from otel_analytics.testing import FaultyCollector, ReceivedRequest

KEY = "wk_4711"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ADDED = rf'"eventId":"{UUID}","timestamp":"{MOMENT}"'

Track = Callable[[AnalyticsClient], None]


@pytest.fixture
def collector() -> Iterator[FaultyCollector]:
    with FaultyCollector() as running:
        yield running


def received(collector: FaultyCollector, track: Track, **options: Any) -> ReceivedRequest:
    with AnalyticsClient(collector.url, **{"app_name": "shop", "write_key": KEY, **options}) as client:
        track(client)
        assert client.flush()
    (request,) = collector.requests
    return request


def view(client: AnalyticsClient) -> None:
    client.track_view(
        content_id="p-7", content_type="product", session_id="s-1", device_type="mobile", user_id="u-1",
        duration=1500, ip_address="203.0.113.7",
    )  # fmt: skip


def bare_view(client: AnalyticsClient) -> None:
    client.track_view(content_id="p-7", content_type="product", session_id="s-1", device_type="mobile")


def engagement(client: AnalyticsClient) -> None:
    client.track_engagement(
        user_id="u-1", metric_type="like", target_id="p-7", target_type="product", metadata={"stars": 5}
    )


def api_call(client: AnalyticsClient) -> None:
    client.track_api_call(
        endpoint="/orders/{id}", method="GET", status_code=200, user_id="u-1", duration=12.0,
        ip_address="203.0.113.7",
    )  # fmt: skip


def business_event(client: AnalyticsClient) -> None:
    client.track_business_event(
        user_id="u-1",
        event_type="payment_processed",
        target_id="o-9",
        metadata={"amount": 9.5, "name": "Żółć"},
    )


BASE_VIEW = (
    '{"contentId":"p-7","contentType":"product","userId":"u-1","sessionId":"s-1","duration":1500,'
    '"ipAddress":"203.0.113.7","deviceType":"mobile","app":"shop"'
)
BASE_API_CALL = (
    r'\{"contentId":"GET:/orders/\{id\}","contentType":"post","userId":"u-1",'
    r'"sessionId":"backend-\d{13}-[0-9a-f]{12}","duration":12,'
    r'"ipAddress":"203\.0\.113\.7","deviceType":"desktop","app":"shop"'
)

BODIES = {
    "view": (view, "view", re.escape(BASE_VIEW) + rf',"metadata":\{{{ADDED}\}}\}}'),
    "view without the optional values": (
        bare_view,
        "view",
        (
            r'\{"contentId":"p-7","contentType":"product","sessionId":"s-1","deviceType":"mobile","app":"shop",'
            rf'"metadata":\{{{ADDED}\}}\}}'
        ),
    ),
    "engagement": (
        engagement,
        "engagement",
        (
            r'\{"userId":"u-1","metricType":"like","targetId":"p-7","targetType":"product",'
            rf'"metadata":\{{"stars":5,{ADDED}\}}\}}'
        ),
    ),
    "API call": (
        api_call,
        "view",
        BASE_API_CALL
        + rf',"metadata":\{{"statusCode":200,"method":"GET","route":"/orders/\{{id\}}",{ADDED}\}}\}}',
    ),
    "business event": (
        business_event,
        "engagement",
        (
            r'\{"userId":"u-1","metricType":"purchase","targetId":"o-9","targetType":"content",'
            rf'"metadata":\{{"amount":9\.5,"name":"Żółć","businessEventType":"payment_processed",{ADDED}\}}\}}'
        ),
    ),
}


@pytest.mark.parametrize(("track", "path", "body"), BODIES.values(), ids=BODIES.keys())
def test_body(collector: FaultyCollector, track: Track, path: str, body: str) -> None:
    request = received(collector, track)
    assert request.path == f"/analytics/track/{path}"
    assert re.fullmatch(body, request.body.decode())


@pytest.mark.parametrize(
    ("track", "body"), [(view, re.escape(BASE_VIEW) + r"\}"), (api_call, BASE_API_CALL + r"\}")]
)
def test_a_bare_view_is_the_base_contract_exactly(
    collector: FaultyCollector, track: Track, body: str
) -> None:
    assert re.fullmatch(body, received(collector, track, view_metadata=False).body.decode())


def test_headers(collector: FaultyCollector) -> None:
    request = received(collector, view)
    event_id = json.loads(request.body)["metadata"]["eventId"]
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-write-key"] == KEY
    assert request.headers["idempotency-key"] == event_id
    assert request.headers["user-agent"] == f"otel-analytics-python/{__version__}"
    assert re.fullmatch(MOMENT, request.headers["x-sent-at"])
    assert "x-retry-count" not in request.headers


def test_no_key_no_header(collector: FaultyCollector) -> None:
    assert "x-write-key" not in received(collector, view, write_key=None).headers


@pytest.mark.parametrize(
    ("event_type", "metric_type"),
    [
        ("message_sent", "comment"),
        ("message_received", "comment"),
        ("stream_started", "subscribe"),
        ("stream_ended", "subscribe"),
        ("payment_processed", "purchase"),
    ],
)
def test_metric_type_of_each_business_event(
    collector: FaultyCollector, event_type: str, metric_type: str
) -> None:
    request = received(collector, lambda client: client.track_business_event("u", event_type, "t"))
    body = json.loads(request.body)
    assert (body["metricType"], body["metadata"]["businessEventType"]) == (metric_type, event_type)


def test_the_base_url_may_have_a_path_and_a_trailing_slash(collector: FaultyCollector) -> None:
    with AnalyticsClient(f"{collector.url}/tenant-1/") as client:
        view(client)
        assert client.flush()
    assert [request.path for request in collector.requests] == ["/tenant-1/analytics/track/view"]
