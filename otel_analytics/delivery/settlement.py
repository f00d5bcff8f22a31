"""What becomes of a batch's events after its outcome: pure policy, one row a verdict.

What a batch's settlement neither drops nor sends again was delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.wire import Outcome, Verdict
from otel_analytics.delivery.queue.ledger import DropReason

_PATIENCE = 3  # attempts of a batch before it is suspected without comparison
_STORED_NOTHING = frozenset({Verdict.REJECTED, Verdict.TOO_LARGE, Verdict.CONFLICT})


@dataclass(frozen=True)
class Settlement:
    """Entries given up, with the reason, and batches to send again; all others were delivered."""

    dropped: tuple[tuple[Entry, DropReason], ...] = ()
    again: tuple[Batch, ...] = ()

    def delivered_of(self, batch: Batch) -> list[Entry]:
        """Return the entries of the settled batch that were delivered."""
        if not (self.again or self.dropped):
            return list(batch.entries)
        others = {entry.sequence for part in self.again for entry in part.entries}
        others.update(entry.sequence for entry, _ in self.dropped)
        return [entry for entry in batch.entries if entry.sequence not in others]


_ALL_DELIVERED = Settlement()


@dataclass(frozen=True)
class Circumstances:
    """What else a decision needs.

    Args:
        own_due: When the batch's own delay is over.
        successes: How others fare: requests that got through until now.
        is_last: Whether this is the last chance, where nothing waits for a better moment.
    """

    own_due: float
    successes: int
    is_last: bool = False


def settle(batch: Batch, outcome: Outcome, circumstances: Circumstances) -> Settlement:
    """Decide what becomes of each entry of a batch."""
    if outcome.verdict is Verdict.ACCEPTED and not (outcome.again or outcome.rejected):
        return _ALL_DELIVERED
    may_be_stored = outcome.sent and outcome.verdict not in _STORED_NOTHING
    sent_among = len(batch.entries) if may_be_stored else batch.sent_among
    tried = replace(batch, attempts=batch.attempts + 1, due=float("-inf"), sent_among=sent_among)
    settlement = _BY_VERDICT[outcome.verdict](tried, outcome, circumstances)
    successes = circumstances.successes
    return replace(
        settlement, again=tuple(replace(part, successes_seen=successes) for part in settlement.again)
    )


def _accepted(batch: Batch, outcome: Outcome, circumstances: Circumstances) -> Settlement:
    entries = batch.entries
    again = tuple(entries[index] for index in sorted(outcome.again))
    parked = replace(batch, due=circumstances.own_due).with_entries(again)
    return Settlement(
        tuple((entries[index], DropReason.REJECTED) for index in sorted(outcome.rejected)),
        (parked,) if again else (),
    )


def _same_again(batch: Batch, _: Outcome, __: Circumstances) -> Settlement:
    return Settlement(again=(batch,))


def _with_the_others(batch: Batch, _: Outcome, circumstances: Circumstances) -> Settlement:
    """Go first once the gate opens; in the last chance behind those that were not tried."""
    due = circumstances.own_due if circumstances.is_last else batch.due
    return Settlement(again=(replace(batch, due=due),))


def _own_delay(batch: Batch, _: Outcome, circumstances: Circumstances) -> Settlement:
    """Wait its own, growing time, so that an event that breaks the collector does not hold up the others.

    A batch that fails while others get through is halved, until the event that breaks it stands alone; in the
    end also where nothing else got through, since there may be nothing else, or its size is what it fails by;
    in the last chance at once.
    """
    others_fare_well = circumstances.successes > batch.successes_seen
    patience = 1 if others_fare_well else _PATIENCE
    is_suspect = circumstances.is_last or batch.attempts > patience
    parts = batch.halves() if is_suspect else (batch,)
    return Settlement(again=tuple(replace(part, due=circumstances.own_due) for part in parts))


def _given_up(reason: DropReason) -> Callable[[Batch, Outcome, Circumstances], Settlement]:
    """A lone event is dropped; a batch is halved until the one at fault stands alone."""

    def decide(batch: Batch, _: Outcome, __: Circumstances) -> Settlement:
        if len(batch.entries) == 1:
            return Settlement(dropped=((batch.entries[0], reason),))
        return Settlement(again=batch.halves())

    return decide


_rejected = _given_up(DropReason.REJECTED)


def _conflicting(batch: Batch, outcome: Outcome, circumstances: Circumstances) -> Settlement:
    """What was sent before is there already; what was not is at fault."""
    return Settlement() if batch.may_be_stored else _rejected(batch, outcome, circumstances)


def _singly(batch: Batch, _: Outcome, __: Circumstances) -> Settlement:
    return Settlement(again=batch.singles())


_BY_VERDICT: Mapping[Verdict, Callable[[Batch, Outcome, Circumstances], Settlement]] = {
    Verdict.ACCEPTED: _accepted,
    Verdict.UNAVAILABLE: _with_the_others,
    Verdict.FAILED: _own_delay,
    Verdict.REFUSED: _own_delay,
    Verdict.REJECTED: _rejected,
    Verdict.CONFLICT: _conflicting,
    Verdict.TOO_LARGE: _given_up(DropReason.TOO_LARGE),
    Verdict.NO_BATCHES: _singly,
    Verdict.NO_GZIP: _same_again,
}
