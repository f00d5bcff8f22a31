"""Events leased together: of one kind, sent in one request, settled by its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.events import EncodedEvent


class Entry(NamedTuple):
    """An event in the queue.

    Args:
        sequence: Its place in the order of acceptance by this process.
        accepted_at: When that was, monotonic seconds.
        event: The event.
        row: Its row in the spool; `None` where only memory has it.
    """

    sequence: int
    accepted_at: float
    event: EncodedEvent
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Entries of one request, in order of acceptance; compared by identity, as a lease is.

    Args:
        kind: The kind of all its events.
        entries: At least one.
        attempts: Requests already made for it.
        due: Earliest next attempt, monotonic seconds.
        successes_seen: Its gate's successes at its latest attempt: others that got through since then
            make this batch the suspect, where it fails again.
        sent_among: How many events the latest request had that may have stored these; 0: none may.
    """

    kind: Kind
    entries: tuple[Entry, ...]
    attempts: int = 0
    due: float = float("-inf")
    successes_seen: int = 0
    sent_among: int = 0

    def is_suspect(self, successes: int) -> bool:
        """Whether it has failed and others got through since."""
        return self.attempts > 0 and successes > self.successes_seen

    @property
    def may_be_stored(self) -> bool:
        """Whether a request with all of these, or with more than this lone one, may have stored them."""
        return self.sent_among > 0 and len(self.entries) in {1, self.sent_among}

    @property
    def bodies(self) -> list[bytes]:
        """Each event's encoded body."""
        return [entry.event.body for entry in self.entries]

    def with_entries(self, entries: tuple[Entry, ...]) -> Batch:
        """Return the same batch with some of its entries only."""
        return replace(self, entries=entries)

    def halves(self) -> tuple[Batch, ...]:
        """Return two batches of half the entries, or itself where there is one entry."""
        middle = len(self.entries) // 2
        if not middle:
            return (self,)
        return (self.with_entries(self.entries[:middle]), self.with_entries(self.entries[middle:]))

    def singles(self) -> tuple[Batch, ...]:
        """Return a batch for each entry."""
        return tuple(self.with_entries((entry,)) for entry in self.entries)
