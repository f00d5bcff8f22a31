"""A span becomes events: its API call a view, each of its business events an engagement.

Nothing here raises for an attribute's value, and nothing is lost for one: what cannot be read is left out of
its field, what JSON cannot say is replaced when the event is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.events import OBJECTS, Form
from otel_analytics.mapping import semconv
from otel_analytics.mapping.calls import Call, describe, is_call
from otel_analytics.mapping.endpoint import EndpointCap
from otel_analytics.mapping.engagements import IGNORED, engagements
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.reading import NotMade, SpanReading, read
from otel_analytics.mapping.second_spans import SecondSpans
from otel_analytics.mapping.values import is_true
from otel_analytics.mapping.views import content_id, view

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

EXCLUDED: Final = "excluded"


class Mapped(NamedTuple):
    """What a span gave.

    Args:
        events: What the form makes of them, the API call's view first.
        dropped: Each event that was deliberately not made.
    """

    events: Sequence[Any]
    dropped: Sequence[NotMade]


_NOTHING: Final = Mapped((), ())


class SpanMapper:
    """Maps spans to events; safe to call from several threads, never raises for what a span holds.

    Its only state: the raw endpoints seen so far, for their cap, and requests that may have a second span.

    Args:
        options: How spans become events.
        form: What those are made as.
    """

    def __init__(self, options: MappingOptions, form: Form = OBJECTS) -> None:
        self._options = options
        self._form = form
        self._cap = EndpointCap(options.max_endpoints)
        self._second_spans = SecondSpans()

    def take_folded_endpoints(self) -> int:
        """Return how many calls were folded into ``{other}`` since this was asked last."""
        return self._cap.take_folded()

    def map(self, span: ReadableSpan) -> Mapped:
        """Return the events of one ended span.

        Args:
            span: An ended span of the SDK; the mapping only reads its public attributes.
        """
        is_server = span.kind.name == "SERVER"
        has_events = bool(span.events)
        if not is_server and not has_events:
            return _NOTHING
        reading = read(span)
        call = self._call(reading) if is_server else None
        viewed = content_id(call, reading) if call else ""
        made: list[Any] = []
        if call and not self._second_spans.is_second(call, reading):
            made.append(
                self._not_viewed(call, reading) or view(call, viewed, reading, self._options, self._form)
            )
        if has_events:
            made += engagements(viewed, reading, self._options, self._form)
        dropped = [each for each in made if isinstance(each, NotMade)]
        return Mapped([each for each in made if not isinstance(each, NotMade)] if dropped else made, dropped)

    def _call(self, reading: SpanReading) -> Call | None:
        if not is_call(reading.attributes):
            return None
        return describe(reading.attributes, reading.span, self._cap)

    def _not_viewed(self, call: Call, reading: SpanReading) -> NotMade | None:
        if semconv.IGNORE in reading.attributes and is_true(reading.attributes[semconv.IGNORE]):
            return NotMade(Kind.VIEW, IGNORED)
        if self._options.is_excluded(call.method, call.endpoint):
            return NotMade(Kind.VIEW, EXCLUDED)
        return None
