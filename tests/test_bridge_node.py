"""Spans of Node.js, as its own SDK writes them, give the views that an analyst expects of any language.

`otlp/node.jsonl` is what `examples/fleet/node_service` has sent: a line for the older names of HTTP's
attributes, which are the instrumentation's default, and one for the stable ones.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conftest import QuickClient

from otel_analytics.bridge.intake import Intake, Signal
from otel_analytics.bridge.otlp import Encoding
from otel_analytics.testing import FaultyCollector

RECORDED = (Path(__file__).parent / "otlp" / "node.jsonl").read_bytes().splitlines()
NOBODY = None
VIEWS = Counter(
    [
        ("GET:/products/:productId", 200, NOBODY),
        ("POST:/orders/:orderId", 201, "user-7"),
        ("GET:/admin/users/:userId", 200, "user-9"),
        ("GET:/articles/:articleId", 200, NOBODY),
        ("POST:/carts/:cartId/checkout", 201, "user-7"),
        ("GET:/admin/reports/:reportId", 200, "user-9"),
        ("GET:/health", 200, NOBODY),
        *[("GET:/broken", 500, NOBODY), ("GET:{unmatched}", 404, NOBODY)] * 2,
    ]
)
"""Both applications': what was asked for, how it went, and who asked."""


@pytest.mark.parametrize("body", RECORDED, ids=["older names", "stable names"])
def test_calls_of_express_and_fastify_are_views_of_their_routes_by_their_users(
    body: bytes, quick_client: QuickClient
) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url, app_name=None)
        receipt = Intake(client).take(body, Signal.TRACES, Encoding.JSON)
        assert receipt.is_accepted(), "every request is whole"
        assert client.flush(5_000)
        views, payments = collector.bodies("view"), collector.bodies("engagement")
    seen = Counter((view["contentId"], view["metadata"]["statusCode"], view.get("userId")) for view in views)
    assert seen == VIEWS
    assert {view["app"] for view in views} == {"node-shop"}
    assert {view["ipAddress"] for view in views} == {"127.0.0.1"}
    assert all(view["duration"] >= 0 and view["sessionId"] for view in views)
    paid = {(each["userId"], each["metricType"], each["targetId"]) for each in payments}
    assert paid == {("user-7", "purchase", "o-7"), ("user-7", "purchase", "c-8")}
    assert {(each["metadata"]["businessEventType"], each["metadata"]["amount"]) for each in payments} == {
        ("payment_processed", 19.9)
    }
    assert "secret" not in repr((views, payments))
