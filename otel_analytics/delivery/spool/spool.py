"""The queue on disk: what waits in memory is a row of the file too, and the rest is a row only.

::

    put ──► held ──────────► delivered, or dropped with a reason
             │ ▲                        ▲
       freed │ │ claimed                │ settled
             ▼ │                        │
           anybody's

A row is held while a process has its event in memory, and anybody's otherwise: freed at its exit, or by
others once its lease has ended. A process that was stopped for so long, and goes on, sends what it held, as
others do by then: all by the event's own id.

Accepting is one commit, shared by all threads that come while another one commits. Sending works on the lanes
in memory, as without a spool; settling deletes the rows. Where the file fails, nothing is accepted; where it
is another by now, what memory has of the former is handed over: see `fallback`.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.hooks import DropNotices
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.logs import RateLimitedLog
from otel_analytics.delivery.queue.lanes import NEVER, Lanes
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.delivery.spool.books import Books
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.delivery.spool.rows import Row
from otel_analytics.delivery.spool.spool_file import FAILED, SpoolFile
from otel_analytics.events import EncodedEvent

_CHUNK = 500  # rows that memory takes from the file at least, so that not every row is a transaction
_MOST_CLAIMED = 2_000  # and at most, so that nobody waits long for the lock

_LAST_ROW = 2**62

_LOST = {
    DropReason.SPOOL_FULL: "the spool is full, events are dropped; see max_spool_bytes",
    DropReason.EXPIRED: "events could not be delivered in time and are dropped; see max_spool_age_hours",
}
_LEFT = "events wait in the spool and are sent later"


@dataclass(frozen=True)
class SpoolLimits:
    """What the file may grow to, and how long a process holds on to its events.

    Args:
        max_bytes: Most bytes of bodies.
        max_age: Seconds after which an event that could not be delivered is dropped.
        lease: Seconds after a process's last sign of life until others take over its events.
    """

    max_bytes: int
    max_age: float
    lease: float = 30.0


class Mark(NamedTuple):
    """Everything accepted so far: in the file, and by this process."""

    row: int
    sequence: int


@dataclass
class _Ticket:
    """Events of one caller, waiting for the commit they share; then, whether it took them."""

    events: Sequence[EncodedEvent]
    is_taken: bool | None = None


class Spool:
    """Events that survive the process, one of the two queues of `Fallback`.

    Args:
        path: The file.
        limits: Its bounds.
        max_queue_size: Most events of each kind in memory.
        linger: Seconds a fresh event waits for others to travel with.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        log: Tells the operator.
        notices: Tells `on_drop`.
        life: In whose last chance the backlog is left for another day.
        numbers: Numbers the events in memory.
        on_lost: Takes over what memory has of a file that is gone; called under the spool's lock.
    """

    def __init__(
        self,
        path: Path,
        limits: SpoolLimits,
        *,
        max_queue_size: int,
        linger: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        log: RateLimitedLog,
        notices: DropNotices,
        life: Life,
        numbers: Iterator[int],
        on_lost: Callable[[Lanes], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._log = log
        self._notices = notices
        self._keep_free = max_queue_size // 2  # for new events, however large the backlog is
        self._chunk = max(1, min(_CHUNK, self._keep_free // 4))
        self._on_lost = on_lost
        self._new_lanes = partial(Lanes, capacity=max_queue_size, linger=linger, numbers=numbers)
        self._lanes = self._new_lanes()
        self._rows_since = 0  # the sequence up to which rows were those of a file that is gone
        self._books = Books()
        self._tickets: deque[_Ticket] = deque()
        self._backlog = set(Kind)  # kinds of which the file may have rows that are anybody's
        self._maintenance_due_at = -NEVER
        self._life = life
        self._file = SpoolFile(
            path,
            partial(
                Journal,
                path,
                owner=secrets.randbits(62),
                wall_clock=wall_clock,
                max_bytes=limits.max_bytes,
                lease=limits.lease,
            ),
            on_replaced=self._lose_rows,
            clock=clock,
            wall_clock=wall_clock,
            log=log,
            life=life,
        )
        self._lock = self._file.lock

    def put(self, events: Sequence[EncodedEvent]) -> bool:
        """Accept events in one commit; false where the file has failed, and nothing is accepted."""
        ticket = _Ticket(events)
        self._tickets.append(ticket)
        with self._lock:
            if ticket.is_taken is None:  # else another thread's commit had room for these
                self._commit([self._tickets.popleft() for _ in range(len(self._tickets))])
        return bool(ticket.is_taken)

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept; the file hears of them when it is used for something else."""
        with self._lock:
            self._books.refuse(reason, count)

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now, from memory; memory takes from the file what there is room for."""
        with self._lock:
            self._settle_rows()
            for kind in self._backlog & set(kinds):
                self._refill(kind)
            return self._lanes.take(plan, now, flush_through, kinds)

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        with self._lock:
            ready_at = self._lanes.ready_at(plan, kinds)
            wants_file = bool(self._books.changes) or any(map(self._wanted, self._backlog & set(kinds)))
            if wants_file and not self._life.is_ending:
                return min(ready_at, self._file.rests_until)
            return ready_at

    def settle(self, batch: Batch, settlement: Settlement) -> bool:
        """End a lease: delete the rows of what was delivered or dropped."""
        with self._lock:
            is_held = self._lanes.end_lease(batch, settlement.again)
            # Even of a revoked lease, rows go: they are anybody's by now, and need not be sent again.
            changes = self._books.changes
            changes.delivered += self._rows(settlement.delivered_of(batch))
            for entry, reason in settlement.dropped:
                changes.drop(self._rows([entry]), reason)
            self._settle_rows()
        return is_held

    def reschedule(self, due: float) -> None:
        """Make everything parked due at one moment."""
        with self._lock:
            self._lanes.reschedule(due)

    def release_parked(self) -> None:
        """Make everything parked due at once; the backlog in the file is left for another day."""
        with self._lock:
            self._lanes.release_parked()
            self._maintenance_due_at = NEVER

    def abandon(self) -> None:
        """Leave the rows for others, and whatever lease there is."""
        with self._lock:
            rows = self._rows(self._lanes.clear())
            self._books.changes.freed += rows
            if rows:
                self._log.defer("spooled", len(rows), _LEFT, logging.INFO)
            self._settle_rows()

    def maintenance_due_at(self) -> float:
        """Return when `maintain` is due, monotonic seconds."""
        return self._maintenance_due_at

    def maintain(self, now: float) -> None:
        """Renew the lease, drop what is too old, and look for events that others left behind."""
        with self._lock:
            self._maintenance_due_at = now + self._limits.lease / 3
            self._settle_rows()
            self._file.use(lambda journal: journal.beat())
            self._file.use(self._expire)
            self._backlog = set(Kind)

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether a lane of these kinds has so many fresh events in memory, or so many bytes of them."""
        return self._lanes.holds(kinds, events, size)

    def newest(self) -> int:
        """Return the sequence of the event that came last into memory."""
        return self._lanes.newest

    def mark(self) -> Mark:
        """Return a mark of everything accepted so far, by whatever process."""
        with self._lock:
            self._backlog = set(Kind)
            self._file.use(lambda journal: journal.beat())
            row = self._file.read(lambda journal: journal.newest())
            return Mark(_LAST_ROW if row is FAILED else row, self._lanes.newest)

    def is_settled(self, mark: Mark) -> bool:
        """Return whether nothing up to a mark waits or travels, but for what other processes hold."""
        with self._lock:
            self._settle_rows()
            if self._books.changes.freed or self._lanes.oldest() <= mark.sequence:
                return False
            has_unowned = self._file.read(lambda journal: journal.has_unowned(mark.row))
            if has_unowned is FAILED:
                return self._file.is_off_limits or not self._backlog
            return not has_unowned and self._books.oldest_claimed() > mark.row

    def snapshot(self) -> LedgerSnapshot:
        """Return the file's ledger, of all its processes; where it cannot be read, what is known."""
        with self._lock:
            self._settle_rows()
            of_file = self._file.read(lambda journal: journal.snapshot())
            if of_file is FAILED:
                known = self._lanes.count() + len(list(self._books.changes.rows()))
                of_file = LedgerSnapshot(known, pending=known)
            return of_file + self._books.news()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._settle_rows()
            self._file.close()

    def _commit(self, tickets: Sequence[_Ticket]) -> None:
        events = [event for ticket in tickets for event in ticket.events]
        held = self._fitting(events)
        written = self._file.use(lambda journal: journal.append(events, held))
        if written is not FAILED:
            self._hold(events, held, *written)
        for ticket in tickets:
            ticket.is_taken = written is not FAILED

    def _fitting(self, events: Sequence[EncodedEvent]) -> set[int]:
        """Return the indices of events that memory has room for, too."""
        room = {kind: self._lanes.room(kind) for kind in Kind}
        held = set()
        for index, event in enumerate(events):
            room[event.kind] -= 1
            if room[event.kind] >= 0:
                held.add(index)
        return held

    def _hold(
        self,
        events: Sequence[EncodedEvent],
        held: Collection[int],
        rows: Sequence[int | None],
        displaced: Sequence[Row],
    ) -> None:
        now = self._clock()
        lost = [row.event for row in displaced]
        for index, (event, row) in enumerate(zip(events, rows, strict=True)):
            if row is None:
                lost.append(event)
            elif index in held:
                self._lanes.append(event, now, row)
            else:
                self._backlog.add(event.kind)
        self._tell_lost(DropReason.SPOOL_FULL, lost)

    def _lose_rows(self) -> None:
        """Hand over what memory has of a file that is gone."""
        self._books.forget_rows()
        lost, self._lanes = self._lanes, self._new_lanes()
        self._rows_since = max(lost.newest, self._rows_since)
        self._on_lost(lost)

    def _rows(self, entries: Iterable[Entry]) -> list[int]:
        """Return the rows of entries, but for those of a file that is gone."""
        return [e.row for e in entries if e.row is not None and e.sequence > self._rows_since]

    def _settle_rows(self) -> None:
        if self._books.tell(self._file):
            self._backlog = set(Kind)

    def _wanted(self, kind: Kind) -> int:
        """Return how many rows of a kind memory should take from the file now."""
        spare = self._lanes.room(kind) - self._keep_free
        return 0 if spare < self._chunk else min(spare, _MOST_CLAIMED)

    def _refill(self, kind: Kind) -> None:
        wanted = 0 if self._life.is_ending else self._wanted(kind)
        rows = self._file.use(lambda journal: journal.claim(kind, wanted)) if wanted else FAILED
        if rows is FAILED:
            return
        for row in rows:
            self._lanes.append(row.event, -NEVER, row.id)  # it has lingered long enough
        self._books.claim(row.id for row in rows)
        if len(rows) < wanted:
            self._backlog.discard(kind)

    def _expire(self, journal: Journal) -> None:
        before = self._wall_clock() - self._limits.max_age
        expired = [row.event for row in journal.expire(before)]
        aged = journal.aged(self._rows(self._lanes.entries()), before)
        discarded = self._lanes.discard(aged)
        self._books.changes.drop(self._rows(discarded), DropReason.EXPIRED)
        expired += [entry.event for entry in discarded]
        self._settle_rows()
        self._tell_lost(DropReason.EXPIRED, expired)

    def _tell_lost(self, reason: DropReason, events: Sequence[EncodedEvent]) -> None:
        if events:
            self._notices.add(reason, events)
            self._log.defer(reason.value, len(events), _LOST[reason])
