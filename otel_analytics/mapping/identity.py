"""The spans of one request joined: who did it, in which visit, under which endpoint.

`user.id` is set by auth code on the server span, or by a handler on a child of its own, while a business
event is added to yet another one; spans end in any order and come one by one. `Requests` holds an event until
the server span above it has ended, and then says what the event lacks:

* a business event takes the user and the session of the nearest span above it that names one, then those of
  its request; the content, route and address are always the request's;
* a request without a user takes the one that the spans and events below it agree on. Two different users
  below one request are nobody;
* the server span above an event is its nearest ancestor within the process: a remote parent ends the chain;
* an event may be recorded both ways, as a span event and as a log record: the n-th of a name on a span is the
  same event in both, and the one that comes second is left out;
* a server span whose parent is a server span of the same method is the same request seen twice: one view,
  with the outer span's address and the better route;
* RPC and MCP messages come in a POST, and a server span of their own right below its is the call that counts:
  it has the view, with the address, the user and the session of the POST, which has none.

An event whose server span has not ended after the wait goes with what is known; if no chain leads to a server
span, but one has ended whose time encloses the event's, it takes that one's.

Pure: no clock, no lock, no thread. Whoever owns a `Requests` calls it from one thread at a time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

_MOST_LINKS_OF_A_TRACE: Final = 4_096
"""A job that runs for hours has no end of them."""
_MANY_LINKS_OF_A_TRACE: Final = 1_024
"""From here on a span that told nothing is forgotten at its end."""
_LINKS_ARE_COUNTED_EVERY: Final = 256
"""So many new traces: a count that is kept up would need a lock for each span."""
_LONGEST_CHAIN: Final = 256
_FORGOTTEN_AT_ONCE: Final = 2


class Link(NamedTuple):
    """A span's place.

    Args:
        trace_id: The trace, as a number; where there are several processes, with theirs above its 128 bits.
        span_id: The span, as a number.
        parent_id: Its parent within the process; 0 without one, as for a remote parent.
    """

    trace_id: int
    span_id: int
    parent_id: int = 0


class Said(NamedTuple):
    """Who a span says it was; empty where it does not.

    Args:
        user_id: Its own attribute; also for its events and the spans below it.
        session_id: The same.
        event_users: The users that its events name.
        operation: What a GraphQL request asks for, where it is a span of one.
    """

    user_id: str = ""
    session_id: str = ""
    event_users: tuple[str, ...] = ()
    operation: str = ""


class Request(NamedTuple):
    """A request, as its server span tells it and, once joined, as its events take it.

    Args:
        user_id: Who; empty where nobody says.
        session_id: The visit.
        method: The API call's method; empty where the server span is no API call.
        route: Its endpoint.
        is_route: Whether that is a framework's own route, rather than a folded path.
        content_id: What is viewed, where the span names it; else empty.
        address: The client's, as it may be told.
        start: Nanoseconds since the epoch.
        end: The same.
        has_view: Whether its server span has a view, rather than another span that is known to serve it too.
        failure: The status of an answer that says that the server failed.
        entry: Whether it comes from outside, rather than from another traced service.
        operation: What it asks for, where it is a GraphQL request.
    """

    user_id: str = ""
    session_id: str = ""
    method: str = ""
    route: str = ""
    is_route: bool = False
    content_id: str = ""
    address: str | None = None
    start: int = 0
    end: int = 0
    has_view: bool = True
    failure: int | str | None = None
    entry: bool = False
    operation: str = ""

    @property
    def viewed(self) -> str:
        """The `contentId` of its view; empty without an API call."""
        return self.content_id or (f"{self.method}:{self.route}" if self.method else "")


NO_REQUEST: Final = Request()


class Draft(NamedTuple):
    """An event that lacks what its request knows.

    Args:
        link: Its span.
        make: Makes the event of a `Request`.
        is_view: Whether it is the view of the request that its span serves.
        nanos: When it happened, nanoseconds since the epoch.
        size: About how many bytes it holds.
        name: A business event's name.
        is_log: Whether a log record told it, rather than a span event.
        user_id: Whom it names itself; empty: nobody.
    """

    link: Link
    make: Callable[[Request], Any]
    is_view: bool = False
    nanos: int = 0
    size: int = 0
    name: str = ""
    is_log: bool = False
    user_id: str = ""


class EndedSpan(NamedTuple):
    """What an ended span has to tell.

    Args:
        link: Its place.
        said: Who it says it was, if anybody.
        drafts: Its events.
        request: What it tells of its request, if it is a server span.
    """

    link: Link
    said: Said | None = None
    drafts: Sequence[Draft] = ()
    request: Request | None = None


Settled = tuple[Draft, Request]


class _Trace:
    """What is known of one trace in this process.

    `waiting` holds events under the span that each waits for: when that one ends, they are looked at again.
    """

    __slots__ = (
        *("inner", "open", "parents", "recorded", "requests", "root_ended", "said", "viewed", "waiting"),
        "watched",
    )

    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        self.open: dict[int, bool] = {}  # spans seen to start: whether they are server spans
        self.said: dict[int, Said] = {}
        self.requests: dict[int, Request] = {}  # of ended server spans
        self.inner: dict[int, int] = {}  # a span to the server span right below it
        self.viewed: set[int] = set()  # server spans whose views have left
        self.waiting: dict[int, list[tuple[Draft, float]]] = {}
        self.recorded: dict[tuple[int, str], list[int]] = {}  # span and name: as span events, as log records
        self.watched = False  # each of its spans that will ever end here has been seen to start
        self.root_ended = False  # some span without a parent in this process has ended


class _Lone(NamedTuple):
    """A request of whose spans only the server span told anything, for as long as another one may come."""

    until: float
    watched: bool
    names: tuple[str, ...]
    tell: Callable[[], EndedSpan]  # made only where it is asked for


class Bounds(NamedTuple):
    """How much a `Requests` remembers.

    Args:
        traces: Most traces of which anything is known.
        links: Most spans whose place is known, in all traces.
        waiting: Most events that wait.
        size: Most bytes of these.
    """

    traces: int = 4_096
    links: int = 100_000
    waiting: int = 4_096
    size: int = 8_000_000


OF_ONE_PROCESS: Final = Bounds()


class Requests:
    """Joins the spans of requests, within bounds of time, count and bytes.

    Args:
        wait: Longest time, in the clock's unit, from an event's arrival to its departure; a request
            is remembered twice as long, for events that come after it.
        bounds: How much is remembered.
    """

    def __init__(self, wait: float, bounds: Bounds = OF_ONE_PROCESS) -> None:
        self._wait = wait
        self._most = bounds
        # Ordered: the oldest of a plain dict is found behind all the places of those that left before it.
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        # Traces whose root has ended and in which nothing is open or waits: until when each is kept.
        self._over: OrderedDict[int, float] = OrderedDict()
        self._lone: OrderedDict[int, _Lone] = OrderedDict()
        self._dues: deque[tuple[float, int]] = deque()
        self._waiting_until: Counter[float] = Counter()
        self._links = 0  # as counted last
        self._unseen_traces = 0
        self._waiting = 0
        self._bytes = 0
        self._doubles = 0
        self.left_out: deque[Draft] | None = None
        """Holds events that another one already is, where somebody wants to know of them."""

    def take_doubles(self) -> int:
        """Return how many events were recorded both ways since this was asked last."""
        doubles, self._doubles = self._doubles, 0
        return doubles

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return self._waiting

    def waiting_until(self, due: float) -> int:
        """Return how many events wait that were taken at one moment, by when the last of them leaves."""
        return self._waiting_until[due]

    @property
    def next_due(self) -> float | None:
        """When `due` is to be called next; `None` while nothing waits."""
        return self._dues[0][0] if self._waiting and self._dues else None

    def started(
        self, link: Link, now: float, *, is_server: bool, said: Said | None = None
    ) -> Sequence[Settled]:
        """Learn of a span's place while it is open, where that can be seen.

        Args:
            link: Its place.
            now: The clock's time.
            is_server: Whether it is a server span.
            said: Who it is for, as far as that is known when it starts; what it says at its end wins.

        Returns:
            What has to leave to make room.
        """
        trace = self._known(link.trace_id)
        settled: Sequence[Settled] = ()
        if trace is None:
            settled = self._make_room(now)
            trace = self._traces[link.trace_id] = _Trace()
        if self._place(trace, link):
            trace.watched = True
            trace.open[link.span_id] = is_server
            if said is not None:
                trace.said[link.span_id] = said
        return settled

    def started_below(self, trace_id: int, span_id: int, parent_id: int) -> bool:
        """Learn of a span that is no server span; return whether that was all, as where its trace is known.

        Needs no lock: each step is a single operation of a dict.
        """
        trace = self._traces.get(trace_id)
        if trace is None or len(trace.parents) >= _MOST_LINKS_OF_A_TRACE:
            return False
        trace.parents[span_id] = parent_id
        trace.watched = True
        trace.open[span_id] = False
        return True

    def ended(self, span: EndedSpan, now: float) -> Sequence[Settled]:
        """Take an ended span; return each event that need not wait, with its request."""
        link, said, drafts, request = span
        if not link.trace_id:
            return _alone(span)
        trace = self._known(link.trace_id)
        if request is not None and not link.parent_id and _is_alone(trace, link.span_id):
            return self._take_alone(span, request, trace, now)
        settled: list[Settled] = []
        if trace is None:
            if not (link.parent_id or said or drafts or request):
                return settled
            settled += self._make_room(now)
            trace = self._traces[link.trace_id] = _Trace()
        self._note_end(trace, link, said, request)
        if drafts or trace.waiting:
            settled += self._settle(link, trace, drafts, now + self._wait)
        if trace.root_ended and not trace.open and not trace.waiting:
            self._set_aside(link.trace_id, trace, now + 2 * self._wait)  # log records may come late
        return settled

    def is_alone(self, trace_id: int, span_id: int) -> bool:
        """Whether a span that ends joins nothing, as no other of its trace is open or has told anything."""
        return trace_id not in self._lone and _is_alone(self._traces.get(trace_id), span_id)

    def passed_alone(self, trace_id: int, span_id: int, tell: Callable[[], EndedSpan], now: float) -> bool:
        """Note that a server span has ended whose view needs no other span; return whether that still holds.

        Args:
            trace_id: Its trace.
            span_id: Its id; it has no parent in this process.
            tell: Says what it has to tell, should another span of its trace come.
            now: The clock's time.
        """
        if not self.is_alone(trace_id, span_id):
            return False
        self._remember_alone(trace_id, self._traces.get(trace_id), (), tell, now)
        return True

    def passed(self, trace_id: int, span_id: int) -> bool:
        """Note that a span has ended that has nothing to tell, as most; return whether that was all.

        Where it was not - somebody waits for the span, or its trace is over with it - it is for `ended`.

        Needs no lock: whoever begins to wait for a span looks afterwards whether it is still open, and here
        it is closed before a look at who waits.
        """
        trace = self._traces.get(trace_id)
        if trace is None or trace.open.pop(span_id, True) or not trace.parents.get(span_id):
            return False
        if trace.waiting or not trace.open:
            return False
        if len(trace.parents) > _MANY_LINKS_OF_A_TRACE:
            trace.parents.pop(span_id, None)
        return True

    def happened(self, draft: Draft, now: float) -> Sequence[Settled]:
        """Take an event by itself, whose span may be open, over or unseen; return as `ended` does."""
        settled: list[Settled] = []
        trace = self._known(draft.link.trace_id)
        if trace is None:
            settled += self._make_room(now)
            trace = self._traces[draft.link.trace_id] = _Trace()
        if not self._is_double(draft, trace):
            settled += self._placed(draft, trace, now + self._wait)
        return settled

    def due(self, now: float) -> list[Settled]:
        """Return the events that have waited long enough."""
        late: dict[int, float] = {}
        while self._dues and self._dues[0][0] <= now:
            due, trace_id = self._dues.popleft()
            late[trace_id] = due
        traces = self._traces
        return [
            each
            for trace_id, due in late.items()
            if trace_id in traces
            for each in self._release(traces[trace_id], due)
        ]

    def drain(self) -> list[Settled]:
        """Return every event that waits, with what is known by now."""
        self._dues.clear()
        return [each for trace in self._traces.values() for each in self._release(trace)]

    def server_above(self, trace_id: int, span_id: int) -> int:
        """Return the span id of the open server span at or above a span; 0 where none is known."""
        trace = self._traces.get(trace_id)
        if trace is None:
            return 0
        return next((above for above in _chain(trace, span_id) if trace.open.get(above)), 0)

    def is_open(self, trace_id: int, span_id: int) -> bool:
        """Whether a span has been seen to start, and not to end."""
        trace = self._traces.get(trace_id)
        return trace is not None and span_id in trace.open

    # What is kept, and for how long

    def _known(self, trace_id: int) -> _Trace | None:
        trace = self._traces.get(trace_id)
        if trace is not None or trace_id not in self._lone:
            return trace
        lone = self._lone.pop(trace_id)
        trace = self._traces[trace_id] = _Trace()
        trace.watched = lone.watched
        link, said, _, request = lone.tell()
        self._note_end(trace, link, said, request)
        trace.viewed.add(link.span_id)
        for name in lone.names:
            trace.recorded.setdefault((link.span_id, name), [0, 0])[False] += 1
        self._over[trace_id] = lone.until
        return trace

    def _take_alone(
        self, span: EndedSpan, request: Request, trace: _Trace | None, now: float
    ) -> Sequence[Settled]:
        """Take a request of which no other span is known: nothing is to be joined, and nothing waits."""
        link, said, drafts, _ = span
        names = tuple([draft.name for draft in drafts if not draft.is_view])
        self._remember_alone(link.trace_id, trace, names, partial(EndedSpan, link, said, (), request), now)
        if said is not None and not request.user_id and len(set(said.event_users)) == 1:
            request = request._replace(user_id=said.event_users[0])
        return [(draft, request) for draft in drafts]

    def _remember_alone(
        self,
        trace_id: int,
        trace: _Trace | None,
        names: tuple[str, ...],
        tell: Callable[[], EndedSpan],
        now: float,
    ) -> None:
        if trace is not None:
            self._forget(trace_id)
        lone = self._lone
        lone[trace_id] = _Lone(now + 2 * self._wait, trace is not None, names, tell)
        for _ in range(_FORGOTTEN_AT_ONCE):
            oldest = next(iter(lone), 0)
            if not oldest or (lone[oldest].until > now and len(lone) <= self._most.traces):
                break
            del lone[oldest]

    def _note_end(self, trace: _Trace, link: Link, said: Said | None, request: Request | None) -> None:
        span_id = link.span_id
        if trace.open.pop(span_id, None) is None:
            self._place(trace, link)
        at_start = trace.said.get(span_id) if trace.said else None
        if said is not None:
            trace.said[span_id] = said if at_start is None else _either(said, at_start)
        if request is not None:
            trace.requests[span_id] = request if at_start is None else _either(request, at_start)
            if link.parent_id:
                trace.inner[link.parent_id] = span_id
        if not link.parent_id:
            trace.root_ended = True

    def _place(self, trace: _Trace, link: Link) -> bool:
        if len(trace.parents) >= _MOST_LINKS_OF_A_TRACE:
            return False
        trace.parents[link.span_id] = link.parent_id
        return True

    def _set_aside(self, trace_id: int, trace: _Trace, until: float) -> None:
        """Keep a trace that is over for spans that end after its root; forget one that told nothing."""
        if trace.requests or trace.said or trace.recorded:
            self._over.pop(trace_id, None)
            self._over[trace_id] = until
        else:
            self._forget(trace_id)

    def _make_room(self, now: float) -> list[Settled]:
        for trace_id in list(islice(self._over, _FORGOTTEN_AT_ONCE)):
            if self._over[trace_id] > now:
                break
            if self._traces[trace_id].waiting or self._traces[trace_id].open:
                del self._over[trace_id]  # a late span keeps it; its end sets it aside again
            else:
                self._forget(trace_id)
        settled: list[Settled] = []
        self._unseen_traces += 1
        if self._unseen_traces >= _LINKS_ARE_COUNTED_EVERY:
            self._unseen_traces = 0
            self._links = sum([len(trace.parents) for trace in self._traces.values()])
        while len(self._traces) >= self._most.traces or self._links >= self._most.links:
            oldest = next(iter(self._over), 0) or next(iter(self._traces))
            settled += self._release(self._traces[oldest])
            self._forget(oldest)
        return settled

    def _forget(self, trace_id: int) -> None:
        self._over.pop(trace_id, None)
        self._links = max(self._links - len(self._traces.pop(trace_id).parents), 0)

    def _release_oldest(self) -> list[Settled]:
        """Let the longest waiting go, a quarter at once."""
        settled: list[Settled] = []
        most = self._most
        while self._dues and (self._waiting > most.waiting * 3 // 4 or self._bytes > most.size * 3 // 4):
            settled += self.due(self._dues[0][0])
        return settled

    def _uncount(self, held: Sequence[tuple[Draft, float]]) -> None:
        self._waiting -= len(held)
        self._bytes -= sum(draft.size for draft, _ in held)
        for _, due in held:
            self._waiting_until[due] -= 1
            if not self._waiting_until[due]:
                del self._waiting_until[due]

    # Who is joined to what

    def _settle(self, link: Link, trace: _Trace, drafts: Sequence[Draft], due: float) -> list[Settled]:
        """Look at the events of a span that has ended, and again at those that have waited for it."""
        held = trace.waiting.pop(link.span_id, ())
        self._uncount(held)
        settled: list[Settled] = []
        for draft, was_due in held:
            settled += self._placed(draft, trace, was_due)
        for draft in drafts:
            if not self._is_double(draft, trace):
                settled += self._placed(draft, trace, due)
        return settled

    def _is_double(self, draft: Draft, trace: _Trace) -> bool:
        if draft.is_view:
            return False
        seen = trace.recorded.setdefault((draft.link.span_id, draft.name), [0, 0])
        seen[draft.is_log] += 1
        is_double = seen[draft.is_log] <= seen[not draft.is_log]
        self._doubles += is_double
        if is_double and self.left_out is not None:
            self.left_out.append(draft)
        return is_double

    def _placed(self, draft: Draft, trace: _Trace, due: float) -> Sequence[Settled]:
        """Return an event whose request is known; hold another one under what it waits for."""
        found = _of_view(trace, draft) if draft.is_view else _of_event(trace, draft)
        if found is None:
            if self.left_out is not None:
                self.left_out.append(draft)
            return ()
        if isinstance(found, Request):
            if draft.is_view:
                trace.viewed.add(draft.link.span_id)
            return ((draft, found),)
        trace.waiting.setdefault(found, []).append((draft, due))
        self._waiting += 1
        self._bytes += draft.size
        self._waiting_until[due] += 1
        # One that waits again is in the line already: whoever waits anew is due last.
        if not self._dues or (due >= self._dues[-1][0] and self._dues[-1] != (due, draft.link.trace_id)):
            self._dues.append((due, draft.link.trace_id))
        if found in trace.parents and found not in trace.open:
            # It has ended since it was found, see `passed`, and its thread may have missed that this waits.
            return self._settle(Link(0, found), trace, (), due)
        if self._waiting > self._most.waiting or self._bytes > self._most.size:
            return self._release_oldest()
        return ()

    def _release(self, trace: _Trace, due: float = float("inf")) -> list[Settled]:
        """Take out events that can wait no longer than ``due``, with what is known by now."""
        settled: list[Settled] = []
        for span_id, held in list(trace.waiting.items()):
            late = [each for each in held if each[1] <= due]
            left = [each for each in held if each[1] > due]
            if left:
                trace.waiting[span_id] = left
            else:
                del trace.waiting[span_id]
            self._uncount(late)
            settled += [(draft, _with_what_is_known(trace, draft)) for draft, _ in late]
        return settled


def _is_alone(trace: _Trace | None, span_id: int) -> bool:
    """Whether a span that ends is the last open one of its trace, and none of the others told anything."""
    return trace is None or (
        len(trace.open) == 1
        and span_id in trace.open
        and not (trace.said or trace.waiting or trace.recorded or trace.requests)
    )


def _alone(span: EndedSpan) -> list[Settled]:
    """Return the events of a span without a context, which nothing can be joined to."""
    request = span.request or NO_REQUEST
    if span.said is not None:
        request = _either(request, span.said)
    return [(draft, request) for draft in span.drafts]


_Speaker = TypeVar("_Speaker", Said, Request)


def _either(first: _Speaker, then: Said | Request) -> _Speaker:
    """Let somebody else say what the first does not."""
    return first._replace(
        user_id=first.user_id or then.user_id,
        session_id=first.session_id or then.session_id,
        operation=first.operation or then.operation,
    )


_Found = Request | int | None
"""What an event is joined to, or the span that it waits for, or `None`: it is another event's double."""


