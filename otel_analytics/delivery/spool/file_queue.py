"""A queue on disk: what waits in memory is a row of its file too, and the rest is a row only.

::

                  room in memory
    put ──► row ─────────────────► row and entry ──► settled: the row is deleted
             │                          ▲
             └─► row of the backlog ────┘ as memory gets room, oldest first
                       ▲
    adopted file ──────┘

Accepting is one commit, shared by all threads that come while another one commits. Sending works on the lanes
in memory, as without a spool; settling deletes the rows. Where the file fails, nothing is accepted; where it
is gone, what memory has of it is handed over. What is in the file and not in memory is known as ranges of
rows, so that neither counting nor looking reads the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.hooks import DropNotices
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.logs import RateLimitedLog
from otel_analytics.delivery.queue.lanes import NEVER, Lanes
from otel_analytics.delivery.queue.ledger import DropReason, Ledger, LedgerSnapshot
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.delivery.spool.directory import BY_WORTH, Claim, Directory, Sizes, Summary
from otel_analytics.delivery.spool.journal import Contents, Journal, Row
from otel_analytics.delivery.spool.spool_file import FAILED, FileGoneError, SpoolFile
from otel_analytics.events import EncodedEvent

_CHUNK = 500  # rows that memory takes from the file at least, so that not every row is a read
_MOST_READ = 2_000  # and at most, so that nobody waits long for the lock
_MOST_EXPIRED = 10_000  # rows looked at in one go
_FEW = 8  # rows, where one or two will mostly do

_LOST = {
    DropReason.SPOOL_FULL: "the spool is full, events are dropped; see max_spool_bytes",
    DropReason.EXPIRED: "events could not be delivered in time and are dropped; see max_spool_age_hours",
    DropReason.SPOOL_LOST: "events are lost with the spool's file, which was damaged or removed",
}


@dataclass(frozen=True)
class Shared:
    """What all files of a client have in common.

    Args:
        directory: Where they are, with its bound.
        max_age: Seconds after which an event that could not be delivered is dropped.
        linger: Seconds a fresh event waits for others to travel with.
        clock: Monotonic seconds, the same for all processes.
        wall_clock: Seconds since the epoch.
        log: Tells the operator.
        notices: Tells `on_drop`.
        life: In whose last chance the backlog is left for another day.
        numbers: Numbers the events in memory.
        on_lost: Takes over what memory has of a file that is gone; called under the queue's lock.
    """

    directory: Directory
    max_age: float
    linger: float
    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    log: RateLimitedLog
    notices: DropNotices
    life: Life
    numbers: Iterator[int]
    on_lost: Callable[[Lanes], None]


class Mark(NamedTuple):
    """Everything that the queue has so far: the last row, and the last number in memory."""

    row: int
    sequence: int


class Backlog:
    """The rows of a kind that are in the file only: ranges of ids, between which memory has the rows."""

    def __init__(self) -> None:
        self.count = 0
        self._ranges: deque[list[int]] = deque()
        self._grows = False

    def add(self, first: int, last: int, count: int = 1) -> None:
        """Add rows that come after all others."""
        if self._grows:
            self._ranges[-1][1] = last
        else:
            self._ranges.append([first, last])
        self._grows = True
        self.count += count

    def pause(self) -> None:
        """Begin another range with the next row: memory has one of those before it."""
        self._grows = False

    def oldest(self) -> tuple[int, int] | None:
        """Return the first range; `None`: there is none."""
        return (self._ranges[0][0], self._ranges[0][1]) if self._ranges else None

    def advance(self, row: int, count: int) -> None:
        """Take off all rows up to one, which are so many."""
        while self._ranges and self._ranges[0][1] <= row:
            self._ranges.popleft()
        if self._ranges:
            self._ranges[0][0] = max(self._ranges[0][0], row + 1)
        self.count -= count
        if not self.count or not self._ranges:
            self._ranges.clear()
            self._grows, self.count = False, 0

    def __contains__(self, row: int) -> bool:
        """Whether a row is among them."""
        return any(first <= row <= last for first, last in self._ranges)


@dataclass
class _Ticket:
    """Events of one caller, waiting for the commit they share; then, whether it took them."""

    events: Sequence[EncodedEvent]
    is_taken: bool | None = None


class FileQueue:
    """The queue over one file: this process's own, or one that it has adopted.

    Args:
        shared: What all files have in common.
        capacity: Most events of each kind in memory.
        keep_free: How much of that the backlog leaves to new events.
        claim: An adopted file; without it, one of its own is begun for the first event.
    """

    def __init__(
        self, shared: Shared, capacity: int, *, keep_free: int = 0, claim: Claim | None = None
    ) -> None:
        self._shared = shared
        self._keep_free = keep_free
        self._chunk = max(1, min(_CHUNK, (capacity - keep_free) // 4))
        self._new_lanes = partial(Lanes, capacity=capacity, linger=shared.linger, numbers=shared.numbers)
        self._lanes = self._new_lanes()
        self._backlog = {kind: Backlog() for kind in Kind}
        self._is_spilling = dict.fromkeys(Kind, False)
        self._read_back: set[int] = set()  # rows of the backlog that are in memory by now
        self._left: set[int] = set()  # rows that memory has let go of
        self._revoked: list[Batch] = []
        self._settled: dict[Kind, list[int]] = {kind: [] for kind in Kind}  # what the file has yet to hear
        self._bytes = dict.fromkeys(Kind, 0)
        self._newest_row = 0
        self._ledger = Ledger()
        self._before = LedgerSnapshot()  # what others did with the file
        self._tickets: deque[_Ticket] = deque()
        self._is_closed = False
        self._file = SpoolFile(
            shared.directory.begin if claim is None else _gone,
            claim,
            on_lost=self._lose_rows,
            clock=shared.clock,
            wall_clock=shared.wall_clock,
            log=shared.log,
        )
        self._lock = self._file.lock

    @property
    def path(self) -> Path | None:
        """The file's path, known once it was opened or adopted."""
        return self._file.path

    def load(self) -> bool:
        """Take what is in the file for the backlog; give it back where it cannot be read: false."""
        with self._lock:
            found = self._file.use(lambda journal: {kind: journal.contents(kind) for kind in Kind})
            if found is FAILED:
                self._file.give_back()
                return False
            for kind, contents in found.items():
                self._load(kind, contents)
            books = self._file.summary.books
            self._before = replace(books, accepted=books.accepted - self._count())  # counted once more here
        return True

    def put(self, events: Sequence[EncodedEvent]) -> bool:
        """Accept events in one commit; false where the file has failed, and nothing is accepted."""
        ticket = _Ticket(events)
        self._tickets.append(ticket)
        with self._lock:
            if ticket.is_taken is None:  # else another thread's commit had room for these
                self._accept([self._tickets.popleft() for _ in range(len(self._tickets))])
        return bool(ticket.is_taken)

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept."""
        with self._lock:
            self._ledger.accept(count)
            self._ledger.drop(reason, count)

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now, from memory; memory takes from the file what there is room for."""
        with self._lock:
            self._tell()
            for kind in kinds:
                self._refill(kind)
            return self._lanes.take(plan, now, flush_through, kinds)

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        with self._lock:
            ready_at = self._lanes.ready_at(plan, kinds)
            wants_file = any(self._settled.values()) or any(map(self._wanted, kinds))
            return min(ready_at, self._file.rests_until) if wants_file else ready_at

    def settle(self, batch: Batch, settlement: Settlement) -> bool:
        """End a lease, deleting rows of what was delivered or dropped; false where it is of another file."""
        with self._lock:
            if not self._end_lease(batch, settlement):
                return False
            delivered = settlement.delivered_of(batch)
            self._forget(delivered)
            self._ledger.deliver(len(delivered))
            for entry, reason in settlement.dropped:
                self._forget([entry])
                self._ledger.drop(reason)
            self._tell()
            if self._is_closed:
                self._close_file()
        return True

    def reschedule(self, due: float) -> None:
        """Make everything parked due at one moment."""
        with self._lock:
            self._lanes.reschedule(due)

    def release_parked(self) -> None:
        """Make everything parked due at once; the backlog in the file is left for another day."""
        with self._lock:
            self._lanes.release_parked()

    def abandon(self) -> int:
        """Leave what memory has for others, and whatever lease there is; return how many events that are."""
        with self._lock:
            self._revoked += self._lanes.leased()
            rows = [entry.row for entry in self._lanes.clear() if entry.row is not None]
            self._left.update(rows)
            return len(rows)

    def maintain(self) -> None:
        """Drop what is too old."""
        with self._lock:
            self._tell()
            for kind in Kind if self._count() else ():
                self._expire(kind)

    def give_way(self, excess: Sizes) -> None:
        """Drop the oldest events, of so many bytes or all there are, but for those on their way."""
        with self._lock:
            for kind, size in zip(BY_WORTH, excess, strict=True):
                self._displace(kind, size)
            self._tell()

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether a lane of these kinds has so many fresh events in memory, or so many bytes of them."""
        return self._lanes.holds(kinds, events, size)

    def newest(self) -> int:
        """Return the number of the event that came last into memory."""
        return self._lanes.newest

    def mark(self) -> Mark:
        """Return a mark of everything there is so far."""
        with self._lock:
            return Mark(self._newest_row, self._lanes.newest)

    def is_settled(self, mark: Mark) -> bool:
        """Return whether nothing up to a mark waits or travels."""
        with self._lock:
            self._tell()
            waiting = [backlog.oldest() for backlog in self._backlog.values()]
            return (
                self._lanes.oldest() > mark.sequence
                and min(self._read_back, default=NEVER) > mark.row
                and not any(oldest is not None and oldest[0] <= mark.row for oldest in waiting)
            )

    def is_empty(self) -> bool:
        """Return whether nothing is left, in memory or in the file."""
        with self._lock:
            return not self._count()

    def sizes(self) -> Sizes:
        """Return the bytes of the events in the file."""
        return Sizes(*(self._bytes[kind] for kind in BY_WORTH))

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger of what this process did with the file, without reading it."""
        with self._lock:
            return self._ledger.snapshot(self._count())

    def close(self) -> None:
        """Close the file, and remove it where it is empty; whatever still comes opens it for that one use."""
        with self._lock:
            self._is_closed = True
            self._close_file()

    def _accept(self, tickets: Sequence[_Ticket]) -> None:
        events = [event for ticket in tickets for event in ticket.events]
        size = sum(len(event.body) for event in events)
        excess = self._shared.directory.excess(self.sizes(), size)
        refused = self._make_room(events, excess) if excess > 0 else ()
        kept = [event for index, event in enumerate(events) if index not in refused]
        is_written = self._write(kept)
        if is_written:
            self._ledger.accept(len(events))
            self._keep(kept)
            self._drop(DropReason.SPOOL_FULL, [events[index] for index in refused])
            self._publish()
        for ticket in tickets:
            ticket.is_taken = is_written

    def _write(self, events: Sequence[EncodedEvent] = ()) -> bool:
        """Add events, and delete the rows of those settled; return whether the file took it."""
        # Opening the file may show that it has gone: the rows are looked up after that.
        done = self._file.use(lambda journal: journal.write(self._newest_row, events, self._settled))
        if done is FAILED:
            return False
        self._settled = {kind: [] for kind in Kind}
        return True

    def _keep(self, events: Sequence[EncodedEvent]) -> None:
        now = self._shared.clock()
        for event, row in zip(events, count(self._newest_row + 1), strict=False):
            kind = event.kind
            self._bytes[kind] += len(event.body)
            room = self._lanes.room(kind)
            # Not at the first free place: a range of rows for every second event would be a long list.
            if not room or (self._is_spilling[kind] and room < self._chunk):
                self._is_spilling[kind] = True
                self._backlog[kind].add(row, row)
            else:
                self._is_spilling[kind] = False
                self._backlog[kind].pause()
                self._lanes.append(event, now, row)
        self._newest_row += len(events)

    def _load(self, kind: Kind, contents: Contents) -> None:
        if contents.events:
            self._backlog[kind].add(contents.first, contents.last, contents.events)
            self._bytes[kind] = contents.size
            self._newest_row = max(self._newest_row, contents.last)
            self._ledger.accept(contents.events)

    def _wanted(self, kind: Kind) -> int:
        """Return how many rows of a kind memory should take from the file now."""
        if self._backlog[kind].oldest() is None or self._shared.life.is_ending:
            return 0
        spare = self._lanes.room(kind) - self._keep_free
        return 0 if spare < self._chunk else min(spare, _MOST_READ)

    def _refill(self, kind: Kind) -> None:
        wanted = self._wanted(kind)
        while wanted > 0 and (rows := self._peek(kind, wanted)):
            for row in rows:
                self._lanes.append(row.event, -NEVER, row.id)  # it has lingered long enough
            self._backlog[kind].advance(rows[-1].id, len(rows))
            self._read_back.update(row.id for row in rows)
            wanted -= len(rows)

    def _peek(self, kind: Kind, limit: int) -> list[Row]:
        """Return the oldest rows of the backlog; none where there are none, or the file fails."""
        while (oldest := self._backlog[kind].oldest()) is not None:
            rows = self._file.use(
                partial(Journal.read, kind=kind, first=oldest[0], last=oldest[1], limit=limit)
            )
            # The use may have found that the file is gone, and all its rows with it.
            if rows is FAILED or self._backlog[kind].oldest() != oldest:
                return []
            if rows:
                return rows
            self._backlog[kind].advance(oldest[1], 0)
        return []

    def _end_lease(self, batch: Batch, settlement: Settlement) -> bool:
        if self._lanes.end_lease(batch, settlement.again):
            return True
        # A revoked lease: what was delivered nobody need send again.
        if batch not in self._revoked:
            return False
        self._revoked.remove(batch)
        return True

    def _forget(self, entries: Iterable[Entry]) -> None:
        """Have the rows of entries deleted with the next commit."""
        for entry in entries:
            if entry.row is not None:
                self._delete(Row(entry.row, entry.event))
                self._read_back.discard(entry.row)
                self._left.discard(entry.row)

    def _delete(self, row: Row) -> None:
        self._settled[row.event.kind].append(row.id)
        self._bytes[row.event.kind] -= len(row.event.body)

    def _tell(self) -> None:
        """Tell the file what became of rows; what it does not take is told again, or sent again by its id."""
        if any(self._settled.values()) and self._write():
            self._publish()

    def _publish(self) -> None:
        books = self._ledger.snapshot(0)
        self._file.publish(Summary(self.sizes(), self._before + books if self._before.accepted else books))

    def _close_file(self) -> None:
        self._file.wake()  # it may be well again, and this is the last time that it is told
        self._tell()
        self._file.close(is_empty=not self._count())

    def _count(self) -> int:
        return self._lanes.count() + len(self._left) + sum(each.count for each in self._backlog.values())

    def _lose_rows(self) -> None:
        """Hand over what memory has of a file that is gone; what only the file had is lost."""
        gone = sum(each.count for each in self._backlog.values()) + len(self._left)
        lost, self._lanes = self._lanes, self._new_lanes()
        self._backlog = {kind: Backlog() for kind in Kind}
        self._settled = {kind: [] for kind in Kind}
        self._bytes = dict.fromkeys(Kind, 0)
        self._read_back, self._left, self._revoked = set(), set(), []
        self._ledger.accept(-lost.count())
        self._shared.on_lost(lost)
        if gone:
            self._ledger.drop(DropReason.SPOOL_LOST, gone)
            self._shared.log.defer(DropReason.SPOOL_LOST.value, gone, _LOST[DropReason.SPOOL_LOST])

    def _make_room(self, events: Sequence[EncodedEvent], excess: int) -> set[int]:
        """Have the oldest views give way, then the views that come, and engagements to engagements only.

        What waits in the files of others is theirs to drop, which they do within a second or so: hence
        engagements come in for as long as views wait anywhere.

        Returns:
            The indices of events that there is no room for even so.
        """
        refused: set[int] = set()

        def refuse(kind: Kind, spare: int) -> int:
            still = excess
            for index, event in enumerate(events):
                if still > spare and event.kind is kind and index not in refused:
                    refused.add(index)
                    still -= len(event.body)
            return still

        views, engagements = self.sizes()
        others = self._shared.directory.others.views
        excess = refuse(Kind.VIEW, views)  # first, so that nobody gives way in vain
        excess = refuse(Kind.ENGAGEMENT, views + others + engagements)
        excess -= self._displace(Kind.VIEW, excess)
        excess = refuse(Kind.VIEW, 0) - others
        excess -= self._displace(Kind.ENGAGEMENT, excess)
        refuse(Kind.ENGAGEMENT, 0)
        return refused

    def _displace(self, kind: Kind, size: int) -> int:
        """Drop the oldest events of a kind until so many bytes are free; return how many are."""
        lost: list[EncodedEvent] = []
        freed, limit = 0, _FEW
        while freed < size and (rows := self._peek(kind, limit)):
            gone = list(_first(rows, size - freed))
            for row in gone:
                freed += len(row.event.body)
                self._delete(row)
            self._backlog[kind].advance(gone[-1].id, len(gone))
            lost += [row.event for row in gone]
            limit = _CHUNK
        while freed < size and (entry := self._lanes.displace(kind)) is not None:
            freed += len(entry.event.body)
            self._forget([entry])
            lost.append(entry.event)
        self._drop(DropReason.SPOOL_FULL, lost)
        return freed

    def _expire(self, kind: Kind) -> None:
        after, looked_at, limit = 0, 0, 1
        while looked_at < _MOST_EXPIRED:
            age = self._shared.max_age
            rows = self._file.use(partial(Journal.older, kind=kind, age=age, after=after, limit=limit))
            if rows is FAILED or not rows:
                return
            self._drop(DropReason.EXPIRED, self._taken_out(kind, rows))
            self._tell()
            after, looked_at, limit = rows[-1].id, looked_at + len(rows), _CHUNK

    def _taken_out(self, kind: Kind, rows: Sequence[Row]) -> list[EncodedEvent]:
        """Delete the oldest rows, but for those on their way; return the events of those deleted."""
        entries = self._lanes.discard({row.id for row in rows})
        waiting = [row for row in rows if row.id in self._backlog[kind]]
        self._forget(entries)
        for row in waiting:
            self._delete(row)
        if waiting:
            self._backlog[kind].advance(waiting[-1].id, len(waiting))
        return [entry.event for entry in entries] + [row.event for row in waiting]

    def _drop(self, reason: DropReason, events: Sequence[EncodedEvent]) -> None:
        if events:
            self._ledger.drop(reason, len(events))
            self._shared.notices.add(reason, events)
            self._shared.log.defer(reason.value, len(events), _LOST[reason])


def _first(rows: Iterable[Row], size: int) -> Iterator[Row]:
    """Return as many rows as have so many bytes."""
    for row in rows:
        yield row
        size -= len(row.event.body)
        if size <= 0:
            return


def _gone() -> Claim:
    raise FileGoneError
