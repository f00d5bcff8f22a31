"""Spans as files hold them: OTLP's JSON, or what `ConsoleSpanExporter` prints, one object after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from otel_analytics.errors import AnalyticsError

_KINDS: Final = (
    None,
    SpanKind.INTERNAL,
    SpanKind.SERVER,
    SpanKind.CLIENT,
    SpanKind.PRODUCER,
    SpanKind.CONSUMER,
)
"""By their numbers in OTLP."""
_STATUSES: Final = (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR)
_SAYS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
"""Bits of a span's `flags` in OTLP: whether they say that the parent is remote, and that it is."""
_SHOWN: Final = 40


class SpansFileError(AnalyticsError):
    """A text that holds no spans; the message says where and what it holds instead."""


def spans_of(text: str) -> list[ReadableSpan]:
    """Return the spans that a text holds, each once.

    Args:
        text: OTLP's JSON (an object with ``resourceSpans``), spans as the console exporter prints them, or
            arrays of either; any number, with any white space between them.

    Raises:
        SpansFileError: It is no JSON, or JSON of something else.
    """
    try:
        written = [each for value in _values(text) for each in _written(value)]
        at_hand = {(each["trace_id"], each["span_id"], each["service"]) for each in written}
        return [_span(each, at_hand) for each in written]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
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


def _written(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from _written(each)
    elif isinstance(value, dict) and ("resourceSpans" in value or "resource_spans" in value):
        yield from _of_otlp(value)
    elif isinstance(value, dict) and "span_id" in (value.get("context") or ()):
        yield _of_console(value)
    else:
        found = ", ".join(list(value)[:5]) if isinstance(value, dict) else type(value).__name__
        raise SpansFileError(
            f"neither OTLP's resourceSpans nor a span as the console exporter prints it: {found}"
        )


def _get(owner: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """Return a field of OTLP by its JSON name, or by the name in the protocol, as some tools write it."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    value = owner.get(name, owner.get(snake))
    return default if value is None else value


def _of_otlp(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for of_resource in _get(value, "resourceSpans", []):
        resource = _attributes(_get(of_resource, "resource", {}))
        for of_scope in _get(of_resource, "scopeSpans", []):
            scope = _get(_get(of_scope, "scope", {}), "name", "")
            for span in _get(of_scope, "spans", []):
                yield _of_otlp_span(span, resource, scope)


def _of_otlp_span(span: Mapping[str, Any], resource: Mapping[str, Any], scope: str) -> dict[str, Any]:
    flags = int(_get(span, "flags", 0))
    return {
        "name": span.get("name", ""),
        "trace_id": int(_get(span, "traceId"), 16),
        "span_id": int(_get(span, "spanId"), 16),
        "parent_id": int(_get(span, "parentSpanId", "") or "0", 16),
        "is_remote": bool(flags & _IS_REMOTE) if flags & _SAYS_REMOTE else None,
        "kind": _numbered(_get(span, "kind", 0), _KINDS, "SPAN_KIND_") or SpanKind.INTERNAL,
        "status": _numbered(_get(_get(span, "status", {}), "code", 0), _STATUSES, "STATUS_CODE_"),
        "start": int(_get(span, "startTimeUnixNano", 0)) or None,
        "end": int(_get(span, "endTimeUnixNano", 0)) or None,
        "attributes": _attributes(span),
        "events": [
            Event(each.get("name", ""), _attributes(each), int(_get(each, "timeUnixNano", 0)) or None)
            for each in _get(span, "events", [])
        ],
        "resource": resource,
        "service": resource.get("service.name"),
        "scope": scope,
    }


def _numbered(value: Any, names: Sequence[Any], prefix: str) -> Any:
    """Return what an enumeration of OTLP means, written as its number or its name."""
    if isinstance(value, str) and not value.isdigit():
        return next((each for each in names if each and each.name == value.removeprefix(prefix)), names[0])
    return names[int(value)]


def _attributes(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each.get("value") or {}) for each in _get(owner, "attributes", [])}


def _value(value: Mapping[str, Any]) -> Any:
    for name, read in _VALUES.items():
        found = _get(value, name)
        if found is not None:
            return read(found)
    return None


_VALUES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,
    "doubleValue": float,
    "arrayValue": lambda value: tuple(_value(each) for each in value.get("values", ())),
    "kvlistValue": lambda value: {each["key"]: _value(each["value"]) for each in value.get("values", ())},
    "bytesValue": base64.b64decode,
}


def _of_console(span: Mapping[str, Any]) -> dict[str, Any]:
    resource = (span.get("resource") or {}).get("attributes") or {}
    return {
        "name": span.get("name") or "",
        "trace_id": int(span["context"]["trace_id"], 16),
        "span_id": int(span["context"]["span_id"], 16),
        "parent_id": int(span.get("parent_id") or "0", 16),
        "is_remote": None,
        "kind": SpanKind[str(span.get("kind") or "INTERNAL").rpartition(".")[2]],
        "status": StatusCode[(span.get("status") or {}).get("status_code") or "UNSET"],
        "start": _nanos(span.get("start_time")),
        "end": _nanos(span.get("end_time")),
        "attributes": _tuples(span.get("attributes")),
        "events": [
            Event(each.get("name") or "", _tuples(each.get("attributes")), _nanos(each.get("timestamp")))
            for each in span.get("events") or ()
        ],
        "resource": _tuples(resource),
        "service": resource.get("service.name"),
        "scope": "",
    }


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


def _span(written: Mapping[str, Any], at_hand: set[tuple[Any, ...]]) -> ReadableSpan:
    parent = None
    if written["parent_id"]:
        place = written["trace_id"], written["parent_id"]
        # Where the file does not say: a parent of the same service that is here is in the same process.
        remote = written["is_remote"]
        parent = SpanContext(
            *place, is_remote=(*place, written["service"]) not in at_hand if remote is None else remote
        )
    return ReadableSpan(
        name=written["name"],
        context=SpanContext(written["trace_id"], written["span_id"], is_remote=False),
        parent=parent,
        resource=Resource(written["resource"]),
        attributes=written["attributes"],
        events=written["events"],
        kind=written["kind"],
        status=Status(written["status"]),
        start_time=written["start"],
        end_time=written["end"],
        instrumentation_scope=InstrumentationScope(written["scope"]),
    )
