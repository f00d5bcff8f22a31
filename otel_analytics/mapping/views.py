"""An API call becomes a view of its endpoint, or of the content that its span names."""

from __future__ import annotations

from typing import Any, Final

from otel_analytics.contract import CallMetadata, rfc3339
from otel_analytics.events import EncodedEvent, Event, Form
from otel_analytics.mapping import ids, semconv
from otel_analytics.mapping.calls import WEBSOCKET, Call
from otel_analytics.mapping.device import Agent
from otel_analytics.mapping.exclusions import is_health_endpoint
from otel_analytics.mapping.identity import Request
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.privacy import bare_short, bare_text
from otel_analytics.mapping.reading import SpanReading
from otel_analytics.mapping.values import first_text

CONTENT_TYPE: Final = "post"
"""The contract's content type of an API call."""
UNKNOWN_SERVICE: Final = "unknown_service"
"""The OpenTelemetry specification's name for a service without one."""

_LONGEST_METHOD = 64
LONGEST_USER_AGENT = 512
_NANOS_PER_MILLI = 1e6


def view(
    call: Call, request: Request, reading: SpanReading, options: MappingOptions, form: Form
) -> Event | EncodedEvent:
    """Return an API call's view.

    Args:
        call: The API call.
        request: What its spans together tell.
        reading: Its server span.
        options: How spans become events.
        form: What the view is made as.
    """
    span, attributes = reading.span, reading.attributes
    user_agent = bare_short(first_text(attributes, semconv.USER_AGENT)[:LONGEST_USER_AGENT])
    agent = options.read_agent(user_agent)
    return form.view(
        ids.view_id(reading.trace_id, reading.span_id),
        rfc3339(reading.start),
        request.viewed,
        bare_text(first_text(attributes, semconv.CONTENT_TYPE)) or CONTENT_TYPE,
        request.session_id or ids.session_id(reading.start, reading.trace_id),
        agent.device,
        options.app_name or _service_name(span),
        request.user_id or None,
        None if call.method == WEBSOCKET else _duration(span.start_time, span.end_time),
        request.address,
        metadata=_metadata(call, request, reading, user_agent, agent),
    )


def _metadata(
    call: Call, request: Request, reading: SpanReading, user_agent: str, agent: Agent
) -> CallMetadata:
    has_trace = reading.span.context is not None
    return CallMetadata(
        call.method,
        request.route,
        reading.trace_id if has_trace else "",
        reading.span_id if has_trace else "",
        call.status,
        user_agent,
        bare_text(call.original_method[:_LONGEST_METHOD]),
        agent.bot or semconv.SYNTHETIC in reading.attributes,
        agent.health_check or is_health_endpoint(request.route),
        request.operation,
        request.entry,
        reading.weight,
    )


def _duration(start: int | None, end: int | None) -> float | None:
    """Return milliseconds, with the microseconds that clocks really give."""
    if start is None or end is None:
        return None
    return round((end - start) / _NANOS_PER_MILLI, 3) if end > start else 0.0


def _service_name(span: Any) -> str:
    # Never remembered: a forked worker's spans have a resource of their own.
    resource = span.resource
    return (resource and first_text(resource.attributes, semconv.SERVICE_NAME)) or UNKNOWN_SERVICE
