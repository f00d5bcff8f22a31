"""OTLP to the client: decoded, mapped, joined, and known by a receipt until its last event has arrived.

Whoever answers an exporter, or commits an offset, may do so only once the events are safe. An event may wait
for its server span in the join before the client has it, so `Intake.take` returns a `Receipt`, which says how
far they are. Nothing is taken that the client has no room for: who sends it keeps it, and sends it again.

An `Intake` belongs to one thread, which asks its receipts again and again while any are open: that is also
what lets events go that have waited long enough.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from opentelemetry.trace import SpanKind

from otel_analytics.bridge.otlp import REQUEST, Encoding, is_valid, logs_of, spans_of
from otel_analytics.client import AnalyticsClient
from otel_analytics.errors import AnalyticsError
from otel_analytics.events import EncodedEvent
from otel_analytics.mapping.engagements import Occurrence, log_event
from otel_analytics.mapping.identity import Bounds, Link
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.reading import has_events
from otel_analytics.sdk.intake import SpanIntake, _State


class Signal(Enum):
    """What is sent."""

    TRACES = "traces"
    LOGS = "logs"


class NoRoomError(AnalyticsError):
    """The client cannot take so much now: nothing was taken, so send it again later."""


class Receipt:
    """How far the events of one request or message are.

    Args:
        intake: Which took it.
        due: When those leave the join that still wait there.
        rejected: How many spans were none, for want of ids.
    """

    __slots__ = ("_due", "_intake", "_is_accepted", "_mark", "rejected")

    def __init__(self, intake: Intake, due: float, rejected: int = 0) -> None:
        self.rejected = rejected
        self._intake = intake
        self._due = due
        self._is_accepted = False
        self._mark: Any = None

    def is_accepted(self) -> bool:
        """Whether all of them are in the client's queue, in its spool where it has one, or were dropped."""
        if not self._is_accepted:
            self._is_accepted = not self._intake.holds(self._due)
        return self._is_accepted

    def is_settled(self) -> bool:
        """Whether all of them are delivered, or were dropped with a reason that was counted."""
        if not self.is_accepted():
            return False
        if self._mark is None:
            self._mark = self._intake.client.mark()
        return self._intake.client.is_settled(self._mark)


class Intake:
    """Takes OTLP for a client; for one thread, and never blocks.

    Args:
        client: Delivers; its options say how spans are mapped. Each service's views have its own name unless
            `app_name` says otherwise.
    """

    def __init__(self, client: AnalyticsClient) -> None:
        self.client = client
        self._joined = _Joined(client)

    def take(self, body: bytes, signal: Signal, encoding: Encoding) -> Receipt:
        """Take a request's spans or log records.

        Args:
            body: An ``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``.
            signal: Which of the two.
            encoding: How it is written.

        Raises:
            OtlpError: It is no such thing.
            NoRoomError: The client's queue has no room for what it may give.
        """
        rejected = 0
        if signal is Signal.LOGS:
            occurrences = [_occurrence(each) for each in logs_of(body, encoding)]
            self._make_sure_of_room(len(occurrences))
            due = self._joined.begin()
            self._joined.happened(occurrences)
        else:
            sent = spans_of(body, encoding)
            spans = [span for span in sent if is_valid(span)]
            rejected = len(sent) - len(spans)
            self._make_sure_of_room(_most_events(spans))
            due = self._joined.begin()
            self._joined.take(spans)
            if rejected:
                self.client.refuse("invalid", rejected)
        return Receipt(self, due, rejected)

    def submit(self, events: Sequence[EncodedEvent]) -> None:
        """Take events that are made already; they are accepted when it returns.

        Raises:
            NoRoomError: The client's queue has no room for them.
        """
        self._make_sure_of_room(len(events))
        self.client.submit(events)

    def has_room(self, count: int = 1) -> bool:
        """Whether so many more events would displace none, those in the join counted."""
        return self.client.has_room(count + self._joined.waiting)

    def holds(self, due: float) -> bool:
        """Whether something waits in the join that leaves it then; lets go of what is due by now."""
        self._joined.release_due()
        return self._joined.waiting_until(due)

    def drain(self) -> None:
        """Let go of whatever waits, with what is known by now."""
        self._joined.release()

    def _make_sure_of_room(self, count: int) -> None:
        # What is larger than the queue is taken when that is empty.
        if not self.has_room(min(count, self.client.config.max_queue_size - self._joined.waiting)):
            raise NoRoomError("the events' queue is full")


class _Joined(SpanIntake):
    """The join of many processes, in which a request is a trace within a process.

    Its clock stands still while a request or message is taken, so that all of it that waits is due at once.
    """

    def __init__(self, client: AnalyticsClient) -> None:
        self._moment = time.monotonic()
        super().__init__(client, REQUEST, _OF_A_FLEET)
        self.has_exporter = True  # so log records are joined to spans
        self._wait = client.config.identity_wait_millis / 1000

    def begin(self) -> float:
        """Begin to take; return when what waits of it will be due."""
        self._moment = max(time.monotonic(), math.nextafter(self._moment, math.inf))
        return self._moment + self._wait

    def _now(self) -> float:
        return self._moment

    @property
    def waiting(self) -> int:
        return self._state().requests.waiting

    def waiting_until(self, due: float) -> bool:
        return self._state().requests.waiting_until(due) > 0

    def release_due(self) -> None:
        """Hand on what has waited long enough; what lacks its server span then is of a scattered trace."""
        state = self._state()
        with state.lock:
            settled = state.requests.due(time.monotonic())
        if not settled:
            return
        self._hand_on(self._made(settled))
        scattered = sum(not request.method for _, request in settled)
        if scattered:
            self.client.note("scattered", scattered, _SCATTERED)

    def _is_timed(self, state: _State) -> bool:  # noqa: ARG002
        return True  # by the bridge, which asks its receipts


_OF_A_FLEET: Final = Bounds(traces=65_536, links=300_000, waiting=65_536, size=64_000_000)
_SCATTERED: Final = (
    "events left without their server span, which has not come here in time: their users may be missing; have"
    " each trace come to one bridge, by its id"
)
_SERVER: Final = SpanKind.SERVER


def _most_events(spans: Sequence[Span]) -> int:
    """Return how many events spans give at most."""
    return sum((span.kind is _SERVER) + (len(span.events) if has_events(span) else 0) for span in spans)


def _occurrence(record: Any) -> Occurrence:
    occurrence = log_event(record)
    return occurrence._replace(link=Link(record.request, record.span_id))