def _of_view(trace: _Trace, draft: Draft) -> _Found:
    """Find what the view of a server span is made of.

    Its request may be seen twice, or the spans below it that are still open may name its user.
    """
    span_id = draft.link.span_id
    parent = trace.parents.get(span_id, 0)
    if _may_be_server(trace, parent):
        return parent
    inner = trace.inner.get(span_id, 0)
    if _is_inner(trace, span_id) and trace.requests[parent].has_view:
        return None
    if inner in trace.viewed and _is_inner(trace, inner):
        return None
    if _is_carried(trace, inner) or (_is_carried(trace, span_id) and not _is_the_message(trace, span_id)):
        return None
    return _named_or_open(trace, span_id, _joined(trace, span_id))


def _of_event(trace: _Trace, draft: Draft) -> _Found:
    """Find the request of a business event: that of the nearest server span above it."""
    for above in _chain(trace, draft.link.span_id):
        if above in trace.requests:
            parent = trace.parents.get(above, 0)
            if _may_be_server(trace, parent):
                return parent
            request = _for_event(trace, draft, _joined(trace, above))
            return request if draft.user_id else _named_or_open(trace, above, request)
        if trace.open.get(above):
            return above
        if above not in trace.parents:
            return _beyond_the_known(trace, draft, above)
        if not trace.parents[above]:
            return above if above in trace.open else _for_event(trace, draft, NO_REQUEST)
    return _for_event(trace, draft, NO_REQUEST)


