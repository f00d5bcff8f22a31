"""An API call becomes a view of its endpoint, or of the content that its span names."""

from __future__ import annotations

from typing import Final

from otel_analytics.contract import CallView, rfc3339
from otel_analytics.events import EncodedEvent, Event, Form
from otel_analytics.mapping import ids, semconv
from otel_analytics.mapping.calls import WEBSOCKET, Call
from otel_analytics.mapping.device import Agent
from otel_analytics.mapping.exclusions import HEALTH_CHECK, PREFETCH, is_prefetch, mark_of
from otel_analytics.mapping.identity import Request
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.privacy import bare_short, bare_text
from otel_analytics.mapping.protocol import Attributed
from otel_analytics.mapping.values import Attributes, first_text

CONTENT_TYPE: Final = "post"
"""The contract's content type of an API call."""

_LONGEST_METHOD = 64
_LONGEST_USER_AGENT = 512
_NANOS_PER_MILLI = 1e6


def view(
    call: CallView,
    form: Form,
    app_name: str,
    trace_id: str,
    span_id: str,
    start: int,
    duration: float | None,
    user_id: str,
    session_id: str,
    address: str | None,
    weight: float | None,
    *,
    has_trace: bool = True,
) -> Event | EncodedEvent:
    """Return an API call's view.

    Args:
        call: What it shares with other calls.
        form: What the view is made as.
        app_name: The service.
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        start: Nanoseconds since the epoch.
        duration: See `duration_of`.
        user_id: Who; empty where nobody is known.
        session_id: The visit; without one it is derived.
        address: The client's, as it may be told.
        weight: How many calls it stands for, where a sampler says so.
        has_trace: Whether it can be found in the traces.
    """
    return form.call(
        call,
        ids.view_id(trace_id, span_id),
        rfc3339(start),
        user_id,
        session_id or ids.session_id(start, trace_id),
        duration,
        address,
        app_name,
        trace_id if has_trace else "",
        span_id,
        weight,
    )


def viewed(call: Call, request: Request, attributes: Attributes, options: MappingOptions) -> CallView:
    """Return what the view of an API call shares with those of other calls.

    Args:
        call: The API call.
        request: What the call's spans together tell.
        attributes: The server span's.
        options: How spans become events.
    """
    route = request.route
    user_agent = user_agent_of(attributes)
    agent = options.read_agent(user_agent)
    return CallView(
        request.viewed,
        bare_text(first_text(attributes, semconv.CONTENT_TYPE)) or CONTENT_TYPE,
        agent.device,
        call.method,
        route,
        call.status,
        user_agent,
        bare_text(call.original_method[:_LONGEST_METHOD]),
        agent.bot or semconv.SYNTHETIC in attributes,
        _mark(call.method, route, attributes, agent),
        request.operation,
        request.entry,
    )


def user_agent_of(attributes: Attributes) -> str:
    """Return the client's user agent as it may be told."""
    return bare_short(first_text(attributes, semconv.USER_AGENT)[:_LONGEST_USER_AGENT])


def _mark(method: str, route: str, attributes: Attributes, agent: Agent) -> str:
    if agent.health_check:
        return HEALTH_CHECK
    return mark_of(method, route) or (PREFETCH if is_prefetch(attributes) else "")


def duration_of(call: CallView, start: int | None, end: int | None) -> float | None:
    """Return milliseconds, with the microseconds that clocks really give; a websocket's say nothing."""
    if start is None or end is None or call.method == WEBSOCKET:
        return None
    if end <= start:
        return 0
    millis = round((end - start) / _NANOS_PER_MILLI, 3)
    return int(millis) if millis.is_integer() else millis


def service_name(resource: Attributed | None) -> str:
    """Return the name of the service that a resource describes."""
    attributes = resource.attributes if resource else None
    return first_text(attributes or {}, semconv.SERVICE_NAME) or semconv.UNKNOWN_SERVICE


def is_nameless(service: str) -> bool:
    """Whether a service's name says that it has none."""
    return not service or service.startswith(semconv.UNKNOWN_SERVICE)
