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
from dataclasses import dataclass, field

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from otel_analytics.contract import ADVERTISEMENT, Kind
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.hooks import DropNotices
from otel_analytics.delivery.http.negotiation import Negotiation, Plan
from otel_analytics.delivery.http.transport import Transport
from otel_analytics.delivery.http.wire import (
    Answer,
    NoAnswer,
    Outcome,
    Verdict,
    build_request,
    interpret,
)
from otel_analytics.delivery.logs import RateLimitedLog, log_safely, logger
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.delivery.queue.memory import Queue
from otel_analytics.delivery.settlement import Settlement, settle
from otel_analytics.delivery.throttle import Throttle
from otel_analytics.errors import FOREIGN_ERRORS

_LOOK_SECONDS = 0.25  # other processes settle what is in a shared spool, and nobody tells this one
_PAUSE_SECONDS = 1.0  # after a fault of ours, so that it cannot burn the processor
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
        log: Tells the operator.
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
        log: RateLimitedLog,
        notices: DropNotices,
        *,
        timeout: float,
        max_connections: int,
        surroundings: Surroundings,
    ) -> None:
        self._queue = queue
        self._negotiation = negotiation
        self._connect = connect
        self._log = log
        self._notices = notices
        self._timeout = timeout
        self._max_connections = max_connections
        self._around = surroundings
        self._throttle = Throttle(max_connections, surroundings.policy, surroundings.dice)
        # Entered as itself by whoever tracks: `with` a lock is one step, while a condition is entered in
        # Python code, where an exception from a signal handler would leave it held for good.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # for the threads: something to send, or to end for
        self._settled = threading.Condition(self._lock)  # for who waits in flush or shutdown
        self._starting = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._wake_at = 1.0
        self._transports: list[Transport] = []
        self._awaited: Collection[Kind] = tuple(Kind)  # those whose events end a wait
        self._flush_through = 0
        self._stopped = self._is_forgotten = False
        self._abandoned_by: object = None
        self.last_problem = ""

    def wake(self) -> None:
        """Say that an event was put into the queue; cheap where nobody needs to know."""
        if self._queue.longest_lane(self._awaited) >= self._wake_at:
            with self._lock:
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

    def abandon(self, owner: object) -> None:
        """End the threads once everything is settled: nobody is left who could put anything.

        Args:
            owner: Lives on as long as the threads do, so that an exit before they end still finds it.
        """
        self._abandoned_by = owner
        with self._lock:
            self._changed.notify_all()

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
        settled = self._queue.is_settled(mark)
        self._log.emit()
        return settled

    def _nothing_to_come(self) -> bool:
        """Whether the exit has tried everything, and what is left had its last attempt or has no hope."""
        if not (self._throttle.is_last_chance and self._throttle.is_still()):
            return False
        plan = self._negotiation.plan(self._around.clock())
        return self._queue.ready_at(plan, self._throttle.kinds_not_given_up()) == math.inf

    def _start_thread(self) -> bool:
        """Start a thread where there may be more; return whether there is any.

        A thread counts itself, once it runs, and this waits until it has: an exception from a signal handler
        may end whoever starts it at any point, and the thread itself.
        """
        with self._starting:
            with self._lock:
                self._threads = {thread for thread in self._threads if thread.is_alive()}
                if self._stopped or len(self._threads) >= self._max_connections:
                    return bool(self._threads)
                self._throttle.note_progress(self._around.clock())
            runs = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(runs,), name="otel-analytics-sender", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return False
            runs.wait(_PAUSE_SECONDS)
        return True

    def _run(self, runs: threading.Event) -> None:
        myself = threading.current_thread()
        try:
            with self._lock:
                self._threads.add(myself)
            runs.set()
            while not self._has_ended():
                self._work_safely()
        finally:
            self._rest_if_forgotten()
            with self._changed:
                self._threads.discard(myself)
                self._settled.notify_all()

    def _work_safely(self) -> None:
        """Work; a fault of ours, or of what we call, neither ends the thread nor burns the processor."""
        try:
            self._work(self._has_ended, math.inf)
        except FOREIGN_ERRORS:
            log_safely(logging.ERROR, "sending failed unexpectedly", exc_info=True)
            with self._changed:
                if not self._stopped:
                    self._changed.wait(_PAUSE_SECONDS)

    def _has_ended(self) -> bool:
        return self._stopped or (
            self._abandoned_by is not None and self._queue.is_settled(self._queue.mark())
        )

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
        while not done():
            with self._changed:
                now = self._around.clock()
                if now >= deadline:
                    return None
                if now >= self._queue.maintenance_due_at():
                    self._queue.maintain(now)
                step = self._step(now)
                if isinstance(step, Batch):
                    self._throttle.sent(step, now)
                    wants_thread = self._share_work(now)
                elif not (self._log.has_deferred or done()):
                    self._wait(min(step, deadline, self._queue.maintenance_due_at()) - now)
            self._log.emit()
            if isinstance(step, Batch):
                if wants_thread:
                    self._start_thread()
                return step
        return None

    def _share_work(self, now: float) -> bool:
        """Wake an idle thread for what else may be sent now; return whether one has to be started for it."""
        more = self._may_send_more(self._negotiation.plan(now), now)
        if more and self._idle:
            self._changed.notify()
        return more and not self._idle

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
        try:
            outcome = self._exchange(batch, transport, timeout)
        except FOREIGN_ERRORS as error:  # a fault of ours neither ends the thread nor loses events
            log_safely(logging.ERROR, "sending failed unexpectedly", exc_info=True)
            outcome = Outcome(Verdict.FAILED, type(error).__name__)
        self._rest_if_forgotten()
        settlement = self._conclude(batch, outcome, sent_at)
        self._report(batch, outcome, settlement.dropped)

    def _exchange(self, batch: Batch, transport: Transport, timeout: float) -> Outcome:
        plan = self._negotiation.plan(self._around.clock())
        request = build_request(batch, compress=plan.gzip, unix_now=self._around.wall_clock())
        result = transport.send(request, max(timeout, 0.001))
        outcome = interpret(result, request, len(batch.entries), unix_now=self._around.wall_clock())
        if logger.isEnabledFor(logging.DEBUG):
            values = len(batch.entries), batch.kind.value, outcome.verdict.name
            log_safely(logging.DEBUG, "%d %s event(s): %s", *values)
        with self._changed:
            self._learn(result, outcome, batch)
        return outcome

    def _learn(self, result: Answer | NoAnswer, outcome: Outcome, batch: Batch) -> None:
        if isinstance(result, Answer):
            self._negotiation.learn(result.headers.get(ADVERTISEMENT.lower()))
        if outcome.verdict is Verdict.NO_BATCHES:
            self._negotiation.batch_refused(self._around.clock())
        elif outcome.verdict is Verdict.NO_GZIP:
            self._negotiation.gzip_refused()
        elif outcome.verdict is Verdict.TOO_LARGE and len(batch.entries) > 1:
            self._negotiation.too_large(sum(map(len, batch.bodies)))

    def _conclude(self, batch: Batch, outcome: Outcome, sent_at: float) -> Settlement:
        now = self._around.clock()
        with self._changed:
            self._throttle.returned(batch)
            self._throttle.judge(batch, outcome, sent_at, now)
            settlement = settle(batch, outcome, self._throttle.circumstances(batch, outcome, now))
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
            self._log.tell(outcome.verdict.name.lower(), count, text % outcome.reason, level)
        for reason in {reason for _, reason in dropped}:
            events = [entry.event for entry, why in dropped if why is reason]
            self._notices.add(reason, events)
            text = f"an event is dropped: the collector answered {outcome.reason}"
            self._log.tell(reason.value, len(events), text)
        self._log.emit()
