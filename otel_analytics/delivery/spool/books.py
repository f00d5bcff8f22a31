"""What the spool's file has yet to hear of: what became of rows, and which events were refused.

Whoever owns this holds the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from otel_analytics.delivery.queue.lanes import NEVER
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.spool.rows import RowChanges
from otel_analytics.delivery.spool.spool_file import FAILED, SpoolFile


class Books:
    """One process's news for the file. What it does not take is told again, at worst sent again by its id."""

    def __init__(self) -> None:
        self.changes = RowChanges()
        self._refused: Counter[DropReason] = Counter()
        self._claimed: set[int] = set()

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that cannot be kept; the file hears of them with other news."""
        self._refused[reason] += count

    def claim(self, rows: Iterable[int]) -> None:
        """Note rows that other processes put: no sequence of this one tells their age."""
        self._claimed.update(rows)

    def oldest_claimed(self) -> float:
        """Return the lowest row claimed and not settled; infinity where there is none."""
        return min(self._claimed, default=NEVER)

    def forget_rows(self) -> None:
        """Drop the news of a file that is gone."""
        self.changes = RowChanges()
        self._claimed.clear()

    def tell(self, file: SpoolFile) -> bool:
        """Tell the file; return whether rows were let go of by that."""
        if self._refused and file.use(lambda journal: journal.refuse(self._refused)) is not FAILED:
            self._refused.clear()
        # Opening the file may show that it has been replaced: the changes are looked up after that.
        if not self.changes or file.use(lambda journal: journal.settle(self.changes)) is FAILED:
            return False
        told, self.changes = self.changes, RowChanges()
        self._claimed.difference_update(told.rows())
        return bool(told.freed)

    def news(self) -> LedgerSnapshot:
        """Return what the file's ledger will change by."""
        delivered = len(self.changes.delivered)
        given_up = Counter({reason.value: len(rows) for reason, rows in self.changes.dropped.items()})
        refused = Counter({reason.value: count for reason, count in self._refused.items()})
        settled = delivered + sum(given_up.values())
        return LedgerSnapshot(sum(refused.values()), delivered, given_up + refused, -settled)
