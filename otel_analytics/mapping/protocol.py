"""What the mapping reads of a span and of a log record, whoever made it.

The SDK's `ReadableSpan` satisfies this, and so does what `bridge.otlp` decodes of other languages' spans: the
same span gives the same bytes either way. Attributes are read-only properties, so that both may have them as
they like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import SpanKind, StatusCode


class SpanContext(Protocol):
    """Which span it is: the specification's SpanContext, as far as it is needed."""

    @property
    def trace_id(self) -> int:
        """128 bits; 0 where there is none."""

    @property
    def span_id(self) -> int:
        """64 bits."""

    @property
    def is_remote(self) -> bool:
        """Whether it came from another process."""

    @property
    def trace_state(self) -> Mapping[str, str]:
        """W3C's ``tracestate``, by vendor."""


class Attributed(Protocol):
    """What has attributes: a resource, too."""

    @property
    def attributes(self) -> Mapping[str, Any] | None:
        """By name; the specification's values, or whatever somebody has put there."""


class SpanEvent(Attributed, Protocol):
    """An event of a span."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def timestamp(self) -> int | None:
        """Nanoseconds since the epoch."""


class Scope(Protocol):
    """An instrumentation scope."""

    @property
    def name(self) -> str:
        """Its name: which library made the span."""


class Status(Protocol):
    """A span's own status."""

    @property
    def status_code(self) -> StatusCode:
        """UNSET, OK or ERROR."""


class Span(Attributed, Protocol):
    """An ended span."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> SpanKind:
        """Its kind."""

    @property
    def context(self) -> SpanContext | None:
        """Its own context; one made by hand may have none."""

    @property
    def parent(self) -> SpanContext | None:
        """The context of the span above it."""

    @property
    def resource(self) -> Attributed:
        """What made it."""

    @property
    def instrumentation_scope(self) -> Scope | None:
        """Which library made it."""

    @property
    def status(self) -> Status:
        """Its status."""

    @property
    def events(self) -> Sequence[SpanEvent]:
        """Its events, in order."""

    @property
    def dropped_events(self) -> int:
        """How many more it had."""

    @property
    def start_time(self) -> int | None:
        """Nanoseconds since the epoch."""

    @property
    def end_time(self) -> int | None:
        """The same."""


class LogRecord(Attributed, Protocol):
    """A log record; one that names an event is an event."""

    @property
    def body(self) -> Any:
        """Anything; a mapping's items count as attributes."""

    @property
    def timestamp(self) -> int | None:
        """Nanoseconds since the epoch."""

    @property
    def observed_timestamp(self) -> int | None:
        """The same."""

    @property
    def trace_id(self) -> int | None:
        """In which trace; 0 or none: in none."""

    @property
    def span_id(self) -> int | None:
        """On which span."""
