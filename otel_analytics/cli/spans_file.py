"""Spans as files hold them: OTLP's JSON, or what `ConsoleSpanExporter` prints, one object after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from opentelemetry.trace import SpanKind, Status, StatusCode

from otel_analytics.bridge.otlp import (
    Context,
    DecodedSpan,
    Event,
    OtlpError,
    Scope,
    is_valid,
    request_number,
    resource_of,
    spans_of_json,
)
from otel_analytics.errors import AnalyticsError

_SHOWN: Final = 40


class SpansFileError(AnalyticsError):
    """A text that holds no spans; the message says where and what it holds instead."""


def spans_of(text: str) -> list[DecodedSpan]:
    """Return the spans that a text holds, each once.

    Args:
        text: OTLP's JSON (an object with ``resourceSpans``), spans as the console exporter prints them, or
            arrays of either; any number, with any white space between them.

    Raises:
        SpansFileError: It is no JSON, or JSON of something else.
    """
    values = [each for value in _values(text) for each in _flat(value)]
    try:
        printed = [each for each in values if not _is_otlp(each)]
        at_hand = {(_place(each), _service(each)) for each in printed}
        return [
            span
            for each in values
            for span in (_of_otlp(each) if _is_otlp(each) else [_of_console(each, at_hand)])
        ]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OtlpError) as error:
        raise SpansFileError(f"a span cannot be read: {type(error).__name__}: {str(error)[:100]}") from None


def _values(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    while at < len(text):
        if text[at].isspace() or text[at] == ",":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            line = text.count("\n", 0, at) + 1
            raise SpansFileError(f"line {line}: no JSON: {text[at : at + _SHOWN]!r}") from None
        yield value


def _flat(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, dict) and (_is_otlp(value) or "span_id" in (value.get("context") or ())):
        yield value
    else:
        found = ", ".join(list(value)[:5]) if isinstance(value, dict) else type(value).__name__
        raise SpansFileError(
            f"neither OTLP's resourceSpans nor a span as the console exporter prints it: {found}"
        )


def _is_otlp(value: Mapping[str, Any]) -> bool:
    return "resourceSpans" in value or "resource_spans" in value


def _of_otlp(value: Mapping[str, Any]) -> list[DecodedSpan]:
    spans = spans_of_json(value)
    if not all(is_valid(span) for span in spans):
        raise ValueError("it has no traceId or no spanId")
    return spans


# What the console exporter prints


def _place(span: Mapping[str, Any]) -> tuple[int, int]:
    return int(span["context"]["trace_id"], 16), int(span["context"]["span_id"], 16)


def _service(span: Mapping[str, Any]) -> Any:
    return _resource(span).get("service.name")


def _resource(span: Mapping[str, Any]) -> dict[str, Any]:
    return _tuples((span.get("resource") or {}).get("attributes"))


def _of_console(span: Mapping[str, Any], at_hand: set[Any]) -> DecodedSpan:
    trace_id, span_id = _place(span)
    service = _service(span)
    resource = resource_of(_resource(span))
    above = int(span.get("parent_id") or "0", 16)
    # It does not say which parents are remote: one of the same service that is here is in the same process.
    is_remote = ((trace_id, above), service) not in at_hand
    return DecodedSpan(
        span.get("name") or "",
        SpanKind[str(span.get("kind") or "INTERNAL").rpartition(".")[2]],
        Context(trace_id, span_id, request=request_number(trace_id, resource)),
        Context(trace_id, above, is_remote) if above else None,
        resource,
        Scope(""),
        Status(StatusCode[(span.get("status") or {}).get("status_code") or "UNSET"]),
        _tuples(span.get("attributes")),
        [
            Event(each.get("name") or "", _tuples(each.get("attributes")), _nanos(each.get("timestamp")))
            for each in span.get("events") or ()
        ],
        _nanos(span.get("start_time")),
        _nanos(span.get("end_time")),
    )


def _nanos(text: str | None) -> int | None:
    """Return nanoseconds since the epoch; the console exporter prints microseconds, in UTC."""
    if not text:
        return None
    since = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime.fromisoformat(
        "1970-01-01T00:00:00+00:00"
    )
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _tuples(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return attributes as the SDK holds them, whose sequences are tuples."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in (attributes or {}).items()
    }
