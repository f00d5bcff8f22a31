"""Events in memory, in two lanes: fresh ones in order, batches to send again, batches on their way.

Nothing here locks or counts: the queue that owns the lanes does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import count

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.events import EncodedEvent

NEVER = float("inf")


class Lanes:
    """A lane for each kind, bounded, so that one kind never displaces another.

    Args:
        capacity: Most events of each kind.
        linger: Seconds a fresh event waits for others to travel with.
        numbers: Numbers the events; shared by lanes between which events may move.
    """

    def __init__(self, *, capacity: int, linger: float, numbers: Iterator[int] | None = None) -> None:
        self._numbers = numbers or count(1)
        self._capacity = capacity
        self._linger = linger
        self._lanes = {kind: _Lane(kind) for kind in Kind}
        self._order = list(Kind)
        self.newest = 0

    def room(self, kind: Kind) -> int:
        """Return how many more events of a kind fit."""
        return self._capacity - self._lanes[kind].count

    def append(self, event: EncodedEvent, now: float, row: int | None = None) -> Entry | None:
        """Add an event, lingering from ``now`` on; return the entry displaced by it, which may be its own."""
        self.newest = next(self._numbers)
        entry = Entry(self.newest, now, event, row)
        lane = self._lanes[event.kind]
        oldest = None
        if lane.count >= self._capacity:
            oldest = lane.displace_oldest()
            if oldest is None:
                return entry  # everything older is on its way
        lane.append(entry)
        return oldest

    def adopt(self, others: Lanes) -> None:
        """Take over all that other lanes have, on its way or not; for once there may be more than fit."""
        self.newest = max(self.newest, others.newest)
        for kind, lane in self._lanes.items():
            lane.adopt(others._lanes[kind])

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now; the lanes take turns."""
        for kind in self._order:
            batch = kind in kinds and self._lanes[kind].take(plan, now, flush_through, self._linger)
            if batch:
                self._order.sort(key=kind.__eq__)
                return batch
        return None

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        return min((self._lanes[kind].ready_at(plan, self._linger) for kind in kinds), default=NEVER)

    def end_lease(self, batch: Batch, again: Collection[Batch]) -> bool:
        """Take a batch off the lane but for what goes again; false where its lease had been revoked."""
        lane = self._lanes[batch.kind]
        if batch not in lane.leased:
            return False
        lane.leased.remove(batch)
        lane.park(again)
        lane.count -= len(batch.entries) - sum(len(part.entries) for part in again)
        return True

    def release_parked(self) -> None:
        """Make everything parked due at once."""
        self.reschedule(-NEVER)

    def reschedule(self, due: float) -> None:
        """Make everything parked due at one moment."""
        for lane in self._lanes.values():
            lane.parked = [replace(batch, due=due) for batch in lane.parked]

    def clear(self) -> list[Entry]:
        """Empty the lanes, revoking all leases; return what was in them."""
        return [entry for lane in self._lanes.values() for entry in lane.clear()]

    def discard(self, rows: Collection[int]) -> list[Entry]:
        """Take entries of certain rows off the lanes, but for those on their way; return them."""
        return [entry for lane in self._lanes.values() for entry in lane.discard(rows)]

    def displace(self, kind: Kind) -> Entry | None:
        """Take the oldest entry of a kind off its lane, but for those on their way; return it."""
        return self._lanes[kind].displace_oldest()

    def leased(self) -> list[Batch]:
        """Return the batches on their way."""
        return [batch for lane in self._lanes.values() for batch in lane.leased]

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether a lane of these kinds has so many fresh events, or so many bytes of them."""
        for kind in kinds:  # asked at each put: a loop is three times as fast as `any`
            lane = self._lanes[kind]
            if len(lane.fresh) >= events or lane.fresh_bytes >= size:
                return True
        return False

    def oldest(self) -> float:
        """Return the sequence of the oldest event not settled; infinity where there is none."""
        return min(lane.oldest() for lane in self._lanes.values())

    def count(self) -> int:
        """Return how many events there are."""
        return sum(lane.count for lane in self._lanes.values())


class _Lane:
    """One kind's events: fresh ones in order, batches to send again, batches on their way."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.fresh: deque[Entry] = deque()
        self.fresh_bytes = 0
        self.parked: list[Batch] = []
        self.leased: list[Batch] = []
        self.count = 0

    def append(self, entry: Entry) -> None:
        self.fresh.append(entry)
        self.fresh_bytes += _size(entry)
        self.count += 1

    def park(self, batches: Iterable[Batch]) -> None:
        self.parked.extend(batches)
        self.parked.sort(key=lambda batch: (batch.due, batch.entries[0].sequence))

    def adopt(self, other: _Lane) -> None:
        self.fresh = deque(sorted((*self.fresh, *other.fresh), key=lambda entry: entry.sequence))
        self.fresh_bytes += other.fresh_bytes
        self.park(other.parked)
        self.leased += other.leased
        self.count += other.count

    def displace_oldest(self) -> Entry | None:
        """Drop the oldest event that is not on its way."""
        oldest_parked = min(self.parked, key=lambda batch: batch.entries[0].sequence, default=None)
        if oldest_parked is not None:
            return self._displace_parked(oldest_parked)
        return self._pop_fresh() if self.fresh else None

    def take(self, plan: Plan, now: float, flush_through: int, linger: float) -> Batch | None:
        batch = self._take_parked(plan, now) or self._take_fresh(plan, now, flush_through, linger)
        if batch is not None:
            self.leased.append(batch)
        return batch

    def ready_at(self, plan: Plan, linger: float) -> float:
        parked = self.parked[0].due if self.parked else NEVER
        if not self.fresh:
            return parked
        lingers = plan.batches and not self._full(plan)
        return min(parked, self.fresh[0].accepted_at + (linger if lingers else 0.0))

    def oldest(self) -> float:
        fresh = [self.fresh[0].sequence] if self.fresh else []
        held = [batch.entries[0].sequence for batches in (self.parked, self.leased) for batch in batches]
        return min([*fresh, *held], default=NEVER)

    def entries(self) -> list[Entry]:
        held = [entry for batches in (self.parked, self.leased) for p in batches for entry in p.entries]
        return [*held, *self.fresh]

    def discard(self, rows: Collection[int]) -> list[Entry]:
        waiting = [entry for batch in self.parked for entry in batch.entries] + list(self.fresh)
        gone = [entry for entry in waiting if entry.row in rows]
        if gone:
            batches = [p.with_entries(tuple(e for e in p.entries if e.row not in rows)) for p in self.parked]
            self.parked = [batch for batch in batches if batch.entries]
            kept = [entry for entry in self.fresh if entry.row not in rows]
            self.fresh = deque(kept)
            self.fresh_bytes = sum(map(_size, kept))
            self.count -= len(gone)
        return gone

    def clear(self) -> list[Entry]:
        entries = self.entries()
        for held in (self.fresh, self.parked, self.leased):
            held.clear()
        self.fresh_bytes = self.count = 0
        return entries

    def _displace_parked(self, batch: Batch) -> Entry:
        self.parked.remove(batch)
        if batch.entries[1:]:
            self.park([batch.with_entries(batch.entries[1:])])
        self.count -= 1
        return batch.entries[0]

    def _pop_fresh(self) -> Entry:
        entry = self.fresh.popleft()
        self.fresh_bytes -= _size(entry)
        self.count -= 1
        return entry

    def _take_parked(self, plan: Plan, now: float) -> Batch | None:
        if not self.parked or self.parked[0].due > now:
            return None
        batch = self.parked.pop(0)
        fitting = _fitting(batch.entries, plan)
        if fitting < len(batch.entries):
            # What may travel together has become less since this batch was made.
            self.park([batch.with_entries(batch.entries[fitting:])])
            batch = batch.with_entries(batch.entries[:fitting])
        return batch

    def _take_fresh(self, plan: Plan, now: float, flush_through: int, linger: float) -> Batch | None:
        if not self.fresh:
            return None
        first = self.fresh[0]
        is_due = not plan.batches or self._full(plan) or first.sequence <= flush_through
        if not is_due and first.accepted_at + linger > now:
            return None
        entries = tuple(self._pop_fresh() for _ in range(_fitting(self.fresh, plan)))
        self.count += len(entries)  # leased, not gone
        return Batch(self.kind, entries)

    def _full(self, plan: Plan) -> bool:
        return len(self.fresh) >= plan.max_events or self.fresh_bytes >= plan.max_bytes


def _size(entry: Entry) -> int:
    """Return an event's bytes in an array, with the sign that parts it from the next."""
    return len(entry.event.body) + 1


def _fitting(entries: Iterable[Entry], plan: Plan) -> int:
    """Return how many entries from the first on fit into a request; one always does."""
    count, size = 0, 1
    for entry in entries:
        size += _size(entry)
        if count and (count >= plan.max_events or size > plan.max_bytes):
            break
        count += 1
    return count
