"""What waits to be sent: bounded, in two lanes, leased while it travels.

Everything that changes an event's fate happens under the queue's lock, and so does its count in the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.queue.lanes import NEVER, Lanes
from otel_analytics.delivery.queue.ledger import DropReason, Ledger, LedgerSnapshot
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.events import EncodedEvent


class Queue(Protocol):
    """Where events wait; all methods are safe to call from several threads."""

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events; return those displaced (dropped as `DropReason.QUEUE_FULL`)."""

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that were accepted from the caller but cannot be kept."""

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now; entries up to the sequence ``flush_through`` do not wait for more."""

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken (monotonic seconds); infinity: nothing waits."""

    def settle(self, batch: Batch, settlement: Settlement) -> bool:
        """End a lease; false where it had been revoked."""

    def release_parked(self) -> None:
        """Make everything that waits for another attempt due at once, for the exit."""

    def reschedule(self, due: float) -> None:
        """Make everything that waits for another attempt due at one moment (monotonic seconds)."""

    def abandon(self, reason: DropReason) -> list[Entry]:
        """Let go of whatever is left, revoking all leases; return what is lost by that."""

    def maintenance_due_at(self) -> float:
        """Return when `maintain` is due (monotonic seconds); infinity: never."""

    def maintain(self, now: float) -> None:
        """Do what has to be done from time to time, whether there are events or not."""

    def has_room(self, count: int) -> bool:
        """Return whether so many more events would displace none, whatever their kind."""

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether so many events of one of these kinds, or so many bytes, wait for their first request."""

    def newest(self) -> int:
        """Return the sequence of the event accepted last."""

    def mark(self) -> Any:
        """Return a mark of everything accepted so far, for `is_settled`."""

    def is_settled(self, mark: Any) -> bool:
        """Return whether nothing up to a mark waits or travels."""

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger as it stands."""

    def close(self) -> None:
        """Release what the queue holds open."""


class MemoryQueue:
    """The queue in memory, lost with the process.

    Args:
        max_queue_size: Most events of each kind.
        linger: Seconds a fresh event waits for others to travel with.
        clock: Monotonic seconds.
        ledger: Counts what becomes of them; one of its own by default.
        numbers: Numbers the events, from 1 by default.
    """

    def __init__(
        self,
        *,
        max_queue_size: int,
        linger: float,
        clock: Callable[[], float],
        ledger: Ledger | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ledger = ledger or Ledger()
        self._lanes = Lanes(capacity=max_queue_size, linger=linger, numbers=numbers)

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events; return those displaced."""
        now = self._clock()
        with self._lock:
            self._ledger.accept(len(events))
            append = self._lanes.append
            displaced = [entry for event in events if (entry := append(event, now)) is not None]
            if displaced:
                self._ledger.drop(DropReason.QUEUE_FULL, len(displaced))
        return displaced

    def adopt(self, lanes: Lanes) -> None:
        """Take over what another queue had; it counts as accepted here."""
        with self._lock:
            self._ledger.accept(lanes.count())
            self._lanes.adopt(lanes)

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept."""
        with self._lock:
            self._ledger.accept(count)
            self._ledger.drop(reason, count)

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now."""
        with self._lock:
            return self._lanes.take(plan, now, flush_through, kinds)

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        with self._lock:
            return self._lanes.ready_at(plan, kinds)

    def settle(self, batch: Batch, settlement: Settlement) -> bool:
        """End a lease."""
        with self._lock:
            if not self._lanes.end_lease(batch, settlement.again):
                return False
            for _, reason in settlement.dropped:
                self._ledger.drop(reason)
            self._ledger.deliver(len(settlement.delivered_of(batch)))
        return True

    def release_parked(self) -> None:
        """Make everything parked due at once."""
        self.reschedule(-NEVER)

    def reschedule(self, due: float) -> None:
        """Make everything parked due at one moment."""
        with self._lock:
            self._lanes.reschedule(due)

    def abandon(self, reason: DropReason) -> list[Entry]:
        """Drop whatever is left."""
        with self._lock:
            entries = self._lanes.clear()
            if entries:
                self._ledger.drop(reason, len(entries))
        return entries

    def maintenance_due_at(self) -> float:
        """Return infinity: memory needs no tending."""
        return NEVER

    def maintain(self, now: float) -> None:
        """Do nothing."""

    def has_room(self, count: int) -> bool:
        """Return whether so many more events would displace none."""
        return min(map(self._lanes.room, Kind)) >= count

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether a lane of these kinds has so many fresh events in memory, or so many bytes of them."""
        return self._lanes.holds(kinds, events, size)

    def newest(self) -> int:
        """Return the sequence of the event accepted last."""
        return self._lanes.newest

    def mark(self) -> int:
        """Return the sequence of the event accepted last."""
        return self._lanes.newest

    def is_settled(self, mark: int) -> bool:
        """Return whether nothing up to a mark waits or travels."""
        with self._lock:
            return self._lanes.oldest() > mark

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger as it stands."""
        with self._lock:
            return self._ledger.snapshot(self._lanes.count())

    def close(self) -> None:
        """Do nothing: memory needs no closing."""
