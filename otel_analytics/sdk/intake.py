"""From the SDK's spans and log records to the client: mapped, joined, handed on.

The one way for every adapter. Spans come from any thread, one by one or in batches; what they give is joined
(`mapping.identity`) under a lock, and made and handed on outside of it, since that runs the application's
code. What waits for its server span leaves in time by a thread that lives only while something waits, and
before that whenever the client flushes, the process ends, or SIGTERM comes.

A fork leaves the parent what waits there; the child begins anew. The process's id tells, since a fork need
not run any hook (uWSGI).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from os import getpid
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Span, SpanContext, SpanKind, get_tracer_provider

from otel_analytics import process
from otel_analytics.client import AnalyticsClient
from otel_analytics.delivery.logs import log_safely, tell_once
from otel_analytics.delivery.start import (
    ALL_CALLS,
    RECORDED_CALLS,
    SAMPLED_CALLS,
    tell_nameless,
    tell_sampled_out,
)
from otel_analytics.errors import FOREIGN_ERRORS, ConfigError
from otel_analytics.mapping import semconv
from otel_analytics.mapping.engagements import Occurrence
from otel_analytics.mapping.identity import (
    NO_REQUEST,
    OF_ONE_PROCESS,
    Bounds,
    EndedSpan,
    Requests,
    Said,
    Settled,
)
from otel_analytics.mapping.options import options_from_config
from otel_analytics.mapping.privacy import first_id, name_without_ids
from otel_analytics.mapping.protocol import Span as AnySpan
from otel_analytics.mapping.reading import TOLD, TRACE_ID, NotMade, TraceOf, has_events, link_of
from otel_analytics.mapping.reasons import NEAR_MISS, NOT_BUSINESS, REASONS, SAMPLED_OUT, UNKNOWN_PROTOCOL
from otel_analytics.mapping.spans import SpanMapper
from otel_analytics.mapping.values import has_any
from otel_analytics.options import Options
from otel_analytics.sdk.explaining import tell_left_out, tell_view, told, told_span
from otel_analytics.sdk.sampler import counts_unsampled, leaves_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

_SERVER: Final = SpanKind.SERVER  # a look-up costs a call on Python 3.10, and this is asked for every span
_MOST_OPEN_REQUESTS: Final = 10_000
_LOCK_SECONDS: Final = 1.0
_LONGEST_NAME: Final = 128
_SHORTEST_SLEEP: Final = 0.05
_IS_REMOTE: Final = 2  # in a SpanContext, which is a tuple
_TAKEN_BY: Final = "_otel_analytics_taken_by"


class Adapter:
    """What every adapter has: a client of its own or one it shares, and the intake before it.

    Args:
        endpoint: Base URL of the collector.
        client: A client to share instead of options; the adapter then leaves it open at its own shutdown.
        **options: Any other option of `Config`, such as ``app_name`` and ``write_key``.

    Raises:
        ConfigError: An option, or its environment variable, has a value it cannot have, or there are both a
            client and options.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        client: AnalyticsClient | None = None,
        **options: Unpack[Options],
    ) -> None:
        given = (endpoint, *options.values())
        if client is not None and any(value is not None for value in given):
            raise ConfigError("client: give either a client or options; the client has its own")
        self._owns_client = client is None
        self._client = client or AnalyticsClient(endpoint, **options)
        self._intake = intake_of(self._client)
        self._closed = False
        self._made()

    def _made(self) -> None:
        """Do what one kind of adapter needs beside that."""

    @property
    def client(self) -> AnalyticsClient:
        """The client that delivers; track further events with it, or ask it for `stats`."""
        return self._client

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Wait until everything taken before is delivered or dropped, at most ``timeout_millis``."""
        return self._client.flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Deliver what is left and close.

        Args:
            timeout_millis: Longest wait, milliseconds. `BatchSpanProcessor` passes what is left of its 30
                seconds, so the option ``shutdown_timeout_millis`` wins where it is less.
        """
        if self._closed:
            return
        self._closed = True
        timeout = min(timeout_millis, self._client.config.shutdown_timeout_millis)
        if self._owns_client:
            self._client.shutdown(timeout)
        else:
            self._client.flush(timeout)


