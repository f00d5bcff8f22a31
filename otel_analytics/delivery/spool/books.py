"""Which events in memory are rows of the spool's file, and what the file has yet to hear of them.

An event is in memory alone where it came while the file failed, or its file has gone since. Such events are
counted here; the others by the file. Whoever owns this holds the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from otel_analytics.delivery.batch import Entry
from otel_analytics.delivery.queue.lanes import NEVER
from otel_analytics.delivery.queue.ledger import DropReason, Ledger, LedgerSnapshot
from otel_analytics.delivery.spool.rows import RowChanges
from otel_analytics.delivery.spool.spool_file import FAILED, SpoolFile


class Books:
    """The books of one process's memory, beside those of the file."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._refused: Counter[DropReason] = Counter()
        self._changes = RowChanges()
        self._claimed: set[int] = set()
        self._rows_lost_through = 0  # the sequence up to which no row is worth anything

    @property
    def has_changes(self) -> bool:
        """Whether the file has yet to hear of something."""
        return bool(self._changes)

    @property
    def has_freed(self) -> bool:
        """Whether there are rows let go of, of which the file has yet to hear."""
        return bool(self._changes.freed)

    def row(self, entry: Entry) -> int | None:
        """Return an entry's row; `None`: memory alone has it."""
        return entry.row if entry.sequence > self._rows_lost_through else None

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept; the file hears of them with other news."""
        self._refused[reason] += count

    def deliver(self, entry: Entry, *, is_held: bool) -> None:
        """Note that the collector has an event; ``is_held`` is false where it was abandoned before."""
        row = self.row(entry)
        if row is not None:
            self._changes.delivered.append(row)
        elif is_held:
            self.ledger.deliver(1)

    def drop(self, entry: Entry, reason: DropReason, *, is_held: bool) -> None:
        """Note that an event is given up; ``is_held`` is false where it was abandoned before."""
        row = self.row(entry)
        if row is not None:
            self._changes.drop(row, reason)
        elif is_held:
            self.ledger.drop(reason)

    def free(self, entries: Sequence[Entry], reason: DropReason) -> list[Entry]:
        """Let go of the rows of entries that leave memory; return those that it alone had, which are lost."""
        self._changes.freed += [row for entry in entries if (row := self.row(entry)) is not None]
        lost = [entry for entry in entries if self.row(entry) is None]
        self.ledger.drop(reason, len(lost))
        return lost

    def claim(self, row: int) -> None:
        """Note a row that another process put: no sequence of this one tells its age."""
        self._claimed.add(row)

    def oldest_claimed(self) -> float:
        """Return the lowest row claimed and not settled; infinity where there is none."""
        return min(self._claimed, default=NEVER)

    def lose_rows(self, entries: Iterable[Entry], through: int) -> None:
        """Take over what memory has of a file that is gone: it alone has all entries up to a sequence."""
        self.ledger.accept(sum(self.row(entry) is not None for entry in entries))
        self._rows_lost_through = through
        self._changes = RowChanges()
        self._claimed.clear()

    def tell(self, file: SpoolFile) -> bool:
        """Tell the file; what it does not take is told again, and at worst sent again by its id.

        Returns:
            Whether rows were let go of by that.
        """
        if self._refused and file.use(lambda journal: journal.refuse(self._refused)) is not FAILED:
            self._refused.clear()
        # Opening the file may show that it has been replaced: the changes are looked up after that.
        if not self._changes or file.use(lambda journal: journal.settle(self._changes)) is FAILED:
            return False
        told, self._changes = self._changes, RowChanges()
        self._claimed.difference_update(told.rows())
        return bool(told.freed)

    def snapshot(self, entries: Sequence[Entry], of_file: LedgerSnapshot | None) -> LedgerSnapshot:
        """Return all books.

        Args:
            entries: What is in memory.
            of_file: The file's books; `None` where it cannot be read: its rows in memory are what is known.
        """
        rows = sum(self.row(entry) is not None for entry in entries)
        refused = {reason.value: count for reason, count in self._refused.items()}
        return (
            (of_file or LedgerSnapshot(rows, pending=rows))
            + self.ledger.snapshot(len(entries) - rows)
            + LedgerSnapshot(sum(refused.values()), dropped=refused)
        )
