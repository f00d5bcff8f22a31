"""A span becomes events: its API call a view, each of its business events an engagement.

Nothing here raises for an attribute's value, and nothing is lost for one: what cannot be read is left out of
its field, what JSON cannot say is replaced when the event is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from otel_analytics.contract import CallView, Kind
from otel_analytics.events import OBJECTS, Form
from otel_analytics.mapping import semconv
from otel_analytics.mapping.address import client_address
from otel_analytics.mapping.business import BusinessNames
from otel_analytics.mapping.calls import (
    FUNCTION,
    MCP,
    RPC,
    Call,
    describe,
    graphql_operation,
    is_call,
    is_of_known_protocol,
)
from otel_analytics.mapping.endpoint import OTHER, UNKNOWN, EndpointCap, Tally
from otel_analytics.mapping.engagements import Occurrence, drafted, span_events
from otel_analytics.mapping.identity import Draft, EndedSpan, Link, Request, Requests, Said
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.privacy import bare_text, first_id, is_placeholder
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.reading import (
    TRACE_ID,
    TRACE_ID_BITS,
    WHO,
    NotMade,
    SpanReading,
    TraceOf,
    has_events,
    link_of,
    read,
    sample_weight,
    tells_nothing,
)
from otel_analytics.mapping.reasons import (
    EXCLUDED,
    IGNORED,
    NOBODY_CALLS,
    SECOND,
    UNKNOWN_PROTOCOL,
    Nothing,
    Noticed,
)
from otel_analytics.mapping.routes import is_parameter
from otel_analytics.mapping.second_spans import SecondSpans
from otel_analytics.mapping.statuses import FAILURES, NO_SUCH_ROUTE
from otel_analytics.mapping.values import Attributes, as_text, attributes_for_a_look, first_text, is_true
from otel_analytics.mapping.views import duration_of, is_nameless, service_name, user_agent_of, view, viewed

_LONGEST_SCOPE: Final = 128
_MOST_SHARED: Final = 4_096
_WHO_OF_EVENT: Final = frozenset((*semconv.USER_ID_OF_EVENT, *semconv.SESSION_ID))


_Key = TypeVar("_Key")
_State = TypeVar("_State")


class _OfEach(dict[_Key, _State]):
    """What is remembered of each service or process, all of them begun anew when there are too many.

    Args:
        make: Makes what is remembered of one not seen yet.
    """

    def __init__(self, make: Callable[[], _State]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: _Key) -> _State:
        """Begin with one."""
        if len(self) >= _MOST_SHARED:
            self.clear()
        return self.setdefault(key, self._make())


class Mapped(NamedTuple):
    """What a span gave.

    Args:
        events: What the form makes of them, the API call's view first.
        dropped: Each event that was deliberately not made.
    """

    events: Sequence[Any]
    dropped: Sequence[NotMade]


class _SharedCall(NamedTuple):
    """What a call shares with all others whose spans say the same of it.

    Args:
        call: The call.
        content_id: What is viewed, where the span names it; else empty.
        common: What their views have in common, as long as no other span of a request says otherwise.
        of_entry: The same where the call comes from outside.
        not_viewed: Why there is none.
        path: The one path that it has; `None`: any that fits the template.
    """

    call: Call
    content_id: str
    common: CallView
    of_entry: CallView
    not_viewed: NotMade | None
    path: str | None


class Whole(NamedTuple):
    """A server span that is a request all by itself.

    Args:
        view: Its view, or why there is none.
        tell: Says of it what `SpanMapper.read` does, but for the view.
    """

    view: Any
    tell: Callable[[], EndedSpan]


class SpanMapper:
    """Maps spans to drafts of events; safe to call from several threads, never raises for what a span holds.

    Its only state: the raw endpoints of each service seen so far, for their cap, the requests of each process
    that may have a second span, how many ids came redacted, and what calls share, so that most of it is found
    once.

    Args:
        options: How spans become events.
        form: What those are made as.
        trace_of: Returns the `Link.trace_id` of a span's context.
    """

    def __init__(self, options: MappingOptions, form: Form = OBJECTS, trace_of: TraceOf = TRACE_ID) -> None:
        self._options = options
        self._form = form
        self.trace_of = trace_of
        self._folded = Tally()
        self._caps = _OfEach[str, EndpointCap](lambda: EndpointCap(options.max_endpoints, self._folded))
        self._second_spans = _OfEach[int, SecondSpans](SecondSpans)
        self._redacted = Tally()
        self._shared: dict[Any, _SharedCall] = {}
        self._service: tuple[Any, str] = None, ""
        self.is_nameless = False  # whether a view has just been made for a service without a name
        self.noticed = Noticed()
        self.business = BusinessNames(options.business_events, self.noticed)

    @property
    def service(self) -> str:
        """The service of the view made last; empty before there is one, and where `app_name` says it."""
        return self._service[1]

    def take_folded_endpoints(self) -> int:
        """Return how many calls were folded into ``{other}`` since this was asked last."""
        return self._folded.take()

    def take_redacted_ids(self) -> int:
        """Return how many spans and events had a placeholder for somebody since this was asked last."""
        return self._redacted.take()

    def map(self, span: Span) -> Mapped:
        """Return the events of one ended span, joined to no other.

        Args:
            span: An ended span.
        """
        alone = Requests(0)
        settled = [*alone.ended(self.read(span), now=0), *alone.drain()]
        made = [draft.make(request) for draft, request in settled]
        dropped = [each for each in made if isinstance(each, NotMade)]
        return Mapped([each for each in made if not isinstance(each, NotMade)] if dropped else made, dropped)

    def read(self, span: Span, *, sampled_only: bool = False) -> EndedSpan:
        """Return what one ended span tells, with drafts of its events.

        Args:
            span: An ended span.
            sampled_only: Whether it may stand for others that are never seen.
        """
        is_server = span.kind.name == "SERVER"
        if not is_server and tells_nothing(span):
            return EndedSpan(link_of(span, self.trace_of))
        reading = read(span, self.trace_of)
        link = reading.link
        if sampled_only and (weight := sample_weight(span)) is not None:
            reading = reading._replace(weight=weight)
        shared = self._call(reading) if is_server else None
        drafts: list[Draft] = []
        event_users: tuple[str, ...] = ()
        is_second = shared is not None and self._seconds(link.trace_id).is_second(shared.call, reading)
        if shared and not is_second:
            drafts.append(Draft(link, partial(self._view, shared, reading), is_view=True))
        if reading.has_events:
            business = self.draft_all(span_events(reading))
            drafts += business
            event_users = tuple(draft.user_id for draft in business if draft.user_id)
        self._note_redacted(reading.attributes)
        said = None
        operation = graphql_operation(reading.attributes, as_text(span.name))
        if reading.user_id or reading.session_id or event_users or operation:
            said = Said(reading.user_id, reading.session_id, event_users, operation)
        request = self._request(shared, reading, operation, has_view=not is_second) if shared else None
        return EndedSpan(link, said, drafts, request)

    def read_whole(self, span: Span, *, sampled_only: bool = False) -> Whole | None:
        """Return the view of a server span to which no other is joined, without the detour of a draft.

        Returns:
            `None` where it takes more than one look: a call not seen before, events, a placeholder for a
            user, a GraphQL operation, a span whose request may have a second one.
        """
        attributes, context = attributes_for_a_look(span), span.context
        if context is None:
            return None
        trace = self.trace_of(context)
        shared = None if has_events(span) else self._known_call(attributes, _key(attributes, span))
        start, end = span.start_time, span.end_time
        if shared is None or not start or not end:
            return None
        if not self._seconds(trace).is_single(shared.call, span):
            return None
        user_id = session_id = ""
        if not WHO.isdisjoint(attributes):
            user_id = first_id(attributes, semconv.USER_ID)
            session_id = first_id(attributes, semconv.SESSION_ID)
        if _has_placeholder(attributes) or graphql_operation(attributes, as_text(span.name)):
            return None
        entry, address = self._is_entry(span.parent, attributes), self._address(attributes)
        common = shared.of_entry if entry else shared.common
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        made = shared.not_viewed or view(
            common,
            self._form,
            self._app_name(span),
            *(trace_id, span_id, start, duration_of(common, start, end), user_id, session_id, address),
            sample_weight(span) if sampled_only else None,
        )
        place = trace, context.span_id
        return Whole(made, partial(_told, place, shared, user_id, session_id, address, start, end, entry))

    def draft_all(self, occurrences: Iterable[Occurrence]) -> list[Draft]:
        """Return what of all that happened is a business event, as drafts."""
        drafts = []
        for each in occurrences:
            draft = drafted(each, self.business, self._options, self._form)
            if draft is not None:
                drafts.append(draft)
                self._note_redacted(each.attributes)
        return drafts

    def _seconds(self, trace: int) -> SecondSpans:
        return self._second_spans[trace >> TRACE_ID_BITS]

    def _call(self, reading: SpanReading) -> _SharedCall | None:
        """Return what a server span's call shares with others; `None` where it is no call."""
        attributes, span = reading.attributes, reading.span
        if not is_call(attributes):
            if not is_of_known_protocol(attributes):
                self.noticed.add(Nothing(UNKNOWN_PROTOCOL, _scope_of(span)))
            return None
        # Events may say how a call ended: a span with any is looked at each time.
        key = None if reading.has_events else _key(attributes, span)
        known = self._known_call(attributes, key)
        if known is not None:
            return known
        call = describe(attributes, span, self._caps[self._service_name(span)])
        content_id = bare_text(first_text(attributes, semconv.CONTENT_ID))
        request = Request(method=call.method, route=call.endpoint, content_id=content_id)
        common = viewed(call, request, attributes, self._options)
        shared = _SharedCall(
            call,
            content_id,
            common,
            common._replace(entry=True),
            self._not_viewed(request, attributes),
            None if _has_parameter(call) else _path_of(attributes),
        )
        is_plain = shared.path is not None or _fits(_path_of(attributes), call.endpoint)
        if key and is_plain and _is_told_by_attributes(call):
            if len(self._shared) >= _MOST_SHARED:
                self._shared.clear()
            self._shared[key] = shared
        return shared

    def _known_call(self, attributes: Attributes, key: tuple[Any, ...] | None) -> _SharedCall | None:
        known = self._shared.get(key) if key else None
        if known is None:
            return None
        path = _path_of(attributes)
        is_its = _fits(path, known.call.endpoint) if known.path is None else path == known.path
        return known if is_its else None

    def _request(
        self, shared: _SharedCall, reading: SpanReading, operation: str, *, has_view: bool
    ) -> Request:
        span, start, attributes = reading.span, reading.start, reading.attributes
        return _request_of(
            shared,
            *(reading.user_id, reading.session_id, self._address(attributes), start, span.end_time or start),
            entry=self._is_entry(span.parent, attributes),
            has_view=has_view,
            operation=operation,
        )

    def _address(self, attributes: Attributes) -> str | None:
        options = self._options
        return client_address(
            attributes, options.show_address, options.trusted_proxy_hops, options.client_ip_headers
        )

    def _is_entry(self, parent: Any, attributes: Attributes) -> bool:
        """Whether a call comes from outside: no span made it, or one in the browser or the app of a person.

        A remote parent may as well be another service, which asks by an HTTP library's user agent.
        """
        if parent is None:
            return True
        agent = user_agent_of(attributes) if parent.is_remote else ""
        return bool(agent) and self._options.read_agent(agent).personal

    def _view(self, shared: _SharedCall, reading: SpanReading, request: Request) -> Any:
        common = shared.of_entry if request.entry else shared.common
        not_viewed = shared.not_viewed
        is_own = request.route is common.route and request.content_id is shared.content_id
        if not is_own or request.operation or request.method != common.method:
            common = viewed(shared.call, request, reading.attributes, self._options)
            not_viewed = self._not_viewed(request, reading.attributes)
        span, trace_id, start = reading.span, reading.trace_id, reading.start
        return not_viewed or view(
            common,
            self._form,
            self._app_name(span),
            *(trace_id, reading.span_id, start, duration_of(common, span.start_time, span.end_time)),
            *(request.user_id, request.session_id, request.address, reading.weight),
            has_trace=bool(reading.link.trace_id),
        )

    def _app_name(self, span: Span) -> str:
        return self._options.app_name or self._service_name(span)

    def _service_name(self, span: Span) -> str:
        # Remembered with its resource: a forked worker's spans have one of their own.
        resource, name = self._service
        if span.resource is not resource or resource is None:
            resource, name = self._service = span.resource, service_name(span.resource)
            self.is_nameless = not self._options.app_name and is_nameless(name)
        return name

    def _not_viewed(self, request: Request, attributes: Attributes) -> NotMade | None:
        if semconv.IGNORE in attributes and is_true(attributes[semconv.IGNORE]):
            return NotMade(Kind.VIEW, IGNORED)
        if self._options.is_excluded(request.method, request.route):
            return NotMade(Kind.VIEW, EXCLUDED)
        return None

    def _note_redacted(self, attributes: Attributes) -> None:
        if _has_placeholder(attributes):
            self._redacted.add()


