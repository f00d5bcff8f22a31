"""The exporter in real providers and processors."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter, AnalyticsSpanProcessor, ConfigError
from otel_analytics.collector import DevCollector
from otel_analytics.testing import Accept, FaultyCollector, Hang

REQUEST: dict[str, AttributeValue] = {
    "http.request.method": "GET",
    "http.route": "/items/{id}",
    "url.path": "/items/7",
    "url.query": "token=secret",
    "http.response.status_code": 200,
    "client.address": "203.0.113.7",
}


def provider_of(*processors: Any, **options: Any) -> TracerProvider:
    resource = Resource({"service.name": "shop"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, **options)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def serve(tracer: Tracer, *, event: str | None = None) -> None:
    with tracer.start_as_current_span("GET /items/{id}", kind=SpanKind.SERVER, attributes=REQUEST) as span:
        if event:
            span.add_event(event, {"amount": 5})


def ended_spans(count: int) -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    tracer = provider_of(SimpleSpanProcessor(memory)).get_tracer("test")
    for _ in range(count):
        serve(tracer)
    return list(memory.get_finished_spans())


@pytest.fixture
def collector() -> Iterator[FaultyCollector]:
    with FaultyCollector(batch="max=512; bytes=1000000; encoding=gzip") as running:
        yield running


@pytest.mark.parametrize("processor", [BatchSpanProcessor, SimpleSpanProcessor])
def test_a_call_becomes_a_view_and_its_event_an_engagement(
    collector: FaultyCollector, processor: Any
) -> None:
    exporter = AnalyticsSpanExporter(collector.url, write_key="wk_1")
    provider = provider_of(processor(exporter))
    serve(provider.get_tracer("test"), event="payment_processed")
    provider.shutdown()
    (view,), (engagement,) = collector.bodies("view"), collector.bodies("engagement")
    assert view["contentId"] == "GET:/items/{id}"
    assert view["app"] == "shop"
    assert view["metadata"]["statusCode"] == 200
    assert (engagement["metricType"], engagement["targetId"]) == ("purchase", "GET:/items/{id}")
    assert engagement["metadata"]["amount"] == 5
    assert "secret" not in "".join(request.body.decode() for request in collector.requests)


def test_twenty_thousand_spans_arrive_once_each() -> None:
    with DevCollector() as collector:
        exporter = AnalyticsSpanExporter(collector.url)
        provider = provider_of(BatchSpanProcessor(exporter, max_queue_size=20_000, schedule_delay_millis=100))
        tracer = provider.get_tracer("test")
        for _ in range(20_000):
            serve(tracer)
        provider.force_flush()
        assert exporter.force_flush(60_000)
        stats = collector.stats()
        assert (stats.received, stats.stored, stats.duplicates) == (20_000, 20_000, 0)
        assert exporter.client.stats().delivered == 20_000
        provider.shutdown()


def test_two_exporters_of_one_span_give_one_id(collector: FaultyCollector) -> None:
    provider = provider_of(*(BatchSpanProcessor(AnalyticsSpanExporter(collector.url)) for _ in range(2)))
    serve(provider.get_tracer("test"), event="message_sent")
    provider.shutdown()
    assert sorted(collector.event_ids().values()) == [2, 2]


def test_export_from_several_threads(collector: FaultyCollector) -> None:
    exporter = AnalyticsSpanExporter(collector.url)
    parts = [ended_spans(25) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda spans=spans: [exporter.export([span]) for span in spans])
        for spans in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exporter.shutdown()
    assert len(collector.event_ids()) == 200
    assert set(collector.event_ids().values()) == {1}


@pytest.mark.parametrize("spans", [1, 512])
def test_export_returns_at_once_while_the_collector_hangs(spans: int) -> None:
    with FaultyCollector(then=Hang(millis=30_000)) as hanging:
        exporter = AnalyticsSpanExporter(hanging.url)
        ended = ended_spans(spans)
        started = time.monotonic()
        assert exporter.export(ended) is SpanExportResult.SUCCESS
        assert time.monotonic() - started < 0.5
        started = time.monotonic()
        assert not exporter.force_flush(200)
        exporter.shutdown(timeout_millis=200)
        assert time.monotonic() - started < 1.5
        stats = exporter.client.stats()
    assert stats.dropped == {"shutdown": spans}


def test_nothing_after_shutdown(collector: FaultyCollector) -> None:
    exporter = AnalyticsSpanExporter(collector.url)
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export(ended_spans(1)) is SpanExportResult.FAILURE
    assert exporter.force_flush()
    assert collector.requests == []


def test_a_shared_client_stays_open(collector: FaultyCollector) -> None:
    with AnalyticsClient(collector.url, app_name="shop") as client:
        exporter = AnalyticsSpanExporter(client=client)
        exporter.export(ended_spans(1))
        exporter.shutdown()
        assert len(collector.bodies()) == 1
        client.track_api_call("/later", "GET", 200)
        assert client.flush()
        assert len(collector.bodies()) == 2


def test_a_client_and_options_contradict_each_other() -> None:
    with AnalyticsClient() as client, pytest.raises(ConfigError, match="either a client or options"):
        AnalyticsSpanExporter(client=client, batching="off")


def test_a_span_that_cannot_be_mapped_takes_no_other_along(collector: FaultyCollector) -> None:
    exporter = AnalyticsSpanExporter(collector.url)
    exporter.export([object(), *ended_spans(2)])  # type: ignore[list-item]
    exporter.shutdown()
    stats = exporter.client.stats()
    assert (stats.delivered, stats.dropped) == (2, {"invalid": 1})


def test_events_lost_to_span_limits_are_named(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = AnalyticsSpanExporter(collector.url)
    provider = provider_of(SimpleSpanProcessor(exporter), span_limits=SpanLimits(max_events=2))
    with provider.get_tracer("test").start_as_current_span("work") as span:
        for _ in range(5):
            span.add_event("message_sent")
    provider.shutdown()
    assert len(collector.bodies("engagement")) == 2
    assert exporter.client.stats().noted == {"span_limits": 3}
    assert "OTEL_SPAN_EVENT_COUNT_LIMIT" in caplog.text
    assert "3 in all" in caplog.text


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.INTERNAL])
@pytest.mark.parametrize("adapter", [AnalyticsSpanExporter, AnalyticsSpanProcessor])
def test_events_that_no_span_may_have_are_named_too(
    adapter: type[Any], kind: SpanKind, collector: FaultyCollector
) -> None:
    analytics = adapter(collector.url)
    processor = SimpleSpanProcessor(analytics) if adapter is AnalyticsSpanExporter else analytics
    provider = provider_of(processor, span_limits=SpanLimits(max_events=0))
    tracer = provider.get_tracer("test")
    for name in ("seen", "known"):  # what is known of a call is found once
        with tracer.start_as_current_span("GET", kind=kind, attributes=REQUEST) as span:
            span.add_event("message_sent", {"of": name})
    provider.shutdown()
    assert analytics.client.stats().noted == {"span_limits": 2}


def test_spans_without_a_trace_are_not_remembered(collector: FaultyCollector) -> None:
    """Their invalid context is one for all: each stands alone, and none keeps another's place."""
    exporter = AnalyticsSpanExporter(collector.url)
    resource = Resource({"service.name": "shop"})
    for number in range(1, 21):
        context = SpanContext(0, number, is_remote=False)
        span = ReadableSpan(
            "GET",
            context,
            kind=SpanKind.SERVER,
            attributes=REQUEST,
            resource=resource,
            start_time=number * 10**9,
            end_time=(number + 1) * 10**9,
        )
        exporter.export([span])
    exporter.shutdown()
    views = collector.bodies("view")
    assert len(views) == 20
    assert not any("traceId" in view["metadata"] for view in views)
    assert not exporter._intake._state().requests._lone


