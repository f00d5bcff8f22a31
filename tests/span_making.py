"""Ended spans for tests of the mapping, made by the SDK itself where it matters."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from otel_analytics.config import Config
from otel_analytics.events import EngagementEvent, ViewEvent
from otel_analytics.mapping.options import options_from_config
from otel_analytics.mapping.spans import SpanMapper

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN_ID = 0x00F067AA0BA902B7
START = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20.123Z
END = START + 12_345_678


def make_span(attributes: Any = None, **fields: Any) -> ReadableSpan:
    """Return a server span, unless ``fields`` say otherwise."""
    values = {
        "name": "GET",
        "kind": SpanKind.SERVER,
        "context": SpanContext(TRACE_ID, SPAN_ID, is_remote=False),
        "resource": Resource({"service.name": "shop"}),
        "instrumentation_scope": InstrumentationScope("opentelemetry.instrumentation.asgi"),
        "status": Status(StatusCode.UNSET),
        "start_time": START,
        "end_time": END,
    }
    return ReadableSpan(attributes=attributes, **{**values, **fields})


def make_event(name: str, attributes: Any = None, time: int = START + 1_000_000) -> Event:
    return Event(name, attributes, time)


def mapper(**options: Any) -> SpanMapper:
    return SpanMapper(options_from_config(Config(**options)))


def view_of(attributes: Any, *, options: dict[str, Any] | None = None, **fields: Any) -> ViewEvent:
    """Return the one view of a server span with these attributes."""
    (view,) = mapper(**(options or {})).map(make_span(attributes, **fields)).events
    assert isinstance(view, ViewEvent)
    return view


def engagement_of(
    event: Event, attributes: Any = None, *, options: dict[str, Any] | None = None, **fields: Any
) -> EngagementEvent:
    """Return the one engagement of an inner span with this event."""
    span = make_span(attributes, **{"kind": SpanKind.INTERNAL, "name": "charge", "events": [event], **fields})
    (engagement,) = mapper(**(options or {})).map(span).events
    assert isinstance(engagement, EngagementEvent)
    return engagement
