"""What waits to be sent: bounded, in two lanes, leased while it travels.

Everything that changes an event's fate in memory happens here, under one lock, and so does its count in the
ledger. Views never displace engagements: each kind has a lane and a bound of its own, and a full lane drops
its oldest event that is not on its way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from otel_analytics.delivery.ledger import DropReason, Ledger, LedgerSnapshot
from otel_analytics.delivery.negotiation import Plan
from otel_analytics.delivery.parcel import Entry, Parcel
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.events import EncodedEvent, Kind

_NEVER = float("inf")


class Outbox(Protocol):
    """Where events wait; all methods are safe to call from several threads."""

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events; return those displaced (dropped as `DropReason.QUEUE_FULL`)."""

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that were accepted from the caller but cannot be kept."""

    def take(self, plan: Plan, now: float, ripe_through: int, kinds: Collection[Kind]) -> Parcel | None:
        """Lease what may be sent now; entries up to the sequence ``ripe_through`` do not wait for more."""

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken (monotonic seconds); infinity: nothing waits."""

    def settle(self, parcel: Parcel, settlement: Settlement) -> bool:
        """End a lease; false where it had been revoked."""

    def release_parked(self) -> None:
        """Make everything that waits for another attempt due at once."""

    def drop_pending(self, reason: DropReason) -> list[Entry]:
        """Give up whatever is left, revoking all leases."""

    def has_room(self, count: int) -> bool:
        """Return whether so many more events would displace none, whatever their kind."""

    def longest_lane(self) -> int:
        """Return how many events of a kind wait for their first request, of that which has more."""

    def newest(self) -> int:
        """Return the sequence of the event accepted last."""

    def oldest_pending(self) -> float:
        """Return the sequence of the oldest event not settled; infinity where there is none."""

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger as it stands."""


class _Lane:
    """One kind's events: fresh ones in order, parcels to send again, parcels on their way."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.fresh: deque[Entry] = deque()
        self.fresh_bytes = 0
        self.parked: list[Parcel] = []
        self.leased: list[Parcel] = []
        self.count = 0

    def append(self, entry: Entry) -> None:
        self.fresh.append(entry)
        self.fresh_bytes += len(entry.event.body)
        self.count += 1

    def park(self, parcels: Iterable[Parcel]) -> None:
        self.parked.extend(parcels)
        self.parked.sort(key=lambda parcel: (parcel.due, parcel.entries[0].sequence))

    def displace_oldest(self) -> Entry | None:
        """Drop the oldest event that is not on its way."""
        oldest_parked = min(self.parked, key=lambda parcel: parcel.entries[0].sequence, default=None)
        if oldest_parked is not None:
            return self._displace_parked(oldest_parked)
        return self._pop_fresh() if self.fresh else None

    def take(self, plan: Plan, now: float, ripe_through: int, linger: float) -> Parcel | None:
        parcel = self._take_parked(plan, now) or self._take_fresh(plan, now, ripe_through, linger)
        if parcel is not None:
            self.leased.append(parcel)
        return parcel

    def ready_at(self, plan: Plan, linger: float) -> float:
        parked = self.parked[0].due if self.parked else _NEVER
        if not self.fresh:
            return parked
        lingers = plan.batches and not self._full(plan)
        return min(parked, self.fresh[0].accepted_at + (linger if lingers else 0.0))

    def oldest(self) -> float:
        fresh = [self.fresh[0].sequence] if self.fresh else []
        held = [parcel.entries[0].sequence for parcels in (self.parked, self.leased) for parcel in parcels]
        return min([*fresh, *held], default=_NEVER)

    def clear(self) -> list[Entry]:
        held = [entry for parcels in (self.parked, self.leased) for p in parcels for entry in p.entries]
        entries = [*held, *self.fresh]
        self.__init__(self.kind)  # type: ignore[misc] # empty is how a lane begins
        return entries

    def _displace_parked(self, parcel: Parcel) -> Entry:
        self.parked.remove(parcel)
        if parcel.entries[1:]:
            self.park([parcel.with_entries(parcel.entries[1:])])
        self.count -= 1
        return parcel.entries[0]

    def _pop_fresh(self) -> Entry:
        entry = self.fresh.popleft()
        self.fresh_bytes -= len(entry.event.body)
        self.count -= 1
        return entry

    def _take_parked(self, plan: Plan, now: float) -> Parcel | None:
        if not self.parked or self.parked[0].due > now:
            return None
        parcel = self.parked.pop(0)
        fitting = _fitting(parcel.entries, plan)
        if fitting < len(parcel.entries):
            # What may travel together has become less since this parcel was made.
            self.park([parcel.with_entries(parcel.entries[fitting:])])
            parcel = parcel.with_entries(parcel.entries[:fitting])
        return parcel

    def _take_fresh(self, plan: Plan, now: float, ripe_through: int, linger: float) -> Parcel | None:
        if not self.fresh:
            return None
        first = self.fresh[0]
        ripe = not plan.batches or self._full(plan) or first.sequence <= ripe_through
        if not ripe and first.accepted_at + linger > now:
            return None
        entries = tuple(self._pop_fresh() for _ in range(_fitting(self.fresh, plan)))
        self.count += len(entries)  # leased, not gone
        return Parcel(self.kind, entries)

    def _full(self, plan: Plan) -> bool:
        return len(self.fresh) >= plan.max_events or self.fresh_bytes >= plan.max_bytes