def _named_or_open(trace: _Trace, server: int, request: Request) -> Request | int:
    """Return a request that somebody makes, else a span below its server span that may yet tell who."""
    if request.user_id:
        return request
    for below in tuple(trace.open):
        if server in _chain(trace, below):
            return below
    for below in () if trace.watched else trace.said:
        *_, top = _chain(trace, below)
        if top not in trace.parents:  # a name whose place will be known once this one ends
            return top
    return request


def _with_what_is_known(trace: _Trace, draft: Draft) -> Request:
    if draft.is_view:
        trace.viewed.add(draft.link.span_id)
        return _joined(trace, draft.link.span_id)
    return _of_around(trace, draft)


def _beyond_the_known(trace: _Trace, draft: Draft, unknown: int) -> Request | int:
    """Find the request of an event below a span that is not known: one open elsewhere, or not recorded.

    In a trace whose spans are seen to start, it is not recorded, as CLIENT spans that tracing drops: then the
    event waits for a server span that is open, and takes the one around it.
    """
    if not trace.watched:
        return unknown
    open_server = next((each for each, is_server in tuple(trace.open.items()) if is_server), 0)
    return open_server or _of_around(trace, draft)


def _of_around(trace: _Trace, draft: Draft) -> Request:
    """Return the request above an event, else the only one whose time encloses it."""
    above = next((each for each in _chain(trace, draft.link.span_id) if each in trace.requests), 0)
    if not above:
        requests = trace.requests.items()
        around = [each for each, request in requests if request.start <= draft.nanos <= request.end]
        above = around[0] if len(around) == 1 else 0
    return _for_event(trace, draft, _joined(trace, above) if above else NO_REQUEST)


