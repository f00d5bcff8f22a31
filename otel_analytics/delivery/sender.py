"""The only threads: take, send, settle.

A sender has no thread until there is something to send, then one, then up to `max_connections` while events
wait and the collector is well. Its threads are daemons: none of them can hold up the exit of the process.
Decisions are made under the lock (`_step`), requests and their settlement outside it.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.hooks import Approval, DropNotices
from otel_analytics.delivery.http.negotiation import ADVERTISEMENT, Negotiation, Plan
from otel_analytics.delivery.http.transport import Transport
from otel_analytics.delivery.http.wire import (
    Answer,
    NoAnswer,
    Outcome,
    Verdict,
    build_request,
    interpret,
)
from otel_analytics.delivery.logs import Reporter, logger
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.delivery.queue.memory import Queue
from otel_analytics.delivery.settlement import Settlement, settle
from otel_analytics.delivery.throttle import Throttle
from otel_analytics.events import Kind

_LOOK_SECONDS = 0.25  # other processes settle what is in a shared spool, and nobody tells this one
_NOTHING_SENT = Outcome(Verdict.ACCEPTED)
_DOWN = "the collector is unavailable (%s); events wait and are sent again"
_TROUBLE: Mapping[Verdict, tuple[int, str]] = {
    Verdict.UNAVAILABLE: (logging.WARNING, _DOWN),
    Verdict.FAILED: (logging.WARNING, _DOWN),
    Verdict.REFUSED: (logging.ERROR, "the collector answered %s: check endpoint and write_key; events wait"),
    Verdict.NO_BATCHES: (logging.WARNING, "the collector takes no batches (%s); events are sent singly"),
}


@dataclass(frozen=True)
class Surroundings:
    """Clock, dice and policy come in from outside.

    Args:
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        dice: Random numbers in [0, 1).
        policy: How long to wait after failures.
        lease: Seconds after a process's last sign of life until others take over what it spooled.
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    dice: Callable[[], float] = field(default_factory=lambda: random.Random().random)  # noqa: S311 - jitter
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    lease: float = 30.0


