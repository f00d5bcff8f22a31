"""One file of the spool as rows: an event is one from its acceptance to its settlement.

A commit survives the death of the process. At ``synchronous=NORMAL`` what came since the last checkpoint may
not survive a power cut or a crash of the operating system; the file stays consistent in any case.

A row's age is counted by the system's monotonic clock, which runs from boot and for all processes, whatever
is done to the clock on the wall. Since boot begins it anew, what was written before that is as old, at its
first opening after it, as it was when the last row was written: it may be kept for longer, never less long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.spool.schema import identity_of, open_database
from otel_analytics.events import EncodedEvent


class Row(NamedTuple):
    """An event in the file."""

    id: int
    event: EncodedEvent


class Contents(NamedTuple):
    """What a file has of a kind: how many events, the bytes of their bodies, the first and the last row."""

    events: int
    size: int
    first: int
    last: int


class Journal:
    """The file as rows; not safe for several threads at once.

    Args:
        path: The file; made with permissions for its owner only.
        clock: Monotonic seconds, the same for all processes.
        wall_clock: Seconds since the epoch, which only people are shown.

    Raises:
        sqlite3.Error: The file cannot be opened, or is none of ours.
        OSError: It cannot be made.
    """

    def __init__(self, path: Path, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._wall_clock = wall_clock
        self._connection = open_database(path)
        self._identity = identity_of(path)
        try:
            self._set_clock()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the file."""
        self._connection.close()

    def is_displaced(self) -> bool:
        """Whether the path leads to another file by now, or to none."""
        return identity_of(self._path) != self._identity

    def write(
        self, after: int, events: Sequence[EncodedEvent], settled: Mapping[Kind, Collection[int]]
    ) -> None:
        """Add events as the rows after one, in order, and delete the settled ones, in one commit."""
        values = [(row, e.event_id, e.body, e.kind) for row, e in enumerate(events, after + 1)]
        # The connection, as a context manager, commits or rolls back, and no generator of our own: what a
        # signal's handler raises may come between any two steps, and a generator would then roll back when
        # it is collected, on any thread and without the lock.
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            now = self._wall_clock(), self._clock()
            for kind in Kind:
                self._connection.executemany(
                    f"INSERT INTO {kind.value} (id, event_id, body, accepted_at, clock)"  # noqa: S608 - a constant
                    " VALUES (?, ?, ?, ?, ?)",
                    [(*each, *now) for *each, its_kind in values if its_kind is kind],
                )
                self._connection.executemany(
                    f"DELETE FROM {kind.value} WHERE id = ?",  # noqa: S608 - a constant
                    [(row,) for row in settled.get(kind, ())],
                )

    def read(self, kind: Kind, first: int, last: int, limit: int) -> list[Row]:
        """Return up to ``limit`` rows of a kind between two ids, oldest first."""
        return self._rows(kind, "id BETWEEN ? AND ? ORDER BY id LIMIT ?", (first, last, limit))

    def older(self, kind: Kind, age: float, after: int, limit: int) -> list[Row]:
        """Return rows of a kind that are older than ``age`` seconds, oldest first.

        Only the oldest are looked at, since there may be many: rows are in order of time.
        """
        oldest = f"id IN (SELECT id FROM {kind.value} WHERE id > ? ORDER BY id LIMIT ?) AND clock < ?"  # noqa: S608
        return self._rows(kind, oldest + " ORDER BY id", (after, limit, self._clock() - age))

    def contents(self, kind: Kind) -> Contents:
        """Return how much there is of a kind; reads all of it."""
        query = (
            f"SELECT count(*), total(length(body)), ifnull(min(id), 0), ifnull(max(id), 0) FROM {kind.value}"  # noqa: S608
        )
        events, size, first, last = self._connection.execute(query).fetchone()
        return Contents(events, int(size), first, last)

    def is_empty(self) -> bool:
        """Whether there is no row."""
        return not any(self._newest(kind)[0] for kind in Kind)

    def _newest(self, kind: Kind) -> tuple[int, float]:
        newest = f"SELECT id, clock FROM {kind.value} ORDER BY id DESC LIMIT 1"  # noqa: S608 - a constant
        found: tuple[int, float] = self._connection.execute(newest).fetchone() or (0, 0.0)
        return found

    def _set_clock(self) -> None:
        """Set rows that seem to come from the future, since the clock has begun anew, to the present."""
        ahead = max(self._newest(kind)[1] for kind in Kind) - self._clock()
        if ahead <= 0:
            return
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for kind in Kind:
                self._connection.execute(f"UPDATE {kind.value} SET clock = clock - ?", (ahead,))  # noqa: S608

    def _rows(self, kind: Kind, where: str, values: Sequence[object]) -> list[Row]:
        query = f"SELECT id, event_id, body FROM {kind.value} WHERE {where}"  # noqa: S608 - constants
        found: sqlite3.Cursor = self._connection.execute(query, values)
        return [Row(row, EncodedEvent(kind, event_id, body)) for row, event_id, body in found]
