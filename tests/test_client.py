"""What callers of `AnalyticsClient` can rely on."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

import pytest

from otel_analytics import AnalyticsClient, BusinessEvent, ConfigError, EngagementEvent, LedgerSnapshot
from otel_analytics.testing import Accept, FaultyCollector, Hang

KEY = "wk_secret_4711"


class Strange:
    """A value whose text is an exception."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "arguments",
    [
        {"content_id": None, "content_type": "x"},
        {"content_id": "", "content_type": "x"},
        {"content_id": Strange(), "content_type": "x"},
        {"content_id": "p", "content_type": None},
    ],
)
def test_what_makes_no_event_is_counted_and_never_raised(arguments: dict[str, Any]) -> None:
    with AnalyticsClient("http://127.0.0.1:9") as client:
        client.track_view(**arguments)
        assert client.stats() == LedgerSnapshot(accepted=1, dropped={"invalid": 1})


def test_an_unknown_business_event_is_counted_and_never_raised() -> None:
    with AnalyticsClient("http://127.0.0.1:9") as client:
        client.track_business_event("u", "paymnet_processed", "t")
        assert client.stats().dropped == {"invalid": 1}


SWAPPED = {
    "track_business_event": (
        ("payment_processed", "someone", "order-42"),
        "user_id='payment_processed' is the name of a business event",
    ),
    "track_engagement": (
        ("someone", "order-42", "purchase", "content"),
        "target_id='purchase' is a metric type",
    ),
    "track_api_call": (("GET", "/someone", 200), "endpoint='GET' is a method, method is a path"),
    "track_view": (("p-1", "product", "desktop", "someone"), "session_id='desktop' is a device type"),
}


@pytest.mark.parametrize("method", SWAPPED)
def test_swapped_arguments_are_named(method: str, caplog: pytest.LogCaptureFixture) -> None:
    arguments, said = SWAPPED[method]
    with AnalyticsClient("http://127.0.0.1:9") as client:
        getattr(client, method)(*arguments)
        assert client.stats().noted["swapped_arguments"] == 1
        assert client.stats().dropped == ({"invalid": 1} if method == "track_business_event" else {})
    assert f"{method}: {said}" in caplog.text
    assert "someone" not in caplog.text


def test_a_text_where_a_number_is_meant_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with AnalyticsClient("http://127.0.0.1:9") as client:
        client.track_api_call("/a", "GET", "someone")  # type: ignore[arg-type]
        client.track_view("p", "product", "visit", "desktop", "user-7", "someone")  # type: ignore[arg-type]
        assert client.stats().noted["swapped_arguments"] == 2
    assert "track_api_call: status_code is a text, no number" in caplog.text
    assert "someone" not in caplog.text


def test_arguments_in_their_own_places_are_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    with AnalyticsClient("http://127.0.0.1:9") as client:
        client.track_api_call("/a", "GET", 200, "user-7", 12.5)
        client.track_view("desktop", "desktop", "visit", "mobile", "user-7", "12.5")  # type: ignore[arg-type]
        client.track_engagement("purchase", "purchase", "purchase", "content")
        client.track_engagement("u", "signup", "t", "content")
        client.track_business_event("payment_processed", "payment_processed", "t")
        assert "swapped_arguments" not in client.stats().noted
    assert "places" not in caplog.text


def test_an_event_made_by_hand_that_cannot_be_encoded_is_counted() -> None:
    broken = EngagementEvent("id", "2026-01-01T00:00:00.000Z", "", "m", "t")
    with AnalyticsClient("http://127.0.0.1:9") as client:
        client.submit([broken])
        assert client.stats().dropped == {"invalid": 1}


