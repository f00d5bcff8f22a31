"""Log-based events: records with a name become the same engagements, joined through their trace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from otel_analytics import (
    AnalyticsClient,
    AnalyticsLogRecordExporter,
    AnalyticsSpanExporter,
    AnalyticsSpanProcessor,
)
from otel_analytics.testing import FaultyCollector

ROUTE: dict[str, str | int] = {
    "http.request.method": "POST",
    "http.route": "/pay",
    "http.response.status_code": 200,
}


class Shop:
    """Traces and logs of one application, on one client."""

    def __init__(self, collector: FaultyCollector, spans: Any, logs: Any) -> None:
        self.collector = collector
        self.client = AnalyticsClient(collector.url, flush_interval_millis=10)
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(spans(self.client))
        self.logs = LoggerProvider(shutdown_on_exit=False)
        self.logs.add_log_record_processor(logs(AnalyticsLogRecordExporter(client=self.client)))
        self.log = logging.Logger("shop")  # noqa: LOG001 - no other test hears it
        self.log.addHandler(LoggingHandler(logger_provider=self.logs))
        self.tracer = self.traces.get_tracer("shop")

    def happen(self, name: str, **attributes: Any) -> None:
        """Emit a log-based event as the application's logging does."""
        self.log.info("it happened", extra={"event.name": name, **attributes})

    def engagements(self) -> list[dict[str, Any]]:
        assert self.logs.force_flush()
        assert self.traces.force_flush()
        assert self.client.flush(10_000)
        return self.collector.bodies("engagement")


SPANS = {
    "processor": lambda client: AnalyticsSpanProcessor(client=client),
    "batch": lambda client: BatchSpanProcessor(AnalyticsSpanExporter(client=client)),
}
LOGS = {"simple": SimpleLogRecordProcessor, "batch": BatchLogRecordProcessor}


@pytest.fixture(params=[(spans, logs) for spans in SPANS for logs in LOGS], ids="-".join)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    spans, logs = request.param
    with FaultyCollector() as collector:
        opened = Shop(collector, SPANS[spans], LOGS[logs])
        yield opened
        opened.logs.shutdown()
        opened.traces.shutdown()
        opened.client.shutdown(0)


def test_a_record_is_an_engagement_of_its_request(shop: Shop) -> None:
    with shop.tracer.start_as_current_span("POST /pay", kind=SpanKind.SERVER, attributes=ROUTE) as server:
        with shop.tracer.start_as_current_span("charge"):
            shop.happen("payment_processed", amount=12.5)
        server.set_attribute("user.id", "u-1")
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["metricType"], payment["targetId"]) == ("u-1", "purchase", "POST:/pay")
    assert payment["metadata"]["amount"] == 12.5
    assert payment["metadata"]["businessEventType"] == "payment_processed"
    assert payment["metadata"]["traceId"] == f"{server.get_span_context().trace_id:032x}"
    assert "event.name" not in payment["metadata"]


def test_a_record_outside_of_any_trace_arrives(shop: Shop) -> None:
    shop.happen("payment_processed", **{"user.id": "u-1"})
    (payment,) = shop.engagements()
    assert payment["userId"] == "u-1"
    assert "traceId" not in payment["metadata"]


def test_the_fields_of_the_events_api(shop: Shop) -> None:
    api = pytest.importorskip("opentelemetry._logs")
    record = api.LogRecord(
        timestamp=1_700_000_000_123_000_000, body={"amount": 3}, attributes={"user.id": "u-1"}
    )
    if not hasattr(record, "event_name"):
        pytest.skip("this API's records have no event_name")
    record.event_name = "payment_processed"
    shop.logs.get_logger("shop").emit(record)
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["metadata"]["amount"]) == ("u-1", 3)
    assert payment["metadata"]["timestamp"] == "2023-11-14T22:13:20.123Z"


def test_other_records_are_nothing(shop: Shop) -> None:
    shop.log.warning("a plain line")
    shop.happen("something_else")
    assert shop.engagements() == []


def test_an_event_recorded_both_ways_is_counted_once(shop: Shop) -> None:
    with shop.tracer.start_as_current_span("POST /pay", kind=SpanKind.SERVER, attributes=ROUTE):
        for number in range(3):
            trace.get_current_span().add_event("payment_processed", {"n": number})
            shop.happen("payment_processed", n=number)
        shop.happen("message_sent")
    names = [body["metadata"]["businessEventType"] for body in shop.engagements()]
    assert sorted(names) == ["message_sent", *["payment_processed"] * 3]
    assert shop.client.stats().noted["recorded_twice"] == 3


def test_records_that_come_after_their_span_has_left_are_still_its_doubles(shop: Shop) -> None:
    with shop.tracer.start_as_current_span("POST /pay", kind=SpanKind.SERVER, attributes=ROUTE) as server:
        server.add_event("payment_processed")
    assert len(shop.engagements()) == 1
    with trace.use_span(server):
        shop.happen("payment_processed")
    assert len(shop.engagements()) == 1