def _may_be_server(trace: _Trace, span_id: int) -> bool:
    """Whether a span may yet turn out to be a server span; one that was seen to start is known."""
    if not span_id or span_id in trace.requests:
        return False
    return trace.open.get(span_id, not trace.watched and span_id not in trace.parents)


def _is_inner(trace: _Trace, span_id: int) -> bool:
    """Whether a server span serves the request of the server span right above it."""
    outer = trace.requests.get(trace.parents.get(span_id, 0))
    return outer is not None and outer.method == trace.requests[span_id].method


_CARRIED: Final = frozenset({"RPC", "MCP"})
_CARRIER: Final = "POST"


def _is_carried(trace: _Trace, span_id: int) -> bool:
    """Whether a server span serves a message that came in the request of the server span right above it."""
    request = trace.requests.get(span_id)
    if request is None or request.method not in _CARRIED:
        return False
    outer = trace.requests.get(trace.parents.get(span_id, 0))
    if outer is None or outer.method != _CARRIER:
        return False
    # The task of an MCP session goes on in the context of the request that began it.
    return outer.start <= request.start <= outer.end


def _is_the_message(trace: _Trace, span_id: int) -> bool:
    """Whether a message counts for the request in which it came, rather than that itself, or another message.

    A POST has one MCP message (MCP, "Streamable HTTP"), but FastMCP lists its tools before it calls one, with
    a span of its own.
    """
    parent = trace.parents[span_id]
    is_last = trace.requests[span_id].method != "MCP" or trace.inner[parent] == span_id
    return is_last and parent not in trace.viewed


