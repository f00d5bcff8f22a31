"""When to send what, and what an answer changes about it: decisions only, neither threads nor clock.

Three things are asked together: the queue, what waits; the negotiation, how the collector wants it; the
throttle, how it fares. Whoever sends holds one lock around each call.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from otel_analytics.contract import ADVERTISEMENT, Kind
from otel_analytics.delivery.batch import Batch
from otel_analytics.delivery.http.negotiation import Negotiation
from otel_analytics.delivery.http.wire import Answer, NoAnswer, Outcome, Verdict
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.queue.memory import Queue
from otel_analytics.delivery.settlement import Settlement, settle
from otel_analytics.delivery.throttle import Throttle

# Each wake of the sending thread takes the interpreter from the application, so single events that come one
# by one leave several at a time.
_GATHERING_SECONDS = 0.02


class Schedule:
    """Answers "send this" or "wait until".

    Args:
        queue: Where events wait.
        negotiation: How the collector wants them.
        throttle: How fast it takes them.
        life: Of all this.
    """

    def __init__(self, queue: Queue, negotiation: Negotiation, throttle: Throttle, life: Life) -> None:
        self.throttle = throttle
        self._queue = queue
        self._negotiation = negotiation
        self._life = life
        self._flush_through = 0  # the sequence up to which events do not wait for others to travel with
        self._probes = False  # whether what waits out a delay of its own goes once more, for a flush
        self._gathers_until = -math.inf  # after single events went: more of them are sent together then
        self._has_sent = False
        self._asked_until = -math.inf  # by the collector, for some events of a batch
        # What would change the last answer, were it put into the queue.
        self._awaited: Collection[Kind] = tuple(Kind)
        self._awaited_events, self._awaited_bytes = 1.0, math.inf

    def is_awaited(self) -> bool:
        """Whether the queue holds by now what would change the last answer; needs no lock, and is cheap."""
        return self._awaited_events < math.inf and self._queue.holds(
            self._awaited, self._awaited_events, self._awaited_bytes
        )

    def next(self, now: float) -> Batch | float:
        """Return what to send now, which then counts as sent, or until when to wait (monotonic seconds)."""
        maintenance_due_at = self._queue.maintenance_due_at()
        if now >= maintenance_due_at:
            self._queue.maintain(now)
            maintenance_due_at = self._queue.maintenance_due_at()
        batch = self._batch(now)
        if isinstance(batch, Batch):
            self.throttle.sent(batch, now)
            return batch
        return min(batch, maintenance_due_at)

    def compresses(self, now: float) -> bool:
        """Whether the collector takes gzip."""
        return self._negotiation.plan(now).gzip

    def begin_flush(self) -> None:
        """Let nothing accepted so far wait for others to travel with, or out a drawn delay."""
        self._flush_through = max(self._flush_through, self._queue.newest())
        self._probes = not self._life.is_ending
        self._gathers_until = -math.inf
        self.throttle.begin_flush()

    def end_flush(self) -> None:
        """Hurry no longer: for each `begin_flush`."""
        self.throttle.end_flush()

    def begin_last_chance(self, deadline: float) -> None:
        """Send what is left without backoff, in the time until the deadline."""
        self._gathers_until = -math.inf
        if self._life.begin_last_chance(deadline):
            self.throttle.reopen()
            self._queue.release_parked()
            self._probes = False
            if self._has_fresh():
                self._queue.reschedule(deadline)  # first what was not tried

    def is_done(self, mark: Any, now: float) -> bool:
        """Whether all up to a mark is settled, or had its last chance: nothing more will come of waiting.

        What was not tried has its chance until the time is over, whatever became of the others.
        """
        if self._queue.is_settled(mark):
            return True
        return self._life.is_ending and self._parked_until(now) > now

    def conclude(
        self, batch: Batch, result: Answer | NoAnswer, outcome: Outcome, sent_at: float, now: float
    ) -> Settlement:
        """Learn from a result, and decide what becomes of the events of its request."""
        if isinstance(result, Answer):
            self._negotiation.learn(result.headers.get(ADVERTISEMENT.lower()))
        if outcome.verdict is Verdict.NO_BATCHES:
            self._negotiation.batch_refused(now)
        elif outcome.verdict is Verdict.NO_GZIP:
            self._negotiation.gzip_refused()
        elif outcome.verdict is Verdict.TOO_LARGE and len(batch.entries) > 1:
            self._negotiation.too_large(sum(map(len, batch.bodies)))
        self.throttle.returned(batch)
        self.throttle.judge(batch, outcome, sent_at, now)
        circumstances = self.throttle.circumstances(batch, outcome, now)
        if outcome.retry_after:
            self._asked_until = max(self._asked_until, circumstances.own_due)
        settlement = settle(batch, outcome, circumstances)
        self._queue.settle(batch, settlement)
        if self._life.is_ending and now < self._parked_until(now) < math.inf:
            self._queue.reschedule(-math.inf)
        return settlement

    def _parked_until(self, now: float) -> float:
        """Return until when all that the exit has left waits, since each was tried; infinity: for ever.

        The past, where something was not tried yet.
        """
        if not self.throttle.is_still() or self._queue.holds(self.throttle.kinds_reachable(), 1, math.inf):
            return -math.inf
        return self._queue.ready_at(self._negotiation.plan(now), self.throttle.kinds_not_given_up())

    def _batch(self, now: float) -> Batch | float:
        plan = self._negotiation.plan(now)
        # Whoever puts an event into the queue asks `is_awaited` after it: so this is set before the look, and
        # nobody's event falls between the look and the wait.
        self._awaited_events = math.inf
        if self.throttle.is_busy(plan):
            return math.inf
        kinds, opens_at = self.throttle.open_kinds(now), self.throttle.opens_at(now)
        if not kinds:
            return opens_at
        if now < self._gathers_until:
            return self._gathers_until
        self._awaited, self._awaited_bytes = kinds, math.inf
        self._awaited_events = 1
        batch = self._queue.take(plan, now, self._flush_through, kinds)
        if batch is None and self._may_probe(now):
            self._probes = False
            self._queue.reschedule(now)
            batch = self._queue.take(plan, now, self._flush_through, kinds)
        if batch is not None:
            self._has_sent = not plan.batches
            return batch
        ready_at = self._queue.ready_at(plan, kinds)
        if self._has_sent and ready_at == math.inf and not self._is_hurried():
            self._has_sent = False
            self._awaited_events = math.inf
            self._gathers_until = now + _GATHERING_SECONDS
            return self._gathers_until
        if ready_at < math.inf:  # something waits already: the next to matter is the one that fills a request
            self._awaited_bytes = plan.max_bytes
            self._awaited_events = plan.max_events
        return min(ready_at, opens_at)

    def _may_probe(self, now: float) -> bool:
        """Whether only what is parked is left, which may be what the collector cannot take."""
        return (
            self._probes and now >= self._asked_until and self.throttle.is_still() and not self._has_fresh()
        )

    def _is_hurried(self) -> bool:
        return self._life.is_ending or self.throttle.is_flushing

    def _has_fresh(self) -> bool:
        return self._queue.holds(tuple(Kind), 1, math.inf)
