"""A span becomes events: its API call a view, each of its business events an engagement.

Nothing here raises for an attribute's value, and nothing is lost for one: what cannot be read is left out of
its field, what JSON cannot say is replaced when the event is encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.events import OBJECTS, Form
from otel_analytics.mapping import semconv
from otel_analytics.mapping.address import client_address
from otel_analytics.mapping.business import BusinessNames
from otel_analytics.mapping.calls import Call, describe, graphql_operation, is_call
from otel_analytics.mapping.endpoint import EndpointCap, Tally
from otel_analytics.mapping.engagements import IGNORED, Occurrence, drafted, span_events
from otel_analytics.mapping.identity import Draft, EndedSpan, Request, Requests, Said
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.privacy import bare_text, is_placeholder
from otel_analytics.mapping.reading import NotMade, SpanReading, link_of, read, sample_weight, tells_nothing
from otel_analytics.mapping.second_spans import SecondSpans
from otel_analytics.mapping.statuses import FAILURES
from otel_analytics.mapping.values import Attributes, as_text, first_text, is_true
from otel_analytics.mapping.views import LONGEST_USER_AGENT, view

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

EXCLUDED: Final = "excluded"
_WHO: Final = (*semconv.USER_ID_OF_EVENT, *semconv.SESSION_ID)


class Mapped(NamedTuple):
    """What a span gave.

    Args:
        events: What the form makes of them, the API call's view first.
        dropped: Each event that was deliberately not made.
    """

    events: Sequence[Any]
    dropped: Sequence[NotMade]


class SpanMapper:
    """Maps spans to drafts of events; safe to call from several threads, never raises for what a span holds.

    Its only state: the raw endpoints seen so far, for their cap, requests that may have a second span, and
    how many ids came redacted.

    Args:
        options: How spans become events.
        form: What those are made as.
    """

    def __init__(self, options: MappingOptions, form: Form = OBJECTS) -> None:
        self._options = options
        self._form = form
        self._cap = EndpointCap(options.max_endpoints)
        self._second_spans = SecondSpans()
        self._redacted = Tally()
        self.business = BusinessNames(options.business_events)

    def take_folded_endpoints(self) -> int:
        """Return how many calls were folded into ``{other}`` since this was asked last."""
        return self._cap.folded.take()

    def take_redacted_ids(self) -> int:
        """Return how many spans and events had a placeholder for somebody since this was asked last."""
        return self._redacted.take()

    def map(self, span: ReadableSpan) -> Mapped:
        """Return the events of one ended span, joined to no other.

        Args:
            span: An ended span of the SDK; the mapping only reads its public attributes.
        """
        alone = Requests(0)
        settled = [*alone.ended(self.read(span), now=0), *alone.drain()]
        made = [draft.make(request) for draft, request in settled]
        dropped = [each for each in made if isinstance(each, NotMade)]
        return Mapped([each for each in made if not isinstance(each, NotMade)] if dropped else made, dropped)

    def read(self, span: ReadableSpan, *, sampled_only: bool = False) -> EndedSpan:
        """Return what one ended span tells, with drafts of its events.

        Args:
            span: An ended span of the SDK; the mapping only reads its public attributes.
            sampled_only: Whether it may stand for others that are never seen.
        """
        is_server = span.kind.name == "SERVER"
        if not is_server and tells_nothing(span):
            return EndedSpan(link_of(span))
        reading = read(span)
        link = reading.link
        if sampled_only and (weight := sample_weight(span)) is not None:
            reading = reading._replace(weight=weight)
        call = self._call(reading) if is_server else None
        drafts: list[Draft] = []
        event_users: tuple[str, ...] = ()
        is_second = call is not None and self._second_spans.is_second(call, reading)
        if call and not is_second:
            drafts.append(Draft(link, partial(self._view, call, reading), is_view=True))
        if span.events:
            business = self.draft_all(span_events(reading))
            drafts += business
            event_users = tuple(draft.user_id for draft in business if draft.user_id)
        self._note_redacted(reading.attributes)
        said = None
        operation = graphql_operation(reading.attributes, as_text(span.name))
        if reading.user_id or reading.session_id or event_users or operation:
            said = Said(reading.user_id, reading.session_id, event_users, operation)
        request = self._request(call, reading, operation, has_view=not is_second) if call else None
        return EndedSpan(link, said, drafts, request)

    def draft_all(self, occurrences: Iterable[Occurrence]) -> list[Draft]:
        """Return what of all that happened is a business event, as drafts."""
        drafts = []
        for each in occurrences:
            draft = drafted(each, self.business, self._options, self._form)
            if draft is not None:
                drafts.append(draft)
                self._note_redacted(each.attributes)
        return drafts

    def _call(self, reading: SpanReading) -> Call | None:
        if not is_call(reading.attributes):
            return None
        return describe(reading.attributes, reading.span, self._cap)

    def _request(self, call: Call, reading: SpanReading, operation: str, *, has_view: bool) -> Request:
        attributes, options = reading.attributes, self._options
        return Request(
            reading.user_id,
            reading.session_id,
            call.method,
            call.endpoint,
            bool(first_text(attributes, semconv.ROUTE)),
            bare_text(first_text(attributes, semconv.CONTENT_ID)),
            client_address(
                attributes, options.show_address, options.trusted_proxy_hops, options.client_ip_headers
            ),
            reading.start,
            reading.span.end_time or reading.start,
            has_view,
            call.status if call.status in FAILURES else None,
            self._is_entry(reading),
            operation,
        )

    def _is_entry(self, reading: SpanReading) -> bool:
        """Whether a call comes from outside: no span made it, or one in the browser or the app of a person.

        A remote parent may as well be another service, which asks by an HTTP library's user agent.
        """
        parent = reading.span.parent
        if parent is None:
            return True
        agent = first_text(reading.attributes, semconv.USER_AGENT) if parent.is_remote else ""
        return bool(agent) and self._options.read_agent(agent[:LONGEST_USER_AGENT]).personal

    def _view(self, call: Call, reading: SpanReading, request: Request) -> Any:
        return self._not_viewed(request, reading) or view(call, request, reading, self._options, self._form)

    def _not_viewed(self, request: Request, reading: SpanReading) -> NotMade | None:
        if semconv.IGNORE in reading.attributes and is_true(reading.attributes[semconv.IGNORE]):
            return NotMade(Kind.VIEW, IGNORED)
        if self._options.is_excluded(request.method, request.route):
            return NotMade(Kind.VIEW, EXCLUDED)
        return None

    def _note_redacted(self, attributes: Attributes) -> None:
        for key in _WHO:
            if key in attributes and (text := as_text(attributes[key])) and is_placeholder(text):
                self._redacted.add()
                return