def intake_of(client: AnalyticsClient) -> SpanIntake:
    """Return the intake before a client, one for all its adapters: what they take is joined."""
    known = (each for each in client.upstream if isinstance(each, SpanIntake))
    return next(known, None) or SpanIntake(client)


class SpanIntake:
    """Maps and joins spans and hands their events to a client; safe to call from any thread, never raises.

    Args:
        client: Delivers; its options say how spans are mapped.
        trace_of: Returns the `Link.trace_id` of a span's context.
        bounds: How much is remembered of requests.
    """

    def __init__(
        self, client: AnalyticsClient, trace_of: TraceOf = TRACE_ID, bounds: Bounds = OF_ONE_PROCESS
    ) -> None:
        self._bounds = bounds
        self.client = client
        self.mapper = SpanMapper(options_from_config(client.config), client.form, trace_of)
        self._states: dict[int, _State] = {}
        self._requests: Requests
        self._mark = client.config.endpoint
        self._explains = client.config.debug
        self.has_exporter = False
        self.has_processor = False
        self._has_begun = False
        client.add_upstream(self)
        self._state()

    def started(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        """Learn of a span that has started.

        Args:
            span: A recording span of the SDK.
            parent_context: In which it started.
        """
        # Most spans are below others of a request. Read by the SDK's own fields: its properties cost more.
        try:
            context: Any = span._context  # noqa: SLF001
            parent: Any = span._parent  # noqa: SLF001
            if parent is not None and span._kind is not _SERVER and not parent[_IS_REMOTE]:  # noqa: SLF001
                requests = self._states[getpid()].requests
                if requests.started_below(context[0], context[1], parent[1]):
                    return
        except (AttributeError, KeyError, TypeError):  # a span of another kind, or a child's first
            pass
        state = self._state()
        is_server = span.kind is _SERVER
        link = link_of(span)
        said = None
        if is_server:
            state.remember(link.span_id, span)
            if self.client.config.trusted_baggage:
                said = self._said_by_baggage(parent_context)
        with state.lock:
            settled = state.requests.started(link, time.monotonic(), is_server=is_server, said=said)
        if settled:
            self._hand_on(self._made(settled))

    def passed(self, span: Any) -> bool:
        """Let an ended span pass that has nothing to tell; return whether that was all there is to do.

        Args:
            span: An ended span, straight from the SDK.
        """
        try:
            if span._kind is _SERVER:  # noqa: SLF001
                return False
            events = span._events  # noqa: SLF001
            if events._dq or events.dropped or not TOLD.isdisjoint(span._attributes._dict):  # noqa: SLF001
                return False
            context = span._context  # noqa: SLF001
            # Not asked for the process: a forked child's spans have started in it, or are not known there.
            return self._requests.passed(context[0], context[1])
        except (AttributeError, KeyError, TypeError):
            return False

    def take(self, spans: Iterable[AnySpan], *, patience_millis: float = 0, is_first: bool = False) -> None:
        """Take ended spans.

        Args:
            spans: Ended spans, of any kind, as they ended.
            patience_millis: Longest wait, milliseconds, for room in the client's queue.
            is_first: Whether the spans come straight from the SDK: an exporter for the same collector then
                leaves them alone.
        """
        state = self._state()
        made: list[Any] = []
        doubles = 0
        for span in spans:
            if not is_first and getattr(span, _TAKEN_BY, None) == self._mark:
                doubles += 1
                continue
            made += self._taken(span, state, is_first=is_first)
        if state.requests.waiting:
            made += self._made(self._released(state))
        if made:
            self._hand_on(made, patience_millis)
        elif self.mapper.noticed.is_due:
            self.note()
        if doubles:
            self.client.note("taken_twice", doubles, _TAKEN_TWICE)

    def _taken(self, span: AnySpan, state: _State, *, is_first: bool) -> Sequence[Any]:
        """Return what leaves now that a span has ended."""
        view = self._whole(span, state, is_first=is_first)
        made: Sequence[Any] = () if view is None else (view,)
        if self._explains and view is not None:
            tell_view(span, view)
        is_telling = view is not None
        if view is None:
            ended = self._read(span, is_first=is_first)
            if ended is None:
                return ()
            is_telling = bool(ended.drafts) or has_events(span) or span.kind is _SERVER
            with state.lock:
                settled = state.requests.ended(ended, self._now())
            made = self._made(settled)
        if is_first and is_telling:
            setattr(span, _TAKEN_BY, self._mark)
        if state.servers:
            state.servers.pop(span.context.span_id if span.context else 0, None)
        return made

    def happened(self, occurrences: Iterable[Occurrence]) -> None:
        """Take what happened beside the spans; a business event is joined to its span's request.

        Args:
            occurrences: Log records, or what application code tells.
        """
        state = self._state()
        settled: list[Settled] = []
        drafts = self.mapper.draft_all(occurrences)
        if self._explains:
            drafts = [told(draft, "log record" if draft.is_log else "track") for draft in drafts]
        for draft in drafts:
            if draft.link.trace_id and (self.has_processor or self.has_exporter):
                with state.lock:
                    settled += state.requests.happened(draft, self._now())
            else:
                settled.append((draft, NO_REQUEST))
        self._hand_on(self._made([*settled, *self._released(state)]))

    def release(self) -> None:
        """Hand on whatever waits, with what is known by now."""
        state = self._state()
        # A signal's handler may have interrupted whoever holds the lock.
        if not state.lock.acquire(timeout=_LOCK_SECONDS):
            return
        try:
            settled = state.requests.drain()
        finally:
            state.lock.release()
        state.wake.set()
        self._hand_on(self._made(settled))

    def tell(self, occurrence: Occurrence) -> None:
        """Take what application code tells, which is meant to be a business event.

        Args:
            occurrence: What happened.
        """
        try:
            if self.mapper.draft_all((occurrence,)):
                self.happened((occurrence,))
                return
        except FOREIGN_ERRORS:
            log_safely(logging.DEBUG, "an event could not be made", exc_info=True)
        self.client.refuse("invalid")
        self._tell_unknown(occurrence.name[:_LONGEST_NAME])

    def look_at(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Say so where application code puts on a span, as a business event, what is none.

        Args:
            name: Its name.
            attributes: Its attributes.
        """
        if not has_any(attributes, semconv.METRIC_TYPE) and self.mapper.business.known(name) is None:
            self._tell_unknown(name[:_LONGEST_NAME])

    def _tell_unknown(self, said: str) -> None:
        self.client.note("unknown_event", 1)
        name, why = name_without_ids(said), self.mapper.business.why_not(said)
        tell_once(logging.WARNING, _UNKNOWN_EVENT, name, why, what=f"unknown_event {name}")

    def will_see(self, span: Span) -> bool:
        """Whether a span is recorded and comes here when it ends."""
        context = span.get_span_context()
        if not span.is_recording():
            return False
        state = self._state()
        with state.lock:
            is_seen = state.requests.is_open(context.trace_id, context.span_id)
        return is_seen or (self.has_exporter and context.trace_flags.sampled)

    def note_sampled_out(self) -> None:
        """Count a call that tracing samples out, and that nothing here will ever see."""
        is_alone = self.has_exporter and not self.has_processor
        if is_alone and self.client.config.count_unsampled and not self.client.is_closed:
            self.client.note(SAMPLED_OUT, 1)
            tell_sampled_out()

    def server_span(self, context: SpanContext) -> Span | None:
        """Return the open server span of the request in which a span is; `None` where none is known."""
        state = self._state()
        with state.lock:
            span_id = state.requests.server_above(context.trace_id, context.span_id)
        return state.servers.get(span_id)

    def at_exit(self) -> None:
        """Have what waits sent, also where its client has had nothing to deliver before."""
        if self._state().requests.waiting:
            self.client.flush(self.client.config.shutdown_timeout_millis)

    def before_fork(self) -> None:
        """Do nothing: a child begins anew."""

    def after_fork_in_parent(self) -> None:
        """Do nothing."""

    def after_fork_in_child(self) -> None:
        """Do nothing."""

    def _said_by_baggage(self, context: Context | None) -> Said | None:
        sent = baggage.get_all(context)
        trusted = {key: sent[key] for key in self.client.config.trusted_baggage if key in sent}
        said = Said(first_id(trusted, semconv.USER_ID), first_id(trusted, semconv.SESSION_ID))
        return said if said.user_id or said.session_id else None

    def _whole(self, span: AnySpan, state: _State, *, is_first: bool) -> Any:
        """Return what a span gives that is a whole request, as many are; `None` where it may not be one."""
        try:
            context, parent = span.context, span.parent
            if span.kind is not _SERVER or context is None or not (parent is None or parent.is_remote):
                return None
            trace_id, span_id = self.mapper.trace_of(context), context.span_id
            # Without the lock: it is asked again below, where it counts.
            if not (trace_id and state.requests.is_alone(trace_id, span_id)):
                return None
            whole = self.mapper.read_whole(span, sampled_only=not is_first)
        except Exception:  # noqa: BLE001 - to be looked at with more care
            return None
        if whole is None:
            return None
        with state.lock:
            is_alone = state.requests.passed_alone(trace_id, span_id, whole.tell, self._now())
        return whole.view if is_alone else None

    def _read(self, span: AnySpan, *, is_first: bool) -> EndedSpan | None:
        try:
            ended = self.mapper.read(span, sampled_only=not is_first)
        except Exception:  # noqa: BLE001 - one span that cannot be read must not take its batch along
            log_safely(logging.DEBUG, "a span could not be mapped", exc_info=True)
            self.client.refuse("invalid")
            return None
        if span.dropped_events:
            self.client.note("span_limits", span.dropped_events, _SPAN_LIMITS)
        return told_span(span, ended, self.mapper.business) if self._explains else ended

    def _released(self, state: _State) -> Sequence[Settled]:
        """Return what may not wait: all, where nobody would come back for it."""
        if not state.requests.waiting:
            return ()
        if self.client.config.identity_wait_millis and not process.is_exiting() and self._is_timed(state):
            return ()
        with state.lock:
            return state.requests.drain()

    def _is_timed(self, state: _State) -> bool:
        """Have a thread come back for what waits; return whether there is one."""
        if state.timer is not None:
            return True
        try:
            threading.Thread(
                target=self._release_in_time, args=(state,), name="otel-analytics-join", daemon=True
            ).start()
        except RuntimeError:  # the interpreter is ending, or has no threads left
            return False
        return True

    def _release_in_time(self, state: _State) -> None:
        me = threading.current_thread()
        try:
            while (due := self._next_due(state, me)) is not None:
                # Several at once: looking for them takes a while where a job's trace holds thousands.
                state.wake.wait(max(due - time.monotonic(), _SHORTEST_SLEEP))
                with state.lock:
                    settled = state.requests.due(time.monotonic())
                self._hand_on(self._made(settled))
        finally:
            with state.lock:
                if state.timer is me:
                    state.timer = None

    @staticmethod
    def _next_due(state: _State, me: threading.Thread) -> float | None:
        """Return when something has waited long enough; `None` ends the thread."""
        with state.lock:
            # Of two threads started at once the second finds the first.
            if state.timer not in (None, me):
                return None
            state.wake.clear()
            due = state.requests.next_due
            # In the same step as the look, so that who waits from now on starts another one.
            state.timer = None if due is None else me
            return due

    def _made(self, settled: Sequence[Settled]) -> list[Any]:
        """Return the events of drafts, or why there are none."""
        if self._explains:
            self._tell_left_out()
        made = []
        for draft, request in settled:
            try:
                made.append(draft.make(request))
            except Exception:  # noqa: BLE001, PERF203 - an attribute of somebody's own class
                log_safely(logging.DEBUG, "an event could not be made", exc_info=True)
                self.client.refuse("invalid")
        return made

    def _tell_left_out(self) -> None:
        left_out = self._state().requests.left_out
        with suppress(IndexError):  # another thread takes them too
            while left_out:
                tell_left_out(left_out.popleft())

    def _hand_on(self, made: Sequence[Any], patience_millis: float = 0) -> None:
        events = [each for each in made if not isinstance(each, NotMade)]
        if len(events) < len(made):
            for each in made:
                if isinstance(each, NotMade):
                    self.client.refuse(each.reason)
        if events and not self._has_begun:
            self._begin()
        self.client.submit(events, patience_millis=patience_millis)
        self._note()

    def _begin(self) -> None:
        self._has_begun = True
        if self._bounds is not OF_ONE_PROCESS:  # spans of many services, each with a sampler of its own
            self.client.announce()
            return
        seen = SAMPLED_CALLS if self.has_exporter else ""
        if self.has_processor:
            seen = ALL_CALLS if counts_unsampled() else RECORDED_CALLS
        self.client.announce(self.mapper.service, seen)
        if seen in (RECORDED_CALLS, SAMPLED_CALLS) and self.client.config.count_unsampled:
            sampler = leaves_out(get_tracer_provider())
            if sampler:
                tell_sampled_out(sampler)

    def _note(self) -> None:
        if self.mapper.is_nameless:
            self.mapper.is_nameless = False
            tell_nameless()
        folded = self.mapper.take_folded_endpoints()
        if folded:
            self.client.note("endpoints_folded", folded, _FOLDED)
        redacted = self.mapper.take_redacted_ids()
        if redacted:
            self.client.note("ids_redacted", redacted, _REDACTED)
        if self.mapper.noticed.is_due:
            self.note()
        doubles = self._state().requests.take_doubles()
        if doubles:
            self.client.note("recorded_twice", doubles, _RECORDED_TWICE)

    def note(self) -> None:
        """Count what has given nothing, and say once what it is called."""
        self._state()  # a child's, which lets go of what the parent counts
        counts, new = self.mapper.noticed.take()
        for why, count in counts.items():
            self.client.note(why, count)
        for why, name, near in new:
            level, text = _NOTICED[why]
            shown = f"{name!r} ({near}?)" if near else repr(name)
            tell_once(level, text, shown, what=f"{why} {name}")

    def _now(self) -> float:
        return time.monotonic()

    def _state(self) -> _State:
        try:
            return self._states[os.getpid()]
        except KeyError:
            requests = Requests(self.client.config.identity_wait_millis / 1000, self._bounds)
            if self._explains:
                requests.left_out = deque()
            state = self._states.setdefault(os.getpid(), _State(requests))
            self._requests = state.requests
            self.mapper.noticed.take()
            process.register(self)
            for other in [pid for pid in self._states if pid != os.getpid()]:
                self._states.pop(other, None)
            return state


class _State:
    """What an intake holds in one process."""

    def __init__(self, requests: Requests) -> None:
        self.lock = threading.Lock()
        self.requests = requests
        self.servers: dict[int, Span] = {}
        self.timer: threading.Thread | None = None
        self.wake = threading.Event()

    def remember(self, span_id: int, server_span: Span) -> None:
        """Keep a server span while it is open; the oldest of too many never ends."""
        if len(self.servers) >= _MOST_OPEN_REQUESTS:
            self.servers.pop(next(iter(self.servers)), None)
        self.servers[span_id] = server_span


_FOLDED = "calls without a route were folded into {other}; see max_endpoints"
_REDACTED = "spans or events came with a placeholder where a user or session was, which is nobody"
_SPAN_LIMITS = "spans lost events before they came here; raise OTEL_SPAN_EVENT_COUNT_LIMIT"
_UNKNOWN_EVENT = "track(%r) gives no business event: %s; name it in business_events"
_RECORDED_TWICE = "events were recorded as a span event and as a log record, and are counted once"
_TAKEN_TWICE = "spans came through AnalyticsSpanProcessor already, and AnalyticsSpanExporter left them alone"
_NOTICED: Mapping[str, tuple[int, str]] = {
    NEAR_MISS: (
        logging.WARNING,
        "an event is no business event, though its name is nearly one: %s; see business_events",
    ),
    NOT_BUSINESS: (logging.DEBUG, f"an event gives nothing: %s is {REASONS[NOT_BUSINESS]}"),
    UNKNOWN_PROTOCOL: (logging.INFO, f"a span of %s gives no view: {REASONS[UNKNOWN_PROTOCOL]}"),
}
"""How loud what gives nothing is told, and in which words: what may well be meant so is told quietly."""
