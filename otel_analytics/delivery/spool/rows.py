"""What the spool and its journal say to each other: events as rows, what becomes of them, which give way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.events import EncodedEvent


class Row(NamedTuple):
    """An event in the file."""

    id: int
    event: EncodedEvent


@dataclass
class RowChanges:
    """Rows of which it is decided what becomes of them.

    Args:
        delivered: Those that the collector has.
        dropped: Those given up, by reason.
        freed: Those that this process lets go of, for anybody to claim.
    """

    delivered: list[int] = field(default_factory=list)
    dropped: dict[DropReason, list[int]] = field(default_factory=dict)
    freed: list[int] = field(default_factory=list)

    def drop(self, rows: Sequence[int], reason: DropReason) -> None:
        """Give rows up."""
        if rows:
            self.dropped.setdefault(reason, []).extend(rows)

    def rows(self) -> Iterator[int]:
        """Return all of them."""
        return chain(self.delivered, self.freed, *self.dropped.values())

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.delivered or self.dropped or self.freed)


def size_of(events: Iterable[EncodedEvent]) -> int:
    """Return the bytes of the events' bodies."""
    return sum(len(event.body) for event in events)


def make_room(
    events: Sequence[EncodedEvent], excess: int, unowned: Callable[[Kind], Iterable[Row]]
) -> tuple[list[Row], set[int]]:
    """Decide who gives way where the file is full.

    Views go first, those that wait before those that come; engagements give way to engagements only.

    Args:
        events: Those that come.
        excess: How many bytes too many they are.
        unowned: Returns the rows of a kind that may go, oldest first.

    Returns:
        The rows to displace, and the indices of events that there is no room for even so.
    """
    displaced: list[Row] = []
    refused: set[int] = set()
    for kind in (Kind.VIEW, Kind.ENGAGEMENT):
        if excess > 0:
            for row in unowned(kind):
                displaced.append(row)
                excess -= len(row.event.body)
                if excess <= 0:
                    break
        for index, event in enumerate(events):
            if excess > 0 and event.kind is kind:
                refused.add(index)
                excess -= len(event.body)
    while displaced and excess + len(displaced[-1].event.body) <= 0:
        excess += len(displaced.pop().event.body)  # it would go in vain
    return displaced, refused