VALUES = {
    "nan": float("nan"),
    "bytes": b"\xff",
    "sets": {1: {2, 3}},
    "surrogate": "\ud800",
    "huge": 10**5000,
    "strange": Strange(),
    "object": object(),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_any_metadata_is_delivered(value: Any) -> None:
    with FaultyCollector() as collector, AnalyticsClient(collector.url) as client:
        client.track_engagement("u", "m", "t", "content", {"value": value, "kept": "yes"})
        assert client.flush()
        (body,) = collector.bodies("engagement")
    assert body["metadata"]["kept"] == "yes"


def test_numbers_are_ids_too() -> None:
    with FaultyCollector() as collector, AnalyticsClient(collector.url) as client:
        client.track_business_event(user_id=42, event_type="message_sent", target_id=7)  # type: ignore[arg-type]
        assert client.flush()
        (body,) = collector.bodies("engagement")
    assert (body["userId"], body["targetId"]) == ("42", "7")


def test_strangers_are_not_one_user_unless_a_text_is_given_for_them() -> None:
    with FaultyCollector() as collector:
        with (
            AnalyticsClient(collector.url) as client,
            AnalyticsClient(collector.url, anonymous_user_id="somebody") as fixed,
        ):
            for _ in range(3):
                client.track_engagement(None, "m", "t", "content")
            fixed.track_engagement(None, "m", "t", "content")
        users = {body["userId"] for body in collector.bodies("engagement")}
    assert len(users) == 4
    assert "somebody" in users
    assert all(user.startswith("anonymous-") for user in users - {"somebody"})


def test_nobody_is_dropped_where_there_is_no_anonymous_user() -> None:
    with AnalyticsClient("http://127.0.0.1:9", anonymous_user_id="") as client:
        client.track_engagement(None, "m", "t", "content")
        assert client.stats().dropped == {"anonymous": 1}


def test_business_events_of_ones_own() -> None:
    own: dict[str, str | BusinessEvent] = {
        "invoice_paid": "purchase",
        "seat_added": BusinessEvent("subscribe", target_type="account"),
    }
    with FaultyCollector() as collector, AnalyticsClient(collector.url, business_events=own) as client:
        client.track_business_event("u", "invoice_paid", "i-1")
        client.track_business_event("u", "seat_added", "a-1")
        assert client.flush()
        bodies = collector.bodies("engagement")
    assert sorted((body["metricType"], body["targetType"]) for body in bodies) == [
        ("purchase", "content"),
        ("subscribe", "account"),
    ]


def test_tracking_does_not_wait_for_a_hanging_collector() -> None:
    with FaultyCollector(then=Hang(millis=30_000)) as collector:
        client = AnalyticsClient(collector.url, max_queue_size=50)
        slowest = 0.0
        for _ in range(200):
            started = time.perf_counter()
            client.track_api_call("/a", "GET", 200)
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 0.5
        assert not client.shutdown(100)
        stats = client.stats()
    assert stats.accepted == 200
    assert sum(stats.dropped.values()) == 200
    assert stats.dropped["queue_full"] >= 100


def test_flush_says_whether_everything_arrived() -> None:
    with FaultyCollector(Hang(millis=30_000)) as collector:
        client = AnalyticsClient(collector.url, timeout_millis=60_000)
        client.track_api_call("/a", "GET", 200)
        started = time.monotonic()
        assert not client.flush(150)
        assert 0.1 < time.monotonic() - started < 2
        assert not client.shutdown(0)


def test_flush_of_nothing_is_at_once_and_makes_no_request() -> None:
    with FaultyCollector() as collector, AnalyticsClient(collector.url) as client:
        assert client.flush(0)
        assert collector.requests == []


def test_nothing_after_shutdown() -> None:
    with FaultyCollector() as collector:
        client = AnalyticsClient(collector.url)
        client.track_api_call("/a", "GET", 200)
        assert client.shutdown()
        client.track_api_call("/b", "GET", 200)
        assert client.shutdown()
        assert client.flush()
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]
        assert client.stats() == LedgerSnapshot(2, 1, {"after_shutdown": 1}, 0)


def test_batches_after_the_advertisement() -> None:
    with FaultyCollector(batch="max=100; bytes=1000000") as collector:
        with AnalyticsClient(collector.url) as client:
            for number in range(250):
                client.track_api_call(f"/{number}", "GET", 200)
            assert client.flush()
        sizes = [len(json.loads(r.body)) for r in collector.requests if r.body.startswith(b"[")]
        assert max(sizes) == 100
        assert len(collector.requests) < 10
        assert set(collector.event_ids().values()) == {1}
        assert len(collector.event_ids()) == 250


def test_single_events_use_several_connections() -> None:
    with FaultyCollector(then=Accept(after_millis=20)) as collector:
        with AnalyticsClient(collector.url, max_connections=4) as client:
            for number in range(60):
                client.track_api_call(f"/{number}", "GET", 200)
            assert client.flush()
        assert len(collector.bodies()) == 60
        assert 1 < collector.connections <= 4


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyCollector() as collector:
        with AnalyticsClient(collector.url, write_key=KEY, debug=True) as client:
            client.track_api_call("/a", "GET", 200)
            assert client.flush()
            shown = [repr(client), repr(client.config), repr(vars(client)), str(client.stats())]
        assert collector.requests[0].headers["x-write-key"] == KEY
    assert KEY not in caplog.text
    assert not any(KEY in text for text in shown)
    with pytest.raises(ConfigError) as raised:
        AnalyticsClient(write_key=KEY + "\n")
    assert KEY not in str(raised.value)


def test_httpx_logs_no_line_at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with FaultyCollector() as collector, AnalyticsClient(collector.url) as client:
        client.track_api_call("/a", "GET", 200)
        assert client.flush()
    assert [record.name for record in caplog.records if record.name.startswith("http")] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_delivers_its_own_events_and_the_parent_its_own() -> None:
    with FaultyCollector() as collector:
        client = AnalyticsClient(collector.url)
        client.track_api_call("/parent-before", "GET", 200)
        pid = os.fork()
        if pid == 0:
            client.track_api_call("/child", "GET", 200)
            os._exit(0 if client.flush(5000) and client.stats().delivered == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client.track_api_call("/parent-after", "GET", 200)
        assert client.shutdown()
        assert sorted(body["contentId"] for body in collector.bodies()) == [
            "GET:/child",
            "GET:/parent-after",
            "GET:/parent-before",
        ]