def _fitting(entries: Iterable[Entry], plan: Plan) -> int:
    """Return how many entries from the first on fit into a request; one always does."""
    count, size = 0, 1
    for entry in entries:
        size += len(entry.event.body) + 1
        if count and (count >= plan.max_events or size > plan.max_bytes):
            break
        count += 1
    return count


class MemoryOutbox:
    """The outbox in memory, lost with the process.

    Args:
        max_queue_size: Most events of each kind.
        linger: Seconds a fresh event waits for others to travel with.
        clock: Monotonic seconds.
    """

    def __init__(self, *, max_queue_size: int, linger: float, clock: Callable[[], float]) -> None:
        self._max_queue_size = max_queue_size
        self._linger = linger
        self._clock = clock
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._sequence = 0
        self._lanes = {kind: _Lane(kind) for kind in Kind}
        self._order = list(Kind)

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events; return those displaced."""
        displaced: list[Entry] = []
        now = self._clock()
        with self._lock:
            self._ledger.accept(len(events))
            for event in events:
                self._sequence += 1
                lane = self._lanes[event.kind]
                entry = Entry(self._sequence, now, event)
                if lane.count < self._max_queue_size:
                    lane.append(entry)
                else:
                    displaced.append(self._make_room(lane, entry))
            if displaced:
                self._ledger.drop(DropReason.QUEUE_FULL, len(displaced))
        return displaced

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept."""
        with self._lock:
            self._ledger.accept(count)
            self._ledger.drop(reason, count)

    def take(self, plan: Plan, now: float, ripe_through: int, kinds: Collection[Kind]) -> Parcel | None:
        """Lease what may be sent now; the lanes take turns."""
        with self._lock:
            for kind in self._order:
                if kind not in kinds:
                    continue
                parcel = self._lanes[kind].take(plan, now, ripe_through, self._linger)
                if parcel is not None:
                    self._order.sort(key=kind.__eq__)
                    return parcel
        return None

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        with self._lock:
            return min((self._lanes[kind].ready_at(plan, self._linger) for kind in kinds), default=_NEVER)

    def settle(self, parcel: Parcel, settlement: Settlement) -> bool:
        """End a lease."""
        with self._lock:
            lane = self._lanes[parcel.kind]
            if parcel not in lane.leased:
                return False
            lane.leased.remove(parcel)
            lane.park(settlement.again)
            again = sum(len(part.entries) for part in settlement.again)
            lane.count -= len(parcel.entries) - again
            for _, reason in settlement.dropped:
                self._ledger.drop(reason)
            self._ledger.deliver(len(parcel.entries) - again - len(settlement.dropped))
        return True

    def release_parked(self) -> None:
        """Make everything parked due at once."""
        with self._lock:
            for lane in self._lanes.values():
                lane.parked = [replace(parcel, due=-_NEVER) for parcel in lane.parked]

    def drop_pending(self, reason: DropReason) -> list[Entry]:
        """Give up whatever is left."""
        with self._lock:
            entries = [entry for lane in self._lanes.values() for entry in lane.clear()]
            if entries:
                self._ledger.drop(reason, len(entries))
        return entries

    def has_room(self, count: int) -> bool:
        """Return whether so many more events would displace none."""
        return max(lane.count for lane in self._lanes.values()) + count <= self._max_queue_size

    def longest_lane(self) -> int:
        """Return how many fresh events the longer lane has."""
        return max(len(lane.fresh) for lane in self._lanes.values())

    def newest(self) -> int:
        """Return the sequence of the event accepted last."""
        return self._sequence

    def oldest_pending(self) -> float:
        """Return the sequence of the oldest event not settled."""
        with self._lock:
            return min(lane.oldest() for lane in self._lanes.values())

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger as it stands."""
        with self._lock:
            return self._ledger.snapshot(sum(lane.count for lane in self._lanes.values()))

    @staticmethod
    def _make_room(lane: _Lane, entry: Entry) -> Entry:
        oldest = lane.displace_oldest()
        if oldest is None:
            return entry  # everything older is on its way
        lane.append(entry)
        return oldest
