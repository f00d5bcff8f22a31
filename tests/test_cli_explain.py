"""`otel-analytics explain` says what the exporter does with a file's spans, and why not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from otel_analytics.cli.main import main
from otel_analytics.cli.spans_file import spans_of

_OTLP_KINDS = {SpanKind.INTERNAL: 1, SpanKind.SERVER: 2, SpanKind.CLIENT: 3}
_CALL = {
    "http.method": "POST",
    "http.request.method": "POST",
    "http.route": "/orders/{id}",
    "url.path": "/orders/7",
}


def _console(spans: list[ReadableSpan]) -> str:
    out = io.StringIO()
    ConsoleSpanExporter(out=out).export(spans)
    return out.getvalue()


def _otlp(spans: list[ReadableSpan]) -> str:
    return json.dumps({"resourceSpans": [_of_resource(span) for span in spans]})


def _of_resource(span: ReadableSpan) -> dict[str, Any]:
    written = {
        "traceId": f"{span.context.trace_id:032x}",
        "spanId": f"{span.context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": _OTLP_KINDS[span.kind],
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _otlp_attributes(span),
        "events": [
            {"name": event.name, "timeUnixNano": str(event.timestamp), "attributes": _otlp_attributes(event)}
            for event in span.events
        ],
    }
    return {"resource": {"attributes": _otlp_attributes(span.resource)}, "scopeSpans": [{"spans": [written]}]}


def _otlp_attributes(owner: Any) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in owner.attributes.items()
    ]


def _spans(**more: Any) -> list[ReadableSpan]:
    """Return a request whose user its server span names, with a payment on a child, and a mistyped one."""
    ended: list[ReadableSpan] = []

    class _Keep(ConsoleSpanExporter):
        def export(self, spans: Any) -> Any:
            ended.extend(spans)

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_Keep()))
    tracer = provider.get_tracer("test")
    attributes = {**_CALL, "user.id": "u1", **more}
    with (
        tracer.start_as_current_span("POST /orders/{id}", kind=SpanKind.SERVER, attributes=attributes),
        tracer.start_as_current_span("charge") as child,
    ):
        child.add_event("payment_processed", {"order.id": "7", "amount": 3})
        child.add_event("payment_procesed")
    return ended


def _explained(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Return what `--json` says, by span name and what the event is: its fields, or the reason."""
    file = tmp_path / "spans.json"
    file.write_text(text)
    assert main(["explain", "--json", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    return {
        span["name"]: {
            each["what"]: each.get("reason")
            or {field["name"]: (field["value"], field["source"]) for field in each["fields"]}
            for each in span["events"]
        }
        for span in told
    }


@pytest.mark.parametrize("written", [_console, _otlp])
def test_fields_say_the_attribute_they_came_from(
    written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _explained(written(_spans()), tmp_path, capsys)
    view = told["POST /orders/{id}"]["view"]
    assert view["contentId"] == ("POST:/orders/{id}", "http.request.method, http.route")
    assert view["userId"] == ("u1", "user.id")
    paid = told["charge"]["payment_processed"]
    assert paid["userId"] == ("u1", "user.id of span POST /orders/{id}")
    assert paid["targetId"] == ("7", "order.id of the event")
    assert paid["metadata.amount"] == (3, "amount of the event")


def test_what_gave_nothing_has_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _explained(_console(_spans()), tmp_path, capsys)["charge"]
    assert "only server spans" in told["view"]
    assert "did you mean payment_processed?" in told["payment_procesed"]


@pytest.mark.parametrize(
    ("attributes", "reason"), [({"analytics.ignore": True}, "analytics.ignore"), ({}, "no protocol known")]
)
def test_a_server_span_without_a_view_has_a_reason(
    attributes: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, server = _spans(**attributes)
    text = _console([server])
    if not attributes:
        text = text.replace("http.", "other.").replace("url.", "other.")
    assert reason in _explained(text, tmp_path, capsys)["POST /orders/{id}"]["view"]


def test_excluded_by_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_ANALYTICS_EXCLUDED_ENDPOINTS", "/orders/*")
    told = _explained(_console(_spans()), tmp_path, capsys)
    assert "excluded_endpoints" in told["POST /orders/{id}"]["view"]


def test_standard_input_as_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(_otlp(_spans())))
    assert main(["explain", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 spans, 2 events"
    assert "  payment_procesed: none - not among business events: did you mean payment_processed?" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "line 1: no JSON"),
        ("", "no spans"),
        ('{"resourceLogs": []}', "resourceLogs"),
        ('{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}', "cannot be read"),
    ],
)
def test_no_spans_say_so(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spans.json"
    file.write_text(text)
    assert main(["explain", str(file)]) == 1
    assert message in capsys.readouterr().err


def test_a_parent_elsewhere_is_remote() -> None:
    child, _ = _spans()
    (alone,) = spans_of(_console([child]))
    assert alone.parent is not None
    assert alone.parent.is_remote