def why_no_view(span: Span) -> str:
    """Return the word for why a server span that has no view has none."""
    attributes = attributes_for_a_look(span)
    if is_call(attributes):
        return SECOND
    return NOBODY_CALLS if is_of_known_protocol(attributes) else UNKNOWN_PROTOCOL


def _scope_of(span: Span) -> str:
    """Return which library made a span: of those there are few."""
    scope = span.instrumentation_scope
    return bare_text(as_text(scope.name if scope else "")[:_LONGEST_SCOPE]) or UNKNOWN


def _has_placeholder(attributes: Attributes) -> bool:
    """Whether somebody has put a placeholder where a user or a session was."""
    if _WHO_OF_EVENT.isdisjoint(attributes):
        return False
    said = (as_text(attributes[key]) for key in _WHO_OF_EVENT if key in attributes)
    return any(text and is_placeholder(text) for text in said)


def _told(
    place: tuple[int, int],
    shared: _SharedCall,
    user_id: str,
    session_id: str,
    address: str | None,
    start: int,
    end: int,
    entry: bool,
) -> EndedSpan:
    said = Said(user_id, session_id) if user_id or session_id else None
    request = _request_of(shared, user_id, session_id, address, start, end, entry=entry)
    return EndedSpan(Link(*place), said, (), request)


