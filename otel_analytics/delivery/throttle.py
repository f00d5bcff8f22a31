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
from otel_analytics.delivery.http.wire import Outcome, Verdict
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.settlement import Circumstances

_BATCHES_IN_FLIGHT = 2
_PROGRESS_SECONDS = 2.0  # without an answer for longer, the collector is not taking events
_LAST_FAILURES = 3  # in a row, after which the exit stops waiting for the collector
_UNWELL = frozenset({Verdict.UNAVAILABLE, Verdict.FAILED, Verdict.REFUSED})


class Throttle:
    """Counts requests in flight and remembers failures; the sender's lock guards it.

    Args:
        max_connections: Most requests in flight.
        policy: How long to wait after failures.
        dice: Random numbers in [0, 1).
        life: In whose last chance nothing is tried twice for its own fault.
    """

    def __init__(
        self, max_connections: int, policy: RetryPolicy, dice: Callable[[], float], life: Life
    ) -> None:
        self._max_connections = max_connections
        self._policy = policy
        self._dice = dice
        self._gates = {kind: Gate(policy) for kind in Kind}
        self._in_flight = dict.fromkeys(Kind, 0)
        self._progress_at = -math.inf
        self._life = life
        self._given_up: set[Kind] = set()

    def is_busy(self, plan: Plan) -> bool:
        """Return whether as many requests are in flight as may be; until the first answer, just one may."""
        most = min(self._max_connections, _BATCHES_IN_FLIGHT) if plan.batches else self._max_connections
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
        if any(gate.failures for gate in self._gates.values()):
            return -math.inf
        return max(waiting_since + _PROGRESS_SECONDS / 2, self._progress_at + _PROGRESS_SECONDS)

    def shorten_delay(self) -> None:
        """Shorten drawn delays, for a flush."""
        for gate in self._gates.values():
            gate.shorten_delay()

    def reopen(self) -> None:
        """Open all gates, for the last chance."""
        for gate in self._gates.values():
            gate.reopen()

    def kinds_not_given_up(self) -> Collection[Kind]:
        """Return the kinds for which the exit still expects something of the collector."""
        return self._gates.keys() - self._given_up

    def sent(self, batch: Batch, now: float) -> None:
        """Note a request."""
        self._in_flight[batch.kind] += 1
        self.note_progress(now)

    def returned(self, batch: Batch) -> None:
        """Note that a request is over, whatever came of it."""
        self._in_flight[batch.kind] -= 1

    def judge(self, batch: Batch, outcome: Outcome, sent_at: float, now: float) -> None:
        """Let an outcome open or close the gate of its kind."""
        gate = self._gates[batch.kind]
        if outcome.verdict is Verdict.REFUSED and not batch.is_suspect(gate.successes):
            gate.refused(sent_at, now)
        elif outcome.verdict in _UNWELL:
            gate.failed(sent_at, now, self._dice(), outcome.retry_after)
        else:
            gate.succeeded(sent_at)
            self.note_progress(now)
        if self._life.is_ending and (gate.failures >= _LAST_FAILURES or gate.opens_at > self._life.deadline):
            self._given_up.add(batch.kind)

    def circumstances(self, batch: Batch, outcome: Outcome, now: float) -> Circumstances:
        """Return what the settlement of a batch needs to know."""
        return Circumstances(self._own_due(batch, outcome, now), self._gates[batch.kind].successes)

    def _own_due(self, batch: Batch, outcome: Outcome, now: float) -> float:
        """Return when a batch that may itself be at fault is tried again; at the exit never."""
        if self._life.is_ending:
            return math.inf
        if outcome.verdict is Verdict.REFUSED:
            # Others go first when the gate opens: they show whether it was this batch or the whole URL.
            now = max(now, self._gates[batch.kind].opens_at)
        return now + self._policy.delay(batch.attempts + 1, self._dice(), outcome.retry_after)
