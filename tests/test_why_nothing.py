"""For each reason why nothing came, the line that says so: the table of the manual, produced."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter, AnalyticsSpanProcessor, identify, track
from otel_analytics.cli.docs import page
from otel_analytics.cli.doctor import opentelemetry_findings
from otel_analytics.cli.explain import explain
from otel_analytics.cli.spans_file import spans_of
from otel_analytics.config import Config
from otel_analytics.mapping.options import options_from_config
from otel_analytics.sdk.autoconfigure import AutoconfiguredSpanExporter
from otel_analytics.testing import Accept, Answer, Behaviour, FaultyCollector

_CALL = {"http.request.method": "POST", "http.route": "/pay", "http.response.status_code": 201}
_INNER = {"name": "charge"}
_SERVER = {"name": "POST /pay", "kind": SpanKind.SERVER, "attributes": _CALL}


_TABLE: Mapping[str, str] = dict(
    re.findall(
        r"^\| (.*?) \| .*? \| `(.*?)` \|$",
        page("accuracy").partition("## Why nothing came")[2],
        re.MULTILINE,
    )
)
"""Each reason of the manual, and its line."""


def _spans(*spans: dict[str, Any], event: str = "", **options: Any) -> Any:
    """Have spans end, each inside the one before it, the last with an event; return that one."""
    with FaultyCollector() as collector:
        processor = AnalyticsSpanProcessor(collector.url, app_name="shop", debug=True, **options)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        started: list[trace.Span] = []
        for span in spans:
            above = trace.set_span_in_context(started[-1]) if started else None
            started.append(provider.get_tracer("shop.queue").start_span(context=above, **span))
        if event:
            started[-1].add_event(event)
        for each in reversed(started):
            each.end()
        processor.shutdown()
        return started[-1]


def _answered(behaviour: Behaviour | None) -> None:
    with FaultyCollector(then=behaviour or Accept()) as collector:
        if behaviour is None:
            collector.stop_listening()
        client = AnalyticsClient(collector.url, app_name="shop", shutdown_timeout_millis=200)
        client.track_api_call("/pay", "POST", 201)
        client.shutdown()


def _late_event() -> None:
    span = _spans(_SERVER)
    with FaultyCollector() as collector:
        processor = AnalyticsSpanProcessor(collector.url)
        span.add_event("payment_processed")
        processor.shutdown()


def _no_server_span() -> Sequence[str]:
    ids = {"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7"}
    span = {**ids, "name": "charge", "kind": 1, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    spans = spans_of(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    return [
        f"{event.what}: none - {event.reason}"
        for explained in explain(spans, options_from_config(Config()))
        for event in explained.events
    ]


def _sampled_out() -> None:
    with FaultyCollector() as collector:
        exporter = AnalyticsSpanExporter(collector.url)
        provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("shop").start_as_current_span("POST /pay", kind=SpanKind.SERVER):
            identify("u-1")
        exporter.shutdown()


def _tracked() -> None:
    with FaultyCollector() as collector:
        exporter = AnalyticsSpanExporter(collector.url)
        track("invoice_paid")
        exporter.shutdown()


def _after_shutdown() -> None:
    client = AnalyticsClient("http://127.0.0.1:9", app_name="shop")
    client.shutdown(0)
    client.track_api_call("/pay", "POST", 201)


def _doctor(**environ: str) -> Sequence[str]:
    return [f"{finding.name}: {finding.text}" for finding in opentelemetry_findings(environ)]


_PRODUCERS: Mapping[str, Callable[[], Any]] = {
    "a setting is wrong": lambda: AutoconfiguredSpanExporter(timeout_millis="soon"),
    "a variable is mistyped": lambda: Config.resolve(environ={"OTEL_EXPORTER_ANALYTICS_ENDPIONT": "a"}),
    "no collector runs": lambda: _answered(None),
    "the key is wrong": lambda: _answered(Answer(401)),
    "the address is wrong": lambda: _answered(Answer(404)),
    "a login form answers": lambda: _answered(Answer(200, b"<html>", {"Content-Type": "text/html"})),
    "the event's name is nearly right": lambda: _spans(_INNER, event="payment_procesed"),
    "the event's name is none of the business events": lambda: _spans(_INNER, event="invoice_paid"),
    "`track` with a name that is none": _tracked,
    "the event was added to a span after its end": _late_event,
    "the span is no server span": _no_server_span,
    "the server span is of no protocol known": lambda: _spans({"name": "job", "kind": SpanKind.SERVER}),
    "nobody calls the function": lambda: _spans({**_SERVER, "attributes": {"faas.trigger": "timer"}}),
    "the request has another server span": lambda: _spans(_SERVER, {**_SERVER, "name": "inner"}),
    "it is ignored": lambda: _spans({**_SERVER, "attributes": {**_CALL, "analytics.ignore": True}}),
    "it is excluded": lambda: _spans(_SERVER, excluded_endpoints=["/pay"]),
    "nobody is known for it": lambda: _spans(_INNER, event="payment_processed", anonymous_user_id=""),
    "tracing samples it out": _sampled_out,
    "it came after the shutdown": _after_shutdown,
    "the environment switches tracing off": lambda: _doctor(OTEL_SDK_DISABLED="true"),
    "the environment asks for another exporter": lambda: _doctor(OTEL_TRACES_EXPORTER="console"),
    "the environment asks for an exporter that is not there": lambda: _doctor(OTEL_METRICS_EXPORTER="carbon"),
}


def test_the_manual_has_a_line_for_each_reason() -> None:
    assert list(_TABLE) == list(_PRODUCERS)


@pytest.mark.parametrize("reason", _PRODUCERS)
def test_the_line_of_the_manual_is_printed(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "otel_analytics")
    said = _PRODUCERS[reason]()
    line = re.compile(re.escape(_TABLE[reason]).replace(r"\.\.\.", ".*"))
    told = (
        said
        if isinstance(said, list)
        else [record.getMessage().removeprefix("otel-analytics: ") for record in caplog.records]
    )
    assert [each for each in told if line.fullmatch(each)], told
