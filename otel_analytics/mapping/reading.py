"""A span read once, for its view and its engagements alike."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.mapping import semconv
from otel_analytics.mapping.identity import Link
from otel_analytics.mapping.privacy import first_id
from otel_analytics.mapping.values import Attributes, attributes_of

_TOLD: Final = frozenset(
    (*semconv.USER_ID, *semconv.SESSION_ID, *semconv.GRAPHQL_TYPE, *semconv.GRAPHQL_NAME)
)
_64_BITS = 2**64 - 1
_THRESHOLD_DIGITS: Final = 14
_THRESHOLD = re.compile(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)")
_ALL_OF_THEM: Final = 2**56


class SpanReading(NamedTuple):
    """A span and what all its events need of it.

    Args:
        span: The span itself.
        attributes: Its attributes, a plain dict.
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        start: Nanoseconds since the epoch; the end of a span that has no start, 0 without either.
        user_id: Who the span says did it; empty where it does not.
        session_id: In which visit; empty where it does not.
        weight: How many spans it stands for, where only sampled ones are seen and their sampler says so.
    """

    span: Any
    attributes: Attributes
    trace_id: str
    span_id: str
    start: int
    user_id: str
    session_id: str
    weight: float | None = None

    @property
    def link(self) -> Link:
        """Its place among the spans of its trace in this process."""
        return link_of(self.span)

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


def read(span: Any) -> SpanReading:
    """Read a span."""
    attributes = attributes_of(span)
    start = span.start_time or span.end_time or 0
    context = span.context
    # A span made by hand may have no context; its start still tells its events from others'.
    trace_id, span_id = (context.trace_id, context.span_id) if context else (0, start & _64_BITS)
    return SpanReading(
        span,
        attributes,
        f"{trace_id:032x}",
        f"{span_id:016x}",
        start,
        first_id(attributes, semconv.USER_ID),
        first_id(attributes, semconv.SESSION_ID),
    )


def sample_weight(span: Any) -> float | None:
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


def tells_nothing(span: Any) -> bool:
    """Whether a span that is no server span has neither events nor what its request needs: most have not."""
    # The public `events` copies them, which would be most of what such a span costs.
    if getattr(span, "_events", True) and span.events:
        return False
    return _TOLD.isdisjoint(attributes_of(span))


def link_of(span: Any) -> Link:
    """Return a span's place; one made by hand, without a context, stands alone."""
    context, parent = span.context, span.parent
    if context is None:
        return Link(0, id(span))
    return Link(
        context.trace_id, context.span_id, 0 if parent is None or parent.is_remote else parent.span_id
    )