def _joined(trace: _Trace, span_id: int) -> Request:
    """Return a request with the user, the session and the route that all its spans together tell."""
    for above in _chain(trace, span_id):
        span_id = above
        if not _is_inner(trace, above):
            break
    request = trace.requests[span_id]
    below = span_id
    while (below := trace.inner.get(below, 0)) and _is_inner(trace, below):
        request = _merged(request, trace.requests[below])
    if not request.user_id and trace.said:
        request = request._replace(user_id=_agreed(trace, span_id))
    if not request.operation and trace.said:
        request = request._replace(operation=_operation(trace, span_id))
    if _is_carried(trace, span_id):
        carrier = _joined(trace, trace.parents[span_id])
        request = _either(request, carrier)._replace(
            address=request.address or carrier.address, entry=request.entry or carrier.entry
        )
    return request


def _merged(outer: Request, inner: Request) -> Request:
    """Return a request that two server spans tell: as the outer one does, with the better route."""
    better = max(outer, inner, key=_worth_of_route)
    return outer._replace(
        user_id=outer.user_id or inner.user_id,
        session_id=outer.session_id or inner.session_id,
        route=better.route,
        is_route=better.is_route,
        content_id=outer.content_id or inner.content_id,
        address=outer.address or inner.address,
    )


def _worth_of_route(request: Request) -> tuple[bool, int]:
    return request.is_route, request.route.count("/")