def _request_of(
    shared: _SharedCall,
    user_id: str,
    session_id: str,
    address: str | None,
    start: int,
    end: int,
    *,
    entry: bool,
    has_view: bool = True,
    operation: str = "",
) -> Request:
    call = shared.call
    return Request(
        *(user_id, session_id, call.method, call.endpoint, call.is_route, shared.content_id, address),
        *(start, end, has_view, call.status if call.status in FAILURES else None, entry, operation),
    )


def _path_of(attributes: Attributes) -> str:
    return first_text(attributes, semconv.PATH).partition("?")[0]


def _has_parameter(call: Call) -> bool:
    """Whether many paths are the same call; an RPC has none."""
    return call.method == RPC or any(map(is_parameter, call.endpoint.split("/")))


def _fits(path: str, template: str) -> bool:
    """Whether a path is plainly of a template.

    One of more segments may be that of a mounted application; one that equals it shows that it is none.
    """
    is_plain = "%" not in path and "#" not in path
    return is_plain and path != template and path.count("/") <= template.count("/")


def _is_told_by_attributes(call: Call) -> bool:
    """Whether neither a path nor a name of its span, nor what came before it, made a call what it is."""
    if call.endpoint == "/" and call.status in NO_SUCH_ROUTE:
        return False  # of the path `/` only
    by_name = call.is_route if call.method not in (RPC, MCP, FUNCTION) else call.method == RPC
    return by_name and not call.mounted and call.endpoint != OTHER


def _key(attributes: Attributes, span: Span) -> tuple[Any, ...] | None:
    """Return all that tells calls from each other beside their paths and events; `None`: it is no key."""
    pick, scope = _picker(tuple(attributes)), span.instrumentation_scope
    key = (pick, pick(attributes), span.status.status_code, scope and scope.name)
    try:
        hash(key)
    except TypeError:  # a sequence
        return None
    return key


@lru_cache(maxsize=1024)
def _picker(names: tuple[str, ...]) -> Callable[[Attributes], Any]:
    """Return what picks the values that say which call it is, where attributes have these names.

    An instrumentation gives all its spans the same.
    """
    telling = [name for name in semconv.OF_CALLS if name in names]
    return itemgetter(*telling) if telling else len
