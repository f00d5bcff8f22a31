"""An API call becomes a view of its endpoint, or of the content that its span names."""

from __future__ import annotations

from typing import Any, Final

from otel_analytics.events import ViewEvent
from otel_analytics.mapping import ids, semconv
from otel_analytics.mapping.address import client_address
from otel_analytics.mapping.calls import WEBSOCKET, Call
from otel_analytics.mapping.device import Agent
from otel_analytics.mapping.noise import is_health_endpoint
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.reading import Source
from otel_analytics.mapping.values import first_text
from otel_analytics.timestamps import rfc3339

CONTENT_TYPE: Final = "post"
"""The contract's content type of an API call."""
UNKNOWN_SERVICE: Final = "unknown_service"
"""The OpenTelemetry specification's name for a service without one."""

_LONGEST_METHOD = 64
_LONGEST_USER_AGENT = 512
_NANOS_PER_MILLI = 1e6


def content_id(call: Call, source: Source) -> str:
    """Return what was viewed: ``METHOD:endpoint``, unless the span names its content."""
    return first_text(source.attributes, semconv.CONTENT_ID) or f"{call.method}:{call.endpoint}"


def view(call: Call, viewed: str, source: Source, rules: MappingOptions) -> ViewEvent:
    """Return an API call's view.

    Args:
        call: The API call.
        viewed: Its `content_id`.
        source: Its server span.
        rules: How spans become events.
    """
    span, attributes = source.span, source.attributes
    user_agent = first_text(attributes, semconv.USER_AGENT)[:_LONGEST_USER_AGENT]
    agent = rules.read_agent(user_agent)
    return ViewEvent(
        event_id=ids.view_id(source.trace_id, source.span_id),
        timestamp=rfc3339(source.start),
        content_id=viewed,
        content_type=first_text(attributes, semconv.CONTENT_TYPE) or CONTENT_TYPE,
        session_id=first_text(attributes, semconv.SESSION_ID)
        or ids.session_id(source.start, source.trace_id),
        device_type=agent.device,
        app=rules.app_name or _service_name(span),
        user_id=source.user_id or None,
        duration=None if call.method == WEBSOCKET else _duration(span.start_time, span.end_time),
        ip_address=client_address(attributes, rules.show_address, rules.trusted_proxy_hops),
        metadata=_metadata(call, source, user_agent, agent),
    )


def _metadata(call: Call, source: Source, user_agent: str, agent: Agent) -> dict[str, Any]:
    metadata: dict[str, Any] = {"method": call.method, "route": call.endpoint, **source.trace}
    if call.status is not None:
        metadata["statusCode"] = call.status
    if user_agent:
        metadata["userAgent"] = user_agent
    if call.original_method:
        metadata["methodOriginal"] = call.original_method[:_LONGEST_METHOD]
    if agent.bot or semconv.SYNTHETIC in source.attributes:
        metadata["bot"] = True
    if agent.health_check or is_health_endpoint(call.endpoint):
        metadata["healthCheck"] = True
    return metadata


def _duration(start: int | None, end: int | None) -> float | None:
    """Return milliseconds, with the microseconds that clocks really give."""
    if start is None or end is None:
        return None
    return round((end - start) / _NANOS_PER_MILLI, 3) if end > start else 0.0


def _service_name(span: Any) -> str:
    # Never remembered: a forked worker's spans have a resource of their own.
    resource = span.resource
    return (resource and first_text(resource.attributes, semconv.SERVICE_NAME)) or UNKNOWN_SERVICE