def _agreed(trace: _Trace, span_id: int) -> str:
    """Return the one user whom the spans at and below a server span and their events name, or nobody."""
    users: set[str] = set()
    for below, said in trace.said.items():
        if span_id in _chain(trace, below):
            users.update(said.event_users, (said.user_id,))
    users.discard("")
    return users.pop() if len(users) == 1 else ""


def _operation(trace: _Trace, span_id: int) -> str:
    """Return the GraphQL operation that a span at or below a server span names."""
    named = (below for below, said in trace.said.items() if said.operation)
    return next((trace.said[below].operation for below in named if span_id in _chain(trace, below)), "")


def _for_event(trace: _Trace, draft: Draft, request: Request) -> Request:
    """Let the spans at and above an event, nearest first, win over its request."""
    if not trace.said:
        return request
    said = [trace.said[above] for above in _chain(trace, draft.link.span_id) if above in trace.said]
    return request._replace(
        user_id=next((each.user_id for each in said if each.user_id), request.user_id),
        session_id=next((each.session_id for each in said if each.session_id), request.session_id),
    )


def _chain(trace: _Trace, span_id: int) -> Iterator[int]:
    """Yield a span and those above it as far as they are known; bounded, should ids go in a circle."""
    for _ in range(_LONGEST_CHAIN):
        if not span_id:
            return
        yield span_id
        span_id = trace.parents.get(span_id, 0)
