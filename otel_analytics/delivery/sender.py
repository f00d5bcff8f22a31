"""The only thread: sends what the schedule says, over as many connections as it takes, and settles it.

A sender has no thread until there is something to send. It is a daemon: it cannot hold up the exit of the
process.

One lock guards the schedule, with all it decides by. Requests are made outside of it, and so is whatever may
run code of others: the log, and `on_drop`. The queue has a lock of its own, taken inside this one and never
around it. The thread waits in its transport, for answers and to be woken; who waits in flush or shutdown, on
the condition `_settled`. Whoever puts an event in wakes the thread only where the schedule awaits it, and
takes no lock for that.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.batch import Batch
from otel_analytics.delivery.http.transport import Transport
from otel_analytics.delivery.http.wire import (
    UNWELL,
    Answer,
    NoAnswer,
    Outcome,
    Verdict,
    build_request,
    interpret,
)
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.logs import RateLimitedLog, log_safely, logger
from otel_analytics.delivery.queue.memory import Queue
from otel_analytics.delivery.schedule import Schedule
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.errors import FOREIGN_ERRORS

_LOOK_SECONDS = 0.25  # a spool adopts files by itself, and nobody tells this one
_PAUSE_SECONDS = 1.0  # after a fault of ours, so that it cannot burn the processor

Report = Callable[[Batch, Outcome, Settlement], None]
"""Hears of each request that is settled, on the thread that made it, under no lock."""


@dataclass(frozen=True)
class Surroundings:
    """Clock, dice and policy come in from outside.

    Args:
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        dice: Random numbers in [0, 1).
        policy: How long to wait after failures.
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    dice: Callable[[], float] = field(default_factory=lambda: random.Random().random)  # noqa: S311 - jitter
    policy: RetryPolicy = field(default_factory=RetryPolicy)


