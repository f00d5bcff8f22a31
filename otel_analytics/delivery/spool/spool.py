"""The spool of a client: a file of its own, those adopted from processes that are gone, and memory beside.

::

    put ──► own file ──(full disk, read-only, gone)──► memory
    take ◄── memory, own file, each adopted file: what is new and what is left take turns
    look: at the start, at each flush and every second ──► adopt what nobody holds, drop what is too much

Each is a queue with a lock of its own, and knows of no other. An adopted file is read and emptied where it
is: nothing is copied, so a crash anywhere leaves each event in one file. An end waits for this process's own
events only; a file that it has adopted goes back with its lock, and with what is left in it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.queue.lanes import NEVER
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.queue.memory import MemoryQueue
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.delivery.spool.directory import Sizes
from otel_analytics.delivery.spool.file_queue import FileQueue, Mark, Shared
from otel_analytics.events import EncodedEvent

_LOOK_SECONDS = 1.0  # between two looks for what others left behind
_SOON_SECONDS = 0.02  # while files are being opened
_IGNORE_SECONDS = 60.0  # in which a file is left alone that could not be read
_MOST_ADOPTED = 4  # files at a time; others have processes, too
_ORDINARY_BYTES = 2_000  # of an event, with what SQLite needs for it
_PATIENCE_SECONDS = 5.0  # of a flush, while another thread opens what was left behind
_LEFT = "events wait in the spool and are sent later"


class Marks(NamedTuple):
    """Everything that waits: in memory, and in each file."""

    memory: int
    files: tuple[tuple[FileQueue, Mark], ...]


@dataclass(frozen=True)
class _Adopted:
    """What is adopted now, and the books of what has been; replaced as one, so that no look counts twice."""

    files: tuple[FileQueue, ...] = ()
    done: LedgerSnapshot = field(default_factory=LedgerSnapshot)


class Spool:
    """All these queues as one.

    Args:
        shared: What all files have in common.
        memory: What takes events where no file does; all number them from one counter.
        max_queue_size: Most events of each kind in memory.
    """

    def __init__(self, shared: Shared, memory: MemoryQueue, max_queue_size: int) -> None:
        self._shared = shared
        self._memory = memory
        # Half of it is for new events, however large the backlog is.
        self._own = FileQueue(shared, max_queue_size, keep_free=max_queue_size // 2)
        self._capacity = max(1, max_queue_size // 2 // _MOST_ADOPTED)
        self._adopted = _Adopted()
        self._changing = threading.Lock()  # around a change of `_adopted`
        # Around claiming files and saying who opens them: a flush must not miss what another thread has
        # claimed, and not adopted yet.
        self._claiming = threading.Lock()
        self._opening: threading.Thread | None = None
        self._ignored: dict[Path, float] = {}
        self._looks_at = -NEVER
        self._old_first = False

    def put(self, events: Sequence[EncodedEvent]) -> list[Entry]:
        """Accept events; return those dropped from memory where the file has failed."""
        return [] if self._own.put(events) else self._memory.put(events)

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept."""
        self._own.refuse(reason, count)

    def take(self, plan: Plan, now: float, flush_through: int, kinds: Collection[Kind]) -> Batch | None:
        """Lease what may be sent now; what is new and what was adopted take turns."""
        for queue in self._in_turn():
            batch = queue.take(plan, now, flush_through, kinds)
            if batch is not None:
                self._old_first = queue in {self._own, self._memory}
                return batch
        return None

    def ready_at(self, plan: Plan, kinds: Collection[Kind]) -> float:
        """Return when something of these kinds may be taken."""
        return min(queue.ready_at(plan, kinds) for queue in self._in_turn())

    def settle(self, batch: Batch, settlement: Settlement) -> bool:
        """End a lease, of whichever queue it is."""
        # Memory again: a file may have handed it over just now.
        queues: list[FileQueue | MemoryQueue] = [self._memory, *self._files(), self._memory]
        is_settled = any(queue.settle(batch, settlement) for queue in queues)
        self._retire()
        return is_settled

    def reschedule(self, due: float) -> None:
        """Make everything parked due at one moment, but for what is adopted."""
        self._memory.reschedule(due)
        self._own.reschedule(due)

    def release_parked(self) -> None:
        """Make everything parked due at once; what is adopted is for another process, another day."""
        self._memory.release_parked()
        self._own.release_parked()
        for file in self._adopted.files:
            file.abandon()

    def abandon(self, reason: DropReason) -> list[Entry]:
        """Leave what is in files for others; what memory alone has is lost."""
        for file in self._adopted.files:
            file.abandon()
        left = self._own.abandon()
        if left:
            self._shared.log.defer("spooled", left, _LEFT, logging.INFO)
        return self._memory.abandon(reason)

    def maintenance_due_at(self) -> float:
        """Return when `maintain` is due, monotonic seconds."""
        return NEVER if self._shared.life.is_ending else self._looks_at

    def maintain(self, now: float) -> None:
        """Drop what is too old or too much, and have a look for what others left behind."""
        files = self._files()
        for file in files:
            file.maintain()
        self._give_way(files)
        self._looks_at = now + _LOOK_SECONDS
        self._retire()
        with self._claiming:
            if self._is_opening() or self._open_aside(self._claim()):
                self._looks_at = now + _SOON_SECONDS

    def has_room(self, count: int) -> bool:
        """Return whether so many more events of an ordinary size fit into the directory."""
        mine = [file.sizes() for file in self._files()]
        total = Sizes(sum(each.views for each in mine), sum(each.engagements for each in mine))
        return self._shared.directory.has_room(total, count * _ORDINARY_BYTES)

    def holds(self, kinds: Collection[Kind], events: float, size: float) -> bool:
        """Whether a lane of these kinds has so many fresh events in memory, or so many bytes of them."""
        return self._own.holds(kinds, events, size) or self._memory.holds(kinds, events, size)

    def newest(self) -> int:
        """Return the number of the event that came last into memory."""
        return max(queue.newest() for queue in self._in_turn())

    def mark(self) -> Marks:
        """Adopt what others left behind, and return a mark of everything there is."""
        if not self._shared.life.is_ending:
            with self._claiming:
                claimed, opening = self._claim(), self._opening
            if opening is not None:
                opening.join(_PATIENCE_SECONDS)
            self._open(claimed)
        files = self._files()
        return Marks(self.newest(), tuple((file, file.mark()) for file in files))

    def is_settled(self, mark: Marks) -> bool:
        """Return whether nothing up to a mark waits or travels; at the end, nothing of this process's own."""
        # The files first: looking at one, it may turn out that it is gone, and memory has what it had.
        files = mark.files[:1] if self._shared.life.is_ending else mark.files
        return all(file.is_settled(its) for file, its in files) and self._memory.is_settled(mark.memory)

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger of this process: of what it accepted, and of what it adopted."""
        adopted = self._adopted
        files = [file.snapshot() for file in (self._own, *adopted.files)]
        return sum(files, adopted.done + self._memory.snapshot())

    def close(self) -> None:
        """Let others have what is left."""
        for file in self._files():
            file.close()

    def _in_turn(self) -> Iterator[FileQueue | MemoryQueue]:
        new: tuple[FileQueue | MemoryQueue, ...] = self._memory, self._own
        old = self._adopted.files
        yield from (*old, *new) if self._old_first else (*new, *old)

    def _files(self) -> tuple[FileQueue, ...]:
        return self._own, *self._adopted.files

    def _give_way(self, files: Sequence[FileQueue]) -> None:
        """Have the directory's excess give way, as far as it is in these files."""
        mine = [file.sizes() for file in files]
        total = Sizes(sum(each.views for each in mine), sum(each.engagements for each in mine))
        excess = self._shared.directory.overflow(total)
        for file, sizes in reversed(
            list(zip(files, mine, strict=True))
        ):  # adopted ones first: they are older
            if any(excess):
                file.give_way(excess)
                excess = Sizes(*(max(left - had, 0) for left, had in zip(excess, sizes, strict=True)))

    def _claim(self) -> list[FileQueue]:
        """Claim files that nobody holds, as many as are adopted at a time."""
        now = self._shared.clock()
        self._ignored = {path: until for path, until in self._ignored.items() if until > now}
        most = _MOST_ADOPTED - len(self._adopted.files)
        claims = self._shared.directory.abandoned(most, self._ignored)
        return [FileQueue(self._shared, self._capacity, claim=claim) for claim in claims]

    def _is_opening(self) -> bool:
        return self._opening is not None and self._opening.is_alive()

    def _open_aside(self, files: Sequence[FileQueue]) -> bool:
        """Open files on a thread of its own: it may take a while, and others wait for whoever calls this."""
        if not files:
            return False
        thread = threading.Thread(target=self._open, args=(files,), name="otel-analytics-spool", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down: they are for another process
            for file in files:
                file.close()
            return False
        self._opening = thread
        return True

    def _open(self, files: Sequence[FileQueue]) -> None:
        for file in files:
            path = file.path
            if not file.load():
                if path is not None:
                    self._ignored[path] = self._shared.clock() + _IGNORE_SECONDS
                continue
            with self._changing:
                if not self._shared.life.is_ending:
                    self._adopted = replace(self._adopted, files=(*self._adopted.files, file))
                    continue
            file.close()

    def _retire(self) -> None:
        """Remove the files in which nothing is left, and look for others."""
        with self._changing:
            files = self._adopted.files
            empty = [file for file in files if file.is_empty()]
            if not empty:
                return
            done = sum((file.snapshot() for file in empty), self._adopted.done)
            self._adopted = _Adopted(tuple(file for file in files if file not in empty), done)
        for file in empty:
            file.close()
        self._looks_at = -NEVER
