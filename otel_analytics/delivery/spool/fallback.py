"""A queue on disk that may fail at any time, and one in memory that takes over what it cannot.

Files are full, locked, damaged, replaced by an operator, or gone. The spool then refuses what is put, and
hands over what it had in memory of a file that is no more; all else goes on with the file. Neither queue
knows of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.queue.memory import MemoryQueue
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.delivery.spool.spool import Mark, Spool
from otel_analytics.events import EncodedEvent


class Marks(NamedTuple):
    """Everything accepted so far, by either queue."""

    spool: Mark
    memory: int


class Fallback:
    """Both queues as one.

    Args:
        spool: What takes events while its file works.
        memory: What takes them otherwise; both number them from one counter.
    """

    def __init__(self, spool: Spool, memory: MemoryQueue) -> None:
        self._spool = spool
        self._memory = memory
        self._turns: tuple[Spool | MemoryQueue, Spool | MemoryQueue] = memory, spool

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events; return those dropped from memory where the file has failed."""
        return [] if self._spool.put(events) else self._memory.put(events)

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept, in the file's books."""
        self._spool.refuse(reason, count)

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now; the queues take turns."""
        for queue in self._turns:
            batch = queue.take(plan, now, flush_through, kinds)
            if batch is not None:
                self._turns = self._turns[::-1]
                return batch
        return None

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        return min(self._memory.ready_at(plan, kinds), self._spool.ready_at(plan, kinds))

    def settle(self, batch: Batch, settlement: Settlement) -> bool:
        """End a lease, of whichever queue it is."""
        # Memory again: the spool may have handed it over just now.
        queues = self._memory, self._spool, self._memory
        return any(queue.settle(batch, settlement) for queue in queues)

    def release_parked(self) -> None:
        """Make everything parked due at once."""
        self._memory.release_parked()
        self._spool.release_parked()

    def reschedule(self, due: float) -> None:
        """Make everything parked due at one moment."""
        self._memory.reschedule(due)
        self._spool.reschedule(due)

    def abandon(self, reason: DropReason) -> list[Entry]:
        """Leave rows for others; what memory alone has is lost."""
        self._spool.abandon()
        return self._memory.abandon(reason)

    def maintenance_due_at(self) -> float:
        """Return when `maintain` is due, monotonic seconds."""
        return self._spool.maintenance_due_at()

    def maintain(self, now: float) -> None:
        """Do what the file needs."""
        self._spool.maintain(now)

    def has_room(self, count: int) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return true: what memory cannot hold goes to the file."""
        return True

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether a lane of these kinds has so many fresh events in memory, or so many bytes of them."""
        return self._spool.holds(kinds, events, size) or self._memory.holds(kinds, events, size)

    def newest(self) -> int:
        """Return the sequence of the event that came last into memory."""
        return max(self._spool.newest(), self._memory.newest())

    def mark(self) -> Marks:
        """Return a mark of everything accepted so far."""
        return Marks(self._spool.mark(), self._memory.mark())

    def is_settled(self, mark: Marks) -> bool:
        """Return whether nothing up to a mark waits or travels, but for what other processes hold."""
        # The spool first: looking at its file, it may find that another stands there, and hand over what it
        # had.
        return self._spool.is_settled(mark.spool) and self._memory.is_settled(
            max(mark.memory, mark.spool.sequence)
        )

    def snapshot(self) -> LedgerSnapshot:
        """Return the file's ledger, of all processes that share it, with what only this one's memory has."""
        return self._spool.snapshot() + self._memory.snapshot()

    def close(self) -> None:
        """Close the file."""
        self._spool.close()
