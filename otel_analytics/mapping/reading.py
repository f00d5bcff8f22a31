"""A span read once, for its view and its engagements alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.mapping import semconv
from otel_analytics.mapping.identity import Link
from otel_analytics.mapping.privacy import first_id
from otel_analytics.mapping.protocol import Span, SpanContext
from otel_analytics.mapping.values import Attributes, attributes_of, names_of

WHO: Final = frozenset((*semconv.USER_ID, *semconv.SESSION_ID))
"""Attributes that say who it was."""
TOLD: Final = frozenset((*WHO, *semconv.GRAPHQL_TYPE, *semconv.GRAPHQL_NAME))
TraceOf = Callable[[SpanContext], int]
TRACE_ID: Final[TraceOf] = attrgetter("trace_id")
"""Tells requests apart in one process; a bridge has the process in the number, above these 128 bits."""
TRACE_ID_BITS: Final = 128
_128_BITS: Final = 2**TRACE_ID_BITS - 1
_64_BITS: Final = 2**64 - 1
_THRESHOLD_DIGITS: Final = 14
_THRESHOLD = re.compile(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)")
_ALL_OF_THEM: Final = 2**56


class SpanReading(NamedTuple):
    """A span and what all its events need of it.

    Args:
        span: The span itself.
        attributes: Its attributes, a plain dict.
        link: Its place among the spans of its trace in this process.
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        start: Nanoseconds since the epoch; the end of a span that has no start, 0 without either.
        user_id: Who the span says did it; empty where it does not.
        session_id: In which visit; empty where it does not.
        has_events: Whether it has any.
        weight: How many spans it stands for, where only sampled ones are seen and their sampler says so.
    """

    span: Span
    attributes: Attributes
    link: Link
    trace_id: str
    span_id: str
    start: int
    user_id: str
    session_id: str
    has_events: bool
    weight: float | None = None

    @property
    def trace(self) -> dict[str, Any]:
        """The metadata by which an event is found in the traces; empty without a span context."""
        return {"traceId": self.trace_id, "spanId": self.span_id} if self.span.context else {}


class NotMade(NamedTuple):
    """An event that was deliberately not made.

    Args:
        kind: What it would have been.
        reason: Why; a value of `DropReason`.
    """

    kind: Kind
    reason: str


def read(span: Span, trace_of: TraceOf = TRACE_ID) -> SpanReading:
    """Read a span.

    Args:
        span: An ended one.
        trace_of: Returns the `Link.trace_id` of a context.
    """
    attributes = attributes_of(span)
    start = span.start_time or span.end_time or 0
    link = link_of(span, trace_of)
    # A span made by hand may have no context; its start still tells its events from others'.
    trace_id, span_id = link.trace_id & _128_BITS, link.span_id if link.trace_id else start & _64_BITS
    user_id = session_id = ""
    if not WHO.isdisjoint(attributes):
        user_id = first_id(attributes, semconv.USER_ID)
        session_id = first_id(attributes, semconv.SESSION_ID)
    return SpanReading(
        *(span, attributes, link, f"{trace_id:032x}", f"{span_id:016x}", start, user_id, session_id),
        has_events(span),
    )


def sample_weight(span: Span) -> float | None:
    """Return how many spans a sampled one stands for; `None` where its sampler does not say.

    A consistent probability sampler writes its rejection threshold into the trace state, ``ot=th:c``: up to
    14 hex digits of a 56-bit number, trailing zeros left out (specification, "TraceState: Probability
    Sampling").
    """
    context = span.context
    said = context.trace_state.get("ot") if context is not None and context.trace_state else None
    found = _THRESHOLD.search(said or "")
    if found is None:
        return None
    rejected = int(found[1].ljust(_THRESHOLD_DIGITS, "0"), 16)
    weight = round(_ALL_OF_THEM / (_ALL_OF_THEM - rejected), 3)
    return int(weight) if weight.is_integer() else weight


def tells_nothing(span: Span) -> bool:
    """Whether a span that is no server span has neither events nor what its request needs: most have not."""
    return not has_events(span) and TOLD.isdisjoint(names_of(span))


def has_events(span: Span) -> bool:
    """Whether a span has events, or has lost them all; the public `events` copies them, which costs."""
    events = getattr(span, "_events", None)
    if events is None:
        known = getattr(span, "has_events", None)
        return bool(span.events if known is None else known)
    return bool(events or getattr(events, "dropped", 0))


def link_of(span: Span, trace_of: TraceOf = TRACE_ID) -> Link:
    """Return a span's place; one made by hand, without a context, stands alone."""
    context, parent = span.context, span.parent
    if context is None:
        return Link(0, id(span))
    return Link(
        trace_of(context), context.span_id, 0 if parent is None or parent.is_remote else parent.span_id
    )