@pytest.fixture
def traced_httpx() -> Iterator[InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    HTTPXClientInstrumentor().instrument(tracer_provider=provider_of(SimpleSpanProcessor(spans)))
    yield spans
    HTTPXClientInstrumentor().uninstrument()


def test_our_own_requests_leave_no_spans(
    collector: FaultyCollector, traced_httpx: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exporter = AnalyticsSpanExporter(collector.url)
    provider = provider_of(BatchSpanProcessor(exporter))
    serve(provider.get_tracer("test"))
    provider.force_flush()
    assert exporter.force_flush()
    provider.shutdown()
    assert len(collector.requests) == 1
    assert "traceparent" not in collector.requests[0].headers
    assert traced_httpx.get_finished_spans() == ()
    assert "httpx" not in {record.name for record in caplog.records}
    httpx.get(collector.url)
    assert len(traced_httpx.get_finished_spans()) == 1, "the application's own requests are traced as ever"


def test_a_full_queue_waits_a_moment_for_a_collector_that_is_taking_events() -> None:
    with FaultyCollector(then=Accept(after_millis=2), batch="max=50") as busy:
        exporter = AnalyticsSpanExporter(busy.url, max_queue_size=100, flush_interval_millis=5)
        spans = ended_spans(600)
        for start in range(0, 600, 50):
            exporter.export(spans[start : start + 50])
        exporter.shutdown()
        assert len(busy.event_ids()) == 600


@pytest.mark.parametrize(
    ("attributes", "options", "reason"),
    [
        ({"analytics.ignore": True}, {}, "ignored"),
        ({}, {"excluded_endpoints": ["/items/*"]}, "excluded"),
    ],
)
def test_what_is_deliberately_left_out_is_counted_and_not_logged(
    collector: FaultyCollector,
    attributes: dict[str, Any],
    options: dict[str, Any],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = AnalyticsSpanExporter(collector.url, **options)
    tracer = provider_of(SimpleSpanProcessor(exporter)).get_tracer("test")
    with tracer.start_span("GET", kind=SpanKind.SERVER, attributes={**REQUEST, **attributes}):
        pass
    exporter.shutdown()
    assert exporter.client.stats().dropped == {reason: 1}
    assert collector.requests == []
    assert caplog.text == ""


def test_one_raw_endpoint_too_many_is_folded_and_noted(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = AnalyticsSpanExporter(collector.url, max_endpoints=2)
    tracer = provider_of(SimpleSpanProcessor(exporter)).get_tracer("test")
    for path in ("/a", "/b", "/c", "/a", "/d"):
        attributes = {"http.request.method": "GET", "url.path": path, "http.response.status_code": 200}
        tracer.start_span("GET", kind=SpanKind.SERVER, attributes=attributes).end()
    exporter.shutdown()
    endpoints = Counter(body["contentId"] for body in collector.bodies())
    assert endpoints == {"GET:/a": 2, "GET:/b": 1, "GET:{other}": 2}
    assert exporter.client.stats().noted == {"endpoints_folded": 2}
    assert "max_endpoints" in caplog.text


def test_names_that_are_nearly_business_events_are_noted(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = AnalyticsSpanExporter(collector.url)
    tracer = provider_of(SimpleSpanProcessor(exporter)).get_tracer("test")
    for _ in range(2):
        with tracer.start_span("charge") as span:
            span.add_event("payment_process")
    assert exporter.client.stats().noted == {"near_misses": 2}
    assert "'payment_process' (payment_processed?)" in caplog.text
    assert len(caplog.records) == 1
    exporter.shutdown()


NOTHINGS = [
    ({"kind": SpanKind.SERVER}, (), "unknown_protocol", "INFO", "'shop.queue' gives no view"),
    ({"kind": SpanKind.SERVER, "attributes": {"faas.trigger": "timer", "faas.name": "f"}}, (), "", "", ""),
    ({"kind": SpanKind.CONSUMER}, (), "", "", ""),
    ({}, ("cache_hit", "cache_hit user-4711"), "not_business_events", "DEBUG", "'cache_hit' is not among"),
    ({}, ("payment_procesed",), "near_misses", "WARNING", "'payment_procesed' (payment_processed?)"),
    ({}, ("exception", "message", "gen_ai.choice"), "", "", ""),
]


@pytest.mark.parametrize(("span", "events", "noted", "level", "line"), NOTHINGS)
def test_what_gives_nothing_is_counted_and_each_name_of_it_told_once(
    collector: FaultyCollector,
    caplog: pytest.LogCaptureFixture,
    span: dict[str, Any],
    events: Sequence[str],
    noted: str,
    level: str,
    line: str,
) -> None:
    caplog.set_level(logging.DEBUG, "otel_analytics")
    exporter = AnalyticsSpanExporter(collector.url)
    tracer = provider_of(SimpleSpanProcessor(exporter)).get_tracer("shop.queue")
    for _ in range(3):
        started = tracer.start_span("work 4711", **span)
        for name in events:
            started.add_event(name, {"card": "4929"})
        started.end()
    counted = 3 * max(len(events), 1)
    assert exporter.client.stats().noted == ({noted: counted} if noted else {})
    told = _lines(caplog)
    assert len(told) == (max(len(events), 1) if noted else 0)
    assert [each[0] for each in told] == [level] * len(told)
    assert not noted or line in told[0][1]
    assert "4711" not in caplog.text
    assert "4929" not in caplog.text
    exporter.shutdown()


def test_what_gave_nothing_is_counted_in_its_own_process(collector: FaultyCollector) -> None:
    processor = AnalyticsSpanProcessor(collector.url)
    tracer = provider_of(processor).get_tracer("shop")
    for _ in range(2):
        with tracer.start_as_current_span("work") as span:
            span.add_event("cache_hit")
    child = os.fork()
    if not child:
        with tracer.start_as_current_span("work") as span:
            span.add_event("cache_hit")
        os._exit(processor.client.stats().noted["not_business_events"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert processor.client.stats().noted == {"not_business_events": 2}
    processor.shutdown()


def test_of_many_names_the_first_are_told(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "otel_analytics")
    exporter = AnalyticsSpanExporter(collector.url)
    with provider_of(SimpleSpanProcessor(exporter)).get_tracer("shop").start_as_current_span("work") as span:
        for number in range(100):
            span.add_event("".join(chr(ord("a") + int(digit)) * 3 for digit in str(number)))
    assert exporter.client.stats().noted == {"not_business_events": 100}
    assert len(_lines(caplog)) == 8
    exporter.shutdown()


@pytest.mark.parametrize("adapter", [AnalyticsSpanExporter, AnalyticsSpanProcessor])
@pytest.mark.parametrize("hook", [None, lambda event: event], ids=["encoded", "objects"])
def test_debug_says_of_each_span_what_it_gave_or_why_nothing(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture, adapter: Any, hook: Any
) -> None:
    made = adapter(
        collector.url, debug=True, excluded_endpoints=["/health"], anonymous_user_id="", before_send=hook
    )
    tracer = provider_of(made if adapter is AnalyticsSpanProcessor else SimpleSpanProcessor(made)).get_tracer(
        "shop"
    )
    call: dict[str, Any] = {"kind": SpanKind.SERVER, "attributes": REQUEST}
    for span, events in (
        ({"name": "GET /users/4711", **call}, ("payment_processed", "cache_hit", "exception")),
        ({"name": "again", **call}, ()),
        ({"name": "ignored", **call, "attributes": {**REQUEST, "analytics.ignore": True}}, ()),
        ({"name": "health", **call, "attributes": {"http.method": "GET", "http.route": "/health"}}, ()),
        ({"name": "queue", "kind": SpanKind.SERVER}, ()),
        ({"name": "timer", "kind": SpanKind.SERVER, "attributes": {"faas.trigger": "timer"}}, ()),
        ({"name": "charge"}, ("payment_procesed", "paid")),
        ({"name": "query", "kind": SpanKind.CLIENT}, ()),
    ):
        started = tracer.start_span(**span)
        for name in events:
            own = {"analytics.metric_type": "purchase", "user.id": "ann@a.example"} if name == "paid" else {}
            started.add_event(name, {"card": "4929", **own})
        started.end()
    with tracer.start_as_current_span("outer", **call), tracer.start_as_current_span("inner", **call):
        pass
    made.shutdown()
    told = [line.removeprefix("otel-analytics: ") for _, line in _lines(caplog) if "span '" in line]
    assert told == [
        (
            "server span 'GET /users/{id}': cache_hit: none - not among business events, and it carries no"
            " analytics.metric_type"
        ),
        "server span 'GET /users/{id}': view: GET:/items/{id}",
        (
            "server span 'GET /users/{id}': payment_processed: none - nobody is known for it, and"
            " anonymous_user_id is empty"
        ),
        "server span 'again': view: GET:/items/{id}",
        "server span 'ignored': view: none - it carries analytics.ignore",
        "server span 'health': view: none - excluded by the option excluded_endpoints",
        (
            "server span 'queue': view: none - a server span of no protocol known: no attributes of HTTP,"
            " RPC, MCP or a called function"
        ),
        (
            "server span 'timer': view: none - a function that nobody calls: a timer, a message or a change"
            " of data has started it"
        ),
        (
            "internal span 'charge': payment_procesed: none - not among business events: did you mean"
            " payment_processed?"
        ),
        "internal span 'charge': paid: purchase",
        "server span 'inner': view: none - the same request as another server span, which has the view",
        "server span 'outer': view: GET:/items/{id}",
    ]
    assert not {"4929", "4711", "ann", "203.0"} & set(caplog.text.replace("@", " ").split())


def _lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize(("adapter", "seen"), [
    (AnalyticsSpanExporter, "sampled spans only"), (AnalyticsSpanProcessor, "unsampled calls "),
])  # fmt: skip
@pytest.mark.parametrize("service", ["shop", ""])
def test_in_code_the_start_is_told_with_the_first_event_by_its_services_name(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture, adapter: Any, seen: str, service: str
) -> None:
    caplog.set_level(logging.INFO)
    made = adapter(collector.url)
    provider = TracerProvider(resource=Resource({"service.name": service} if service else {}))
    provider.add_span_processor(made if adapter is AnalyticsSpanProcessor else SimpleSpanProcessor(made))
    assert _lines(caplog) == []
    for _ in range(2):
        serve(provider.get_tracer("test"))
        assert made.force_flush(5_000)
    made.shutdown()
    told = dict(reversed(_lines(caplog)))
    assert len(_lines(caplog)) == (2 if service else 3)
    assert f"analytics{' of shop' * bool(service)} go to {collector.url} (" in told["INFO"]
    assert seen in told["INFO"]
    assert ("app_name" in told.get("WARNING", "")) == (not service)


def test_a_client_without_a_name_says_so_with_its_first_view(
    collector: FaultyCollector, caplog: pytest.LogCaptureFixture
) -> None:
    client = AnalyticsClient(collector.url)
    client.track_business_event("u-1", "payment_processed", "order-1")
    assert _lines(caplog) == []
    client.track_api_call("/a", "GET", 200)
    client.track_api_call("/a", "GET", 200)
    client.shutdown()
    ((level, line),) = _lines(caplog)
    assert level == "WARNING"
    assert "no name" in line
