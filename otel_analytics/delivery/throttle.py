"""How fast to send: what may go out now, judged by how the collector fares. Pure; the clock is an argument.

Each kind of event has a gate of its own, since each has a URL of its own: one that is refused does not hold
up the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from otel_analytics.contract import Kind
from otel_analytics.delivery.backoff import Gate, RetryPolicy
from otel_analytics.delivery.batch import Batch
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.http.wire import UNWELL, Outcome, Verdict
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.settlement import Circumstances

_BATCHES_IN_FLIGHT = 2
_SINGLES_IN_FLIGHT = 8  # at first; more once those are answered
_PROGRESS_SECONDS = 2.0  # without an answer for longer, the collector is not taking events
_LAST_FAILURES = 3  # in a row, after which the exit tries nothing twice
_LAST_DELAY = 0.05  # seconds, the longest that the exit draws
_FLUSH_DELAYS = 4.0  # the longest that is drawn while somebody waits in a flush, in first delays
_BAD_REPLICA = 2  # failures in a row, after which connections of before are taken to lead to the same one


_WANTED_OTHERWISE = frozenset({Verdict.NO_BATCHES, Verdict.NO_GZIP, Verdict.TOO_LARGE})


class Throttle:
    """Counts requests in flight and remembers failures; the sender's lock guards it.

    Args:
        max_connections: Most requests in flight.
        policy: How long to wait after failures.
        dice: Random numbers in [0, 1).
        life: In whose last chance nothing waits long.
    """

    def __init__(
        self, max_connections: int, policy: RetryPolicy, dice: Callable[[], float], life: Life
    ) -> None:
        self._max_connections = max_connections
        self._policy = policy
        self._dice = dice
        self._gates = {kind: Gate(policy) for kind in Kind}
        self._in_flight = dict.fromkeys(Kind, 0)
        self._window = min(_SINGLES_IN_FLIGHT, max_connections)  # most single events in flight by now
        self._progress_at = -math.inf
        self._life = life
        self._flushes = 0
        self.connected_since = -math.inf  # older connections are not used again

    def is_busy(self, plan: Plan) -> bool:
        """Return whether as many requests are in flight as may be; until the first answer, just one may."""
        most = min(self._max_connections, _BATCHES_IN_FLIGHT) if plan.batches else self._window
        return sum(self._in_flight.values()) >= (most if plan.known else 1)

    def is_still(self) -> bool:
        """Return whether nothing is in flight."""
        return not any(self._in_flight.values())

    def open_kinds(self, now: float) -> list[Kind]:
        """Return the kinds that may be sent; of one whose last request failed, one request at a time."""
        return [
            kind
            for kind, gate in self._gates.items()
            if now >= gate.opens_at and not (gate.failures and self._in_flight[kind])
        ]

    def opens_at(self, now: float) -> float:
        """Return when the next gate that is closed opens; infinity where none is."""
        return min((gate.opens_at for gate in self._gates.values() if gate.opens_at > now), default=math.inf)

    def note_progress(self, now: float) -> None:
        """Note a reason to expect answers: a thread was started, a request sent, an answer came."""
        self._progress_at = now

    def progress_expected_until(self, waiting_since: float) -> float:
        """Return until when it makes sense to wait for the collector to take events.

        Args:
            waiting_since: Since when somebody waits; until then it may itself have kept the threads from
                running, so they get half the time from there in any case.
        """
        if any(gate.opens_at > -math.inf for gate in self._gates.values()):
            return -math.inf
        return max(waiting_since + _PROGRESS_SECONDS / 2, self._progress_at + _PROGRESS_SECONDS)

    def begin_flush(self) -> None:
        """Shorten drawn delays, and draw no long ones while somebody waits."""
        self._flushes += 1
        for gate in self._gates.values():
            gate.shorten_delay()

    def end_flush(self) -> None:
        """Let delays be as long as they are again."""
        self._flushes -= 1

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits in a flush."""
        return self._flushes > 0

    def reopen(self) -> None:
        """Open all gates, for the last chance."""
        for gate in self._gates.values():
            gate.reopen()

    def kinds_reachable(self) -> Collection[Kind]:
        """Return the kinds that may be sent before the end: none that the collector asked to wait longer."""
        return [kind for kind, gate in self._gates.items() if gate.opens_at <= self._life.deadline]

    def kinds_not_given_up(self) -> Collection[Kind]:
        """Return those of them for which the exit tries again what has failed."""
        return [kind for kind in self.kinds_reachable() if not self.gives_up(kind)]

    def gives_up(self, kind: Kind) -> bool:
        """Return whether the exit has seen enough of a kind fail, and sends only what was not tried."""
        return self._life.is_ending and self._gates[kind].failures >= _LAST_FAILURES

    def sent(self, batch: Batch, now: float) -> None:
        """Note a request."""
        self._in_flight[batch.kind] += 1
        self.note_progress(now)

    def returned(self, batch: Batch) -> None:
        """Note that a request is over, whatever came of it."""
        self._in_flight[batch.kind] -= 1

    def judge(self, batch: Batch, outcome: Outcome, sent_at: float, now: float) -> None:
        """Let an outcome open or close the gate of its kind.

        What has failed before, while others got through since, fails by itself: no evidence about the URL.
        """
        gate = self._gates[batch.kind]
        if outcome.verdict not in UNWELL:
            gate.succeeded(sent_at, got_through=outcome.verdict not in _WANTED_OTHERWISE)
            self._widen()
            self.note_progress(now)
        elif (
            outcome.verdict is Verdict.UNAVAILABLE
            or outcome.retry_after
            or not batch.is_suspect(gate.successes)
        ):
            gate.failed(sent_at, now, self._dice(), outcome.retry_after, self._longest_delay())
            self._window = max(self._window // 2, 1)
            if gate.failures >= _BAD_REPLICA:
                self.connected_since = now

    def _widen(self) -> None:
        """Let one more be in flight for each answer, as many as rate and latency ask for; else one less."""
        in_flight = sum(self._in_flight.values()) + 1  # the one just answered
        if in_flight >= self._window:
            self._window = min(self._window + 1, self._max_connections)
        elif in_flight < self._window // 2:
            self._window = max(self._window - 1, min(_SINGLES_IN_FLIGHT, self._max_connections))

    def circumstances(self, batch: Batch, outcome: Outcome, now: float) -> Circumstances:
        """Return what the settlement of a batch needs to know."""
        successes = self._gates[batch.kind].successes
        return Circumstances(self._own_due(batch, outcome, now), successes, self._life.is_ending)

    def _own_due(self, batch: Batch, outcome: Outcome, now: float) -> float:
        """Return when a batch that may itself be at fault is tried again; at the exit after all others."""
        if self._life.is_ending:
            return self._life.deadline
        if outcome.verdict is Verdict.REFUSED:
            # Others go first when the gate opens: they show whether it was this batch or the whole URL.
            now = max(now, self._gates[batch.kind].opens_at)
        delay = self._policy.delay(
            batch.attempts + 1, self._dice(), outcome.retry_after, self._longest_delay()
        )
        return now + delay

    def _longest_delay(self) -> float:
        """Return the most seconds that may be drawn now."""
        if self._life.is_ending:
            return _LAST_DELAY
        return _FLUSH_DELAYS * self._policy.initial if self._flushes else math.inf