class Sender:
    """Sends what an queue holds.

    Args:
        queue: Where events wait.
        negotiation: How the collector wants them.
        connect: Makes a transport; each thread has its own.
        reporter: Tells the operator.
        approval: What `before_send` lets through.
        notices: Tells `on_drop`.
        timeout: Seconds for one request.
        max_connections: Most requests in flight.
        surroundings: Clock, dice, policy.
    """

    def __init__(
        self,
        queue: Queue,
        negotiation: Negotiation,
        connect: Callable[[], Transport],
        reporter: Reporter,
        approval: Approval,
        notices: DropNotices,
        *,
        timeout: float,
        max_connections: int,
        surroundings: Surroundings,
    ) -> None:
        self._queue = queue
        self._negotiation = negotiation
        self._connect = connect
        self._reporter = reporter
        self._approval = approval
        self._notices = notices
        self._timeout = timeout
        self._max_connections = max_connections
        self._around = surroundings
        self._throttle = Throttle(max_connections, surroundings.policy, surroundings.dice)
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # for the threads: something to send, or to end for
        self._settled = threading.Condition(lock)  # for who waits in flush or shutdown
        self._threads = 0
        self._idle = 0
        self._wake_at = 1.0
        self._transports: list[Transport] = []
        self._awaited: Collection[Kind] = tuple(Kind)  # those whose events end a wait
        self._flush_through = 0
        self._stopped = self._is_forgotten = False
        self.last_problem = ""

    def wake(self) -> None:
        """Say that an event was put into the queue; cheap where nobody needs to know."""
        if self._queue.longest_lane(self._awaited) >= self._wake_at:
            with self._changed:
                self._changed.notify()
        if not self._threads:
            self._start_thread()

    def await_room(self, count: int, deadline: float) -> None:
        """Wait until ``count`` more events fit, as long as the collector keeps taking what there is.

        A batching thread that fills the queue faster than this process can even send must not make it drop
        what a well collector is about to take. Where the collector hangs or is down, nobody waits.
        """
        if self._queue.has_room(count):
            return
        with self._changed:
            started = self._around.clock()
            while not self._queue.has_room(count):
                left = min(deadline, self._throttle.progress_expected_until(started)) - self._around.clock()
                if left <= 0 or self._stopped:
                    return
                self._settled.wait(left)

    def flush(self, deadline: float) -> bool:
        """Wait until everything accepted before now is settled.

        Args:
            deadline: Monotonic seconds.

        Returns:
            Whether it was in time.
        """
        return self._drain(deadline)

    def finish(self, deadline: float) -> bool:
        """Send what is left, without backoff; give up at the deadline or when the collector is down."""
        with self._changed:
            if self._throttle.begin_last_chance(deadline):
                self._queue.release_parked()
        return self._drain(deadline)

    def stop(self) -> None:
        """End the threads, each after the request it is making."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._settled.notify_all()

    def forget(self) -> None:
        """Stop in a forked child, where gevent's threads, being greenlets, live on."""
        self._stopped = self._is_forgotten = True
        for transport in self._transports:
            transport.forget()

    def _drain(self, deadline: float) -> bool:
        mark = self._queue.mark()

        def done() -> bool:
            return self._queue.is_settled(mark) or self._nothing_to_come()

        with self._changed:
            self._flush_through = max(self._flush_through, self._queue.newest())
            self._throttle.shorten_delay()
            self._changed.notify_all()
        if not done() and not self._threads and not self._start_thread():
            # The interpreter is shutting down and starts no threads any more: this one does the work.
            self._work(done, deadline)
        with self._changed:
            while not done() and (left := deadline - self._around.clock()) > 0:
                self._settled.wait(min(left, _LOOK_SECONDS))
        return self._queue.is_settled(mark)

    def _nothing_to_come(self) -> bool:
        """Whether the exit has tried everything, and what is left had its last attempt or has no hope."""
        if not (self._throttle.is_last_chance and self._throttle.is_still()):
            return False
        plan = self._negotiation.plan(self._around.clock())
        return self._queue.ready_at(plan, self._throttle.kinds_not_given_up()) == math.inf

    def _start_thread(self) -> bool:
        with self._changed:
            if self._stopped or self._threads >= self._max_connections:
                return bool(self._threads)
            self._threads += 1
            self._throttle.note_progress(self._around.clock())
        try:
            threading.Thread(target=self._run, name="otel-analytics-sender", daemon=True).start()
        except RuntimeError:
            with self._changed:
                self._threads -= 1
            return False
        return True

    def _run(self) -> None:
        try:
            self._work(lambda: self._stopped, math.inf)
        finally:
            self._rest_if_forgotten()
            with self._changed:
                self._threads -= 1
                self._settled.notify_all()

    def _rest_if_forgotten(self) -> None:
        """Keep a greenlet that a fork has copied from ending: `threading` forgot it and would complain."""
        if self._is_forgotten:
            threading.Event().wait()

    def _work(self, done: Callable[[], bool], deadline: float) -> None:
        """Send until ``done``; our own requests must leave no spans, on whatever thread this is."""
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: FBT003 - the key's value
        transport = self._connect()
        self._transports.append(transport)
        try:
            while (batch := self._next(done, deadline)) is not None:
                self._deliver(batch, transport, min(self._timeout, deadline - self._around.clock()))
        finally:
            detach(token)
            self._transports.remove(transport)
            transport.close()

    def _next(self, done: Callable[[], bool], deadline: float) -> Batch | None:
        """Wait for something to send; `None`: done, or no time left."""
        with self._changed:
            while not done() and (now := self._around.clock()) < deadline:
                if now >= self._queue.maintenance_due_at():
                    self._queue.maintain(now)
                step = self._step(now)
                if isinstance(step, Batch):
                    self._throttle.sent(step, now)
                    break
                self._wait(min(step, deadline, self._queue.maintenance_due_at()) - now)
            else:
                return None
            more = self._may_send_more(self._negotiation.plan(now), now)
            if more and self._idle:
                self._changed.notify()
            wanted = more and not self._idle
        if wanted:
            self._start_thread()
        return step

    def _wait(self, seconds: float) -> None:
        self._idle += 1
        self._changed.wait(seconds if seconds < math.inf else None)
        self._idle -= 1

    def _step(self, now: float) -> Batch | float:
        """Return what to send now, or until when to wait (monotonic seconds)."""
        plan = self._negotiation.plan(now)
        # Whoever puts an event into the queue reads this: it is set before the look, so that nobody's event
        # falls between the look and the wait.
        self._wake_at = math.inf
        if self._throttle.is_busy(plan):
            return math.inf
        kinds, opens_at = self._throttle.open_kinds(now), self._throttle.opens_at(now)
        if not kinds:
            return opens_at
        self._awaited = kinds
        self._wake_at = 1
        batch = self._queue.take(plan, now, self._flush_through, kinds)
        if batch is not None:
            return batch
        ready_at = self._queue.ready_at(plan, kinds)
        if ready_at < math.inf:
            self._wake_at = plan.max_events
        return min(ready_at, opens_at)

    def _may_send_more(self, plan: Plan, now: float) -> bool:
        return (
            not self._throttle.is_busy(plan)
            and self._queue.ready_at(plan, self._throttle.open_kinds(now)) <= now
        )

    def _deliver(self, batch: Batch, transport: Transport, timeout: float) -> None:
        sent_at = self._around.clock()
        approved, refused = self._approval.of(batch)
        try:
            outcome = self._exchange(approved, transport, timeout) if approved.entries else _NOTHING_SENT
        except Exception as error:  # noqa: BLE001 - a fault of ours neither ends the thread nor loses events
            logger.exception("sending failed unexpectedly")
            outcome = Outcome(Verdict.FAILED, type(error).__name__)
        self._rest_if_forgotten()
        settlement = self._conclude(batch, approved, refused, outcome, sent_at)
        self._report(batch, outcome, settlement.dropped)

    def _exchange(self, batch: Batch, transport: Transport, timeout: float) -> Outcome:
        plan = self._negotiation.plan(self._around.clock())
        request = build_request(batch, compress=plan.gzip, unix_now=self._around.wall_clock())
        result = transport.send(request, max(timeout, 0.001))
        outcome = interpret(result, request, len(batch.entries), unix_now=self._around.wall_clock())
        logger.debug("%d %s event(s): %s", len(batch.entries), batch.kind.value, outcome.verdict.name)
        with self._changed:
            self._learn(result, outcome, batch)
        return outcome

    def _learn(self, result: Answer | NoAnswer, outcome: Outcome, batch: Batch) -> None:
        if isinstance(result, Answer):
            self._negotiation.learn(result.headers.get(ADVERTISEMENT))
        if outcome.verdict is Verdict.NO_BATCHES:
            self._negotiation.batch_refused(self._around.clock())
        elif outcome.verdict is Verdict.NO_GZIP:
            self._negotiation.gzip_refused()
        elif outcome.verdict is Verdict.TOO_LARGE and len(batch.entries) > 1:
            self._negotiation.too_large(sum(map(len, batch.bodies)))

    def _conclude(
        self,
        batch: Batch,
        approved: Batch,
        refused: tuple[tuple[Entry, DropReason], ...],
        outcome: Outcome,
        sent_at: float,
    ) -> Settlement:
        now = self._around.clock()
        with self._changed:
            self._throttle.returned(batch)
            if outcome is not _NOTHING_SENT:
                self._throttle.judge(batch, outcome, sent_at, now)
            settlement = settle(approved, outcome, self._throttle.circumstances(batch, outcome, now))
            settlement = replace(settlement, dropped=settlement.dropped + refused)
            self._queue.settle(batch, settlement)
            self._changed.notify_all()
            self._settled.notify_all()
        return settlement

    def _report(self, batch: Batch, outcome: Outcome, dropped: tuple[tuple[Entry, DropReason], ...]) -> None:
        """Tell the operator, once a minute for each cause."""
        count = len(batch.entries)
        if outcome.verdict in _TROUBLE:
            level, text = _TROUBLE[outcome.verdict]
            self.last_problem = outcome.reason
            self._reporter.tell(outcome.verdict.name.lower(), count, text % outcome.reason, level)
        for reason in {reason for _, reason in dropped}:
            events = [entry.event for entry, why in dropped if why is reason]
            self._notices.add(reason, events)
            if reason is not DropReason.BEFORE_SEND:
                text = f"an event is dropped: the collector answered {outcome.reason}"
                self._reporter.tell(reason.value, len(events), text)