class Sender:
    """Sends what a queue holds, when its schedule says so.

    Args:
        queue: Where events wait.
        schedule: When to send what.
        life: After its end the thread ends.
        connect: Makes a transport.
        log: Tells the operator.
        report: Hears of what became of each batch.
        timeout: Seconds for one request.
        surroundings: Clocks.
    """

    def __init__(
        self,
        queue: Queue,
        schedule: Schedule,
        life: Life,
        connect: Callable[[], Transport],
        log: RateLimitedLog,
        report: Report,
        *,
        timeout: float,
        surroundings: Surroundings,
    ) -> None:
        self._queue = queue
        self._schedule = schedule
        self._life = life
        self._connect = connect
        self._log = log
        self._report = report
        self._timeout = timeout
        self._around = surroundings
        # Entered as itself by whoever tracks: `with` a lock is one step, while a condition is entered in
        # Python code, where an exception from a signal handler would leave it held for good.
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)  # for who waits in flush or shutdown
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._transports: list[Transport] = []
        self._is_forgotten = False
        self._abandoned_by: object = None

    def wake(self) -> None:
        """Say that an event was put into the queue; cheap where nobody needs to know."""
        if self._schedule.is_awaited():
            self._wake_transports()
        if self._thread is None:
            self._start_thread()

    def await_room(self, count: int, deadline: float) -> None:
        """Wait until ``count`` more events fit, as long as the collector keeps taking what there is.

        A batching thread that fills the queue faster than this process can even send must not make it drop
        what a well collector is about to take. Where the collector hangs or is down, nobody waits.
        """
        if self._queue.has_room(count):
            return
        with self._settled:
            started = self._around.clock()
            while not self._queue.has_room(count):
                until = min(deadline, self._schedule.throttle.progress_expected_until(started))
                left = until - self._around.clock()
                if left <= 0 or self._life.is_closed:
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
        self.begin_last_chance(deadline)
        return self._drain(deadline)

    def begin_last_chance(self, deadline: float) -> None:
        """Send without backoff from now on, and nothing after the deadline."""
        with self._lock:
            self._schedule.begin_last_chance(deadline)

    def stop(self) -> None:
        """Have the thread notice that all is over."""
        self._wake_transports()
        with self._lock:
            self._settled.notify_all()

    def abandon(self, owner: object) -> None:
        """End the thread once everything is settled: nobody is left who could put anything.

        Args:
            owner: Lives on as long as the thread does, so that an exit before it ends still finds it.
        """
        self._abandoned_by = owner
        self._wake_transports()

    def forget(self) -> None:
        """Stop in a forked child, where gevent's threads, being greenlets, live on."""
        self._is_forgotten = True
        for transport in self._transports:
            transport.forget()

    def _wake_transports(self) -> None:
        for transport in tuple(self._transports):
            transport.wake()

    def _drain(self, deadline: float) -> bool:
        mark = self._queue.mark()

        def done() -> bool:
            with self._lock:
                return self._schedule.is_done(mark, self._around.clock())

        with self._lock:
            self._schedule.begin_flush()
        self._wake_transports()
        try:
            if not done() and self._thread is None and not self._start_thread():
                # The interpreter is shutting down and starts no threads any more: this one does the work.
                self._work(done, deadline)
            with self._settled:
                while not done() and (left := deadline - self._around.clock()) > 0:
                    self._settled.wait(min(left, _LOOK_SECONDS))
        finally:
            with self._lock:
                self._schedule.end_flush()
        settled = self._queue.is_settled(mark)
        self._log.emit()
        return settled

    def _start_thread(self) -> bool:
        """Start the thread where there is none; return whether there is one.

        It counts itself, once it runs, and this waits until it has: an exception from a signal handler
        may end whoever starts it at any point, and the thread itself.
        """
        with self._starting:
            if self._is_over() or self._thread is not None:
                return self._thread is not None
            with self._lock:
                self._schedule.throttle.note_progress(self._around.clock())
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
        with self._lock:
            is_first = self._thread is None  # who started it may have lost patience, and started another
            if is_first:
                self._thread = threading.current_thread()
        runs.set()
        if not is_first:
            return
        try:
            while not self._has_ended():
                self._work_safely()
        finally:
            self._rest_if_forgotten()
            with self._settled:
                self._thread = None
                self._settled.notify_all()

    def _work_safely(self) -> None:
        """Work; a fault of ours, or of what we call, neither ends the thread nor burns the processor."""
        try:
            self._work(self._has_ended, math.inf)
        except FOREIGN_ERRORS:
            self._rest_if_forgotten()
            log_safely(logging.ERROR, "sending failed unexpectedly", exc_info=True)
            with self._settled:
                if not self._is_over():
                    self._settled.wait(_PAUSE_SECONDS)

    def _is_over(self) -> bool:
        return self._life.is_closed or self._is_forgotten

    def _has_ended(self) -> bool:
        if self._is_over():
            return True
        return self._abandoned_by is not None and self._queue.is_settled(self._queue.mark())

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
            while not done():
                until = self._send_what_may_go(transport, deadline)
                if until is None:
                    break
                if not (self._log.has_deferred or done()):
                    self._take_answers(transport, until)
                self._log.emit()
            while transport.in_flight and deadline == math.inf:
                self._take_answers(transport, math.inf)  # they count, should they come after the end
        finally:
            self._rest_if_forgotten()
            detach(token)
            self._transports.remove(transport)
            for batch, sent_at, _ in transport.close():
                self._conclude(batch, _CUT_SHORT, Outcome(Verdict.FAILED, _CUT_SHORT.reason), sent_at)

    def _send_what_may_go(self, transport: Transport, deadline: float) -> float | None:
        """Begin all requests that may go out now; return until when to wait, `None` where no time is left."""
        while True:
            with self._lock:
                now = self._around.clock()
                if now >= deadline:
                    return None
                step = self._schedule.next(now)
            if not isinstance(step, Batch):
                return min(step, deadline)
            self._send(step, transport, now, deadline)

    def _send(self, batch: Batch, transport: Transport, now: float, deadline: float) -> None:
        timeout = max(min(self._timeout, deadline - now), 0.001)
        try:
            compress = self._schedule.compresses(now)
            request = build_request(batch, compress=compress, unix_now=self._around.wall_clock())
            transport.start(request, timeout, (batch, now, request), self._schedule.throttle.connected_since)
        except FOREIGN_ERRORS as fault:
            self._conclude(batch, *_fault(fault), now)

    def _take_answers(self, transport: Transport, until: float) -> None:
        for (batch, sent_at, request), result, connection in transport.wait(until):
            try:
                outcome = interpret(result, request, len(batch.entries), unix_now=self._around.wall_clock())
            except FOREIGN_ERRORS as fault:
                self._conclude(batch, *_fault(fault), sent_at)
                continue
            if outcome.verdict in UNWELL and connection is not None:
                transport.leave(connection)
            self._conclude(batch, result, outcome, sent_at)

    def _conclude(self, batch: Batch, result: Answer | NoAnswer, outcome: Outcome, sent_at: float) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            values = len(batch.entries), batch.kind.value, outcome.verdict.name
            log_safely(logging.DEBUG, "%d %s event(s): %s", *values)
        self._rest_if_forgotten()
        with self._lock:
            settlement = self._schedule.conclude(batch, result, outcome, sent_at, self._around.clock())
            self._settled.notify_all()
        self._report(batch, outcome, settlement)


_CUT_SHORT = NoAnswer("no answer in time", reached=True)
"""What comes of a request whose transport is closed under it."""


def _fault(fault: BaseException) -> tuple[NoAnswer, Outcome]:
    """Return what comes of a request after a fault of ours, which ends no thread and loses no events."""
    log_safely(logging.ERROR, "sending failed unexpectedly", exc_info=True)
    result = NoAnswer(type(fault).__name__, reached=True)
    return result, Outcome(Verdict.FAILED, result.reason)
