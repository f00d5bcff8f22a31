"""The outbox on disk: what waits in memory is a row of the journal too, and the rest is a row only.

Accepting is one commit, shared by all threads that come while another one commits. Sending works on the
lanes in memory, as without a spool; settling deletes the rows. The file may fail at any time - full, locked,
damaged - and then memory takes over.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from otel_analytics.delivery.hooks import DropNotices
from otel_analytics.delivery.journal import Journal, Row
from otel_analytics.delivery.lanes import NEVER, Lanes
from otel_analytics.delivery.ledger import DropReason, Ledger, LedgerSnapshot
from otel_analytics.delivery.negotiation import Plan
from otel_analytics.delivery.parcel import Entry, Parcel
from otel_analytics.delivery.report import Reporter
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.events import EncodedEvent, Kind

_REST_SECONDS = 1.0  # after the file failed, memory alone is used for so long
_MOST_CLAIMED = 2_000  # rows in one go, so that nobody waits long for the lock
_BEYOND = 1_000_000_000


_LOST = {
    DropReason.SPOOL_FULL: "the spool is full, events are dropped; see max_spool_bytes",
    DropReason.EXPIRED: "events could not be delivered in time and are dropped; see max_spool_age_hours",
}


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
    """Events of one caller, waiting for the commit they share."""

    events: Sequence[EncodedEvent]
    displaced: list[Entry] = field(default_factory=list)
    done: bool = False


class Spool:
    """An outbox whose events survive the process.

    Args:
        path: The file.
        limits: Its bounds.
        max_queue_size: Most events of each kind in memory.
        linger: Seconds a fresh event waits for others to travel with.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        reporter: Tells the operator.
        notices: Tells `on_drop`.
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
        reporter: Reporter,
        notices: DropNotices,
    ) -> None:
        self._path = path
        self._limits = limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._reporter = reporter
        self._notices = notices
        self._keep_free = max_queue_size // 2  # for new events, however large the backlog is
        self._lanes = Lanes(capacity=max_queue_size, linger=linger)
        self._ledger = Ledger()  # of events that only memory has
        self._lock = threading.RLock()
        self._tickets: deque[_Ticket] = deque()
        self._journal: Journal | None = None
        self._connected = False
        self._highest_row = 0
        self._rests_until = -NEVER
        self._tend_at = -NEVER
        self._backlog = set(Kind)
        self._is_closing = False
        self._unsettled: list[tuple[list[int], list[tuple[int, DropReason]]]] = []
        _close_before_fork(self)

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events in one commit; return those dropped from memory where the file has failed."""
        ticket = _Ticket(events)
        self._tickets.append(ticket)
        with self._lock:
            if not ticket.done:  # else another thread's commit had room for these
                self._commit([self._tickets.popleft() for _ in range(len(self._tickets))])
        return ticket.displaced

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept."""
        with self._lock:
            if not self._try(lambda journal: journal.refuse(reason, count)):
                self._ledger.accept(count)
                self._ledger.drop(reason, count)

    def take(self, plan: Plan, now: float, ripe_through: int, kinds: Collection[Kind]) -> Parcel | None:
        """Lease what may be sent now, from memory; memory takes from the file what there is room for."""
        with self._lock:
            for kind in self._backlog & set(kinds):
                self._refill(kind, now)
            return self._lanes.take(plan, now, ripe_through, kinds)

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        with self._lock:
            if any(self._can_refill(kind) for kind in self._backlog & set(kinds)):
                return -NEVER
            return self._lanes.ready_at(plan, kinds)

    def settle(self, parcel: Parcel, settlement: Settlement) -> bool:
        """End a lease: delete the rows of what was delivered or dropped."""
        with self._lock:
            if not self._lanes.end_lease(parcel, settlement.again):
                return False
            self._settle_volatile(parcel, settlement)
            delivered = [entry.row for entry in settlement.delivered_of(parcel) if entry.row is not None]
            dropped = [(e.row, reason) for e, reason in settlement.dropped if e.row is not None]
            self._unsettled.append((delivered, dropped))
            self._settle_rows()
        return True

    def release_parked(self) -> None:
        """Make everything parked due at once; the backlog in the file is left for another day."""
        with self._lock:
            self._lanes.release_parked()
            self._is_closing = True
            self._tend_at = NEVER

    def abandon(self, reason: DropReason) -> list[Entry]:
        """Leave rows for others; what only memory has is lost."""
        with self._lock:
            self._settle_rows()
            entries = self._lanes.clear()
            released = self._try(lambda journal: journal.release())
            lost = [entry for entry in entries if entry.row is None]
            if lost:
                self._ledger.drop(reason, len(lost))
            if released:
                self._tell_left(len(entries) - len(lost))
        return lost

    def tend_at(self) -> float:
        """Return when `tend` is due, monotonic seconds."""
        return self._tend_at

    def tend(self, now: float) -> None:
        """Renew the lease, drop what is too old, and look for events that others left behind."""
        with self._lock:
            self._tend_at = now + self._limits.lease / 3
            self._settle_rows()
            self._try(lambda journal: journal.beat())
            self._try(self._expire)
            self._backlog = set(Kind)

    def has_room(self, count: int) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return true: what memory cannot hold goes to the file."""
        return True

    def longest_lane(self) -> int:
        """Return how many fresh events the longer lane has."""
        return self._lanes.longest()

    def newest(self) -> int:
        """Return the sequence of the event that came last into memory."""
        return self._lanes.newest

    def mark(self) -> Mark:
        """Return a mark of everything accepted so far, by whatever process."""
        with self._lock:
            self._backlog = set(Kind)
            self._try(self._note_newest)
            return Mark(self._highest_row, self._lanes.newest)

    def is_settled(self, mark: Mark) -> bool:
        """Return whether nothing up to a mark waits or travels, but for what other processes hold."""
        with self._lock:
            if self._lanes.oldest() <= mark.sequence:
                return False
            settled: list[bool] = []
            self._try(lambda journal: settled.append(journal.is_settled(mark.row)))
            return all(settled)

    def snapshot(self) -> LedgerSnapshot:
        """Return the file's ledger, of all processes that share it, with what only this one's memory has."""
        with self._lock:
            volatile = self._ledger.snapshot(sum(entry.row is None for entry in self._lanes.entries()))
            found: list[LedgerSnapshot] = []
            self._try(lambda journal: found.append(journal.snapshot()))
        return found[0] + volatile if found else volatile

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._journal is not None and self._connected:
                with suppress(sqlite3.Error):
                    self._journal.release()
                self._journal.disconnect()
            self._connected = False

    def before_fork(self) -> None:
        """Close the file: SQLite forbids to carry a connection through a fork."""
        self._lock.acquire()
        if self._journal is not None and self._connected:
            self._journal.disconnect()
            self._connected = False

    def after_fork(self) -> None:
        """Go on in the parent."""
        self._lock.release()

    def _commit(self, tickets: Sequence[_Ticket]) -> None:
        events = [event for ticket in tickets for event in ticket.events]
        room = {kind: self._lanes.room(kind) for kind in Kind}
        held: set[int] = set()
        for index, event in enumerate(events):
            if room[event.kind] > 0:
                room[event.kind] -= 1
                held.add(index)
        written: list[tuple[list[int | None], list[Row]]] = []
        if self._try(lambda journal: written.append(journal.append(events, held))):
            self._hold(events, held, *written[0])
        else:
            self._keep_volatile(tickets)
        for ticket in tickets:
            ticket.done = True

    def _hold(
        self,
        events: Sequence[EncodedEvent],
        held: Collection[int],
        rows: Sequence[int | None],
        displaced: Sequence[Row],
    ) -> None:
        now = self._clock()
        for index, (event, row) in enumerate(zip(events, rows, strict=True)):
            if row is not None:
                self._highest_row = row
                if index in held:
                    self._lanes.append(event, now, row)
                else:
                    self._backlog.add(event.kind)
        refused = [event for event, row in zip(events, rows, strict=True) if row is None]
        self._tell_lost(DropReason.SPOOL_FULL, [*(row.event for row in displaced), *refused])

    def _keep_volatile(self, tickets: Iterable[_Ticket]) -> None:
        now = self._clock()
        for ticket in tickets:
            self._ledger.accept(len(ticket.events))
            added = (self._lanes.append(event, now) for event in ticket.events)
            ticket.displaced = [entry for entry in added if entry is not None]
            for entry in ticket.displaced:
                self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        """Count an entry displaced from memory; its row goes when the file can be written again."""
        if entry.row is None:
            self._ledger.drop(DropReason.QUEUE_FULL)
        else:
            self._unsettled.append(([], [(entry.row, DropReason.QUEUE_FULL)]))

    def _settle_volatile(self, parcel: Parcel, settlement: Settlement) -> None:
        self._ledger.deliver(sum(entry.row is None for entry in settlement.delivered_of(parcel)))
        for entry, reason in settlement.dropped:
            if entry.row is None:
                self._ledger.drop(reason)

    def _settle_rows(self) -> None:
        """Delete rows; what the file does not take now is tried again, and at worst sent again by its id."""
        while self._unsettled and self._try(self._settle_next):
            del self._unsettled[0]

    def _settle_next(self, journal: Journal) -> None:
        journal.settle(*self._unsettled[0])

    def _can_refill(self, kind: Kind) -> bool:
        may_read = not self._is_closing and self._clock() >= self._rests_until
        return may_read and self._lanes.room(kind) > self._keep_free

    def _refill(self, kind: Kind, now: float) -> None:
        if not self._can_refill(kind):
            return
        wanted = min(self._lanes.room(kind) - self._keep_free, _MOST_CLAIMED)
        rows: list[Row] = []
        self._try(lambda journal: rows.extend(journal.claim(kind, wanted)))
        for row in rows:
            self._lanes.append(row.event, now, row.id)
        if len(rows) < wanted:
            self._backlog.discard(kind)

    def _expire(self, journal: Journal) -> None:
        expired = journal.expire(self._wall_clock() - self._limits.max_age)
        self._tell_lost(DropReason.EXPIRED, [row.event for row in expired])

    def _tell_lost(self, reason: DropReason, events: Sequence[EncodedEvent]) -> None:
        if events:
            self._notices.add(reason, events)
            self._reporter.tell(reason.value, len(events), _LOST[reason])

    def _note_newest(self, journal: Journal) -> None:
        self._highest_row = max(self._highest_row, journal.newest())

    def _tell_left(self, count: int) -> None:
        if count:
            self._reporter.tell("spooled", count, "events wait in the spool and are sent later", logging.INFO)

    def _try(self, work: Callable[[Journal], object]) -> bool:
        """Do something with the file; return whether that went well."""
        if self._clock() < self._rests_until:
            return False
        try:
            work(self._opened())
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return False
        return True

    def _opened(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(
                self._path,
                wall_clock=self._wall_clock,
                max_bytes=self._limits.max_bytes,
                lease_seconds=self._limits.lease,
                above=self._highest_row and self._highest_row + _BEYOND,
            )
        elif not self._connected:
            self._journal.reconnect()
        self._connected = True
        return self._journal

    def _fail(self, error: Exception) -> None:
        # SQLite's own word for a damaged file is the base class; a full disk or a lock has a subclass.
        if type(error) is sqlite3.DatabaseError:
            self._set_aside(error)
            return
        self._rests_until = self._clock() + _REST_SECONDS
        self._reporter.tell("spool_failed", 1, f"the spool cannot be used ({error}); events wait in memory")

    def _set_aside(self, error: Exception) -> None:
        if self._journal is not None:
            self._journal.disconnect()
        self._journal, self._connected = None, False
        aside = set_aside(self._path, int(self._wall_clock()))
        self._reporter.tell("spool_damaged", 1, f"the spool is damaged ({error}); set aside as {aside.name}")
        self._rests_until = -NEVER


def set_aside(path: Path, unix_now: int) -> Path:
    """Rename a damaged file and what belongs to it; return its new name."""
    aside = path.with_name(f"{path.name}.damaged-{unix_now}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
    return aside


def _close_before_fork(spool: Spool) -> None:
    """Hold the spool's lock through a fork, its file closed: the parent opens it again, the child its own."""
    if not hasattr(os, "register_at_fork"):  # Windows
        return
    before, after = weakref.WeakMethod(spool.before_fork), weakref.WeakMethod(spool.after_fork)

    def call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
        alive = method()
        if alive is not None:
            alive()

    os.register_at_fork(before=lambda: call(before), after_in_parent=lambda: call(after))
