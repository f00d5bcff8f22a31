"""One process's access to the spool's file, which all processes share that name the same path.

An event is a row from its acceptance to its settlement. A row has an owner while a process holds its event in
memory, and is anybody's otherwise; an owner whose lease ended, some seconds after its last heartbeat, owns
nothing. The books change in the same transactions as the rows, so they balance whoever was killed when.

A commit survives the death of the process. At ``synchronous=NORMAL`` what came since the last checkpoint may
not survive a power cut or a crash of the operating system; the file stays consistent in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from otel_analytics.contract import Kind
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.spool.rows import Row, RowChanges, make_room, size_of
from otel_analytics.delivery.spool.schema import identity_of, open_database
from otel_analytics.events import EncodedEvent

_CHUNK = 500  # rows at a time; SQLite before 3.32 takes 999 variables
_FEW = 8  # rows, where one or two will mostly do
_MOST_EXPIRED = 10_000


class Journal:
    """The file as rows; not safe for several threads at once.

    Args:
        path: The file; made with permissions for its owner only.
        owner: A number that no other process has.
        wall_clock: Seconds since the epoch: leases and ages are compared between processes.
        max_bytes: Most bytes of bodies in the file.
        lease: Seconds an owner's rows are its own after its last heartbeat.

    Raises:
        sqlite3.Error: The file cannot be opened, or is none of ours.
        OSError: It cannot be made.
    """

    def __init__(
        self, path: Path, *, owner: int, wall_clock: Callable[[], float], max_bytes: int, lease: float
    ) -> None:
        self._path = path
        self._owner = owner
        self._wall_clock = wall_clock
        self._max_bytes = max_bytes
        self._lease = lease
        self._connection = open_database(path)
        self._identity = identity_of(path)
        self._is_owner = False
        try:
            (self.file,) = self._connection.execute("SELECT file FROM books").fetchone()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the file, keeping the lease."""
        self._connection.close()

    def is_displaced(self) -> bool:
        """Whether the path leads to another file by now, or to none."""
        return identity_of(self._path) != self._identity

    def append(
        self, events: Sequence[EncodedEvent], held: Collection[int]
    ) -> tuple[list[int | None], list[Row]]:
        """Accept events in one commit.

        Args:
            events: What to keep.
            held: The indices of those that this process holds in memory; others are anybody's.

        Returns:
            A row id for each event, `None` for one that found no room; and the rows displaced: views before
            engagements, oldest first, and none that a process holds.
        """
        if not self._is_owner:
            self.beat()  # what nobody owns, and is not unowned, would be lost to all
        with self._connection:
            self._begin()
            (last, used) = self._connection.execute("SELECT last_row, bytes FROM books").fetchone()
            excess = used + size_of(events) - self._max_bytes
            displaced, refused = make_room(events, excess, self._each_unowned) if excess > 0 else ([], set())
            kept = [index for index in range(len(events)) if index not in refused]
            self._insert(
                (row, self._owner if i in held else None, events[i]) for row, i in enumerate(kept, last + 1)
            )
            self._connection.execute(
                "UPDATE books SET last_row = last_row + ?, bytes = bytes + ?, accepted = accepted + ?",
                (len(kept), size_of(events[i] for i in kept), len(events)),
            )
            self._drop([row.id for row in displaced], DropReason.SPOOL_FULL)
            self._count_dropped({DropReason.SPOOL_FULL: len(refused)})
        row_of = {index: row for row, index in enumerate(kept, last + 1)}
        return [row_of.get(index) for index in range(len(events))], displaced

    def refuse(self, counts: Mapping[DropReason, int]) -> None:
        """Count events that were given but could not be kept."""
        with self._connection:
            self._begin()
            self._connection.execute("UPDATE books SET accepted = accepted + ?", (sum(counts.values()),))
            self._count_dropped(counts)

    def settle(self, changes: RowChanges) -> None:
        """Change rows; one that is gone already was counted by whoever deleted it."""
        with self._connection:
            self._begin()
            delivered = self._delete(changes.delivered)
            self._connection.execute("UPDATE books SET delivered = delivered + ?", (delivered,))
            for reason, rows in changes.dropped.items():
                self._drop(rows, reason)
            self._connection.executemany(
                "UPDATE events SET owner = NULL WHERE id = ? AND owner = ?",
                [(row, self._owner) for row in changes.freed],
            )

    def claim(self, kind: Kind, limit: int) -> list[Row]:
        """Take over up to ``limit`` rows of a kind that are anybody's, oldest first."""
        if not self._is_owner:
            self.beat()
        with self._connection:
            self._begin()
            rows = self._unowned(kind, limit)
            self._connection.executemany(
                "UPDATE events SET owner = ? WHERE id = ?", [(self._owner, row.id) for row in rows]
            )
        return rows

    def expire(self, before: float) -> list[Row]:
        """Drop rows that are anybody's and were accepted before a moment (seconds since the epoch)."""
        expired: list[Row] = []
        with self._connection:
            self._begin()
            for kind in Kind:
                chunk = self._oldest_expired(kind, before)
                while chunk and len(expired) < _MOST_EXPIRED:
                    self._drop([row.id for row in chunk], DropReason.EXPIRED)
                    expired += chunk
                    chunk = self._oldest_expired(kind, before)
        return expired

    def purge(self, kind: Kind, before: float, limit: int) -> int:
        """Drop up to ``limit`` rows of a kind that are anybody's and older than a moment; return how many."""
        old = "SELECT id FROM events WHERE owner IS NULL AND kind = ? AND accepted_at < ? ORDER BY id LIMIT ?"
        with self._connection:
            self._begin()
            rows = [row for (row,) in self._connection.execute(old, (kind.value, before, limit))]
            self._drop(rows, DropReason.PURGED)
        return len(rows)

    def aged(self, rows: Collection[int], before: float) -> set[int]:
        """Return which of some rows were accepted before a moment (seconds since the epoch)."""
        aged: set[int] = set()
        for chunk in _chunks(sorted(rows)):
            among = f"SELECT id FROM events WHERE accepted_at < ? AND id IN ({_marks(chunk)})"  # noqa: S608 - marks
            found = self._connection.execute(among, [before, *chunk]).fetchall()
            if not found:
                break  # the younger ones have had less time still
            aged.update(row for (row,) in found)
        return aged

    def beat(self) -> None:
        """Renew this process's lease; free the rows of owners whose lease has ended."""
        now = self._wall_clock()
        with self._connection:
            self._begin()
            gone = self._connection.execute("SELECT id FROM owners WHERE expires_at < ?", (now,)).fetchall()
            self._disown([owner for (owner,) in gone if owner != self._owner])
            self._connection.execute(
                "INSERT OR REPLACE INTO owners (id, expires_at) VALUES (?, ?)",
                (self._owner, now + self._lease),
            )
        self._is_owner = True

    def resign(self) -> None:
        """End this process's lease at once."""
        with self._connection:
            self._begin()
            self._disown([self._owner])

    def newest(self) -> int:
        """Return the last row's id."""
        return int(self._connection.execute("SELECT last_row FROM books").fetchone()[0])

    def has_unowned(self, through: int) -> bool:
        """Return whether a row up to an id is anybody's."""
        some = "SELECT 1 FROM events WHERE owner IS NULL AND kind = ? AND id <= ? LIMIT 1"
        return any(self._connection.execute(some, (kind.value, through)).fetchone() for kind in Kind)

    def snapshot(self) -> LedgerSnapshot:
        """Return the file's ledger: of all processes that ever shared it."""
        self._connection.execute("BEGIN")
        try:
            accepted, delivered = self._connection.execute("SELECT accepted, delivered FROM books").fetchone()
            dropped = self._connection.execute("SELECT reason, count FROM dropped").fetchall()
            (pending,) = self._connection.execute("SELECT count(*) FROM events").fetchone()
        finally:
            self._connection.execute("ROLLBACK")
        return LedgerSnapshot(accepted, delivered, dict(dropped), pending)

    def _begin(self) -> None:
        """Begin a transaction, which the connection, as a context manager, commits or rolls back.

        In there, and not in a generator of our own: what a signal's handler raises may come between any two
        steps, and a generator would then roll back when it is collected, on any thread and without the lock.
        """
        self._connection.execute("BEGIN IMMEDIATE")

    def _insert(self, rows: Iterable[tuple[int, int | None, EncodedEvent]]) -> None:
        now = self._wall_clock()
        self._connection.executemany(
            "INSERT INTO events (id, owner, kind, event_id, accepted_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            [(row, owner, event.kind.value, event.event_id, now, event.body) for row, owner, event in rows],
        )

    def _disown(self, owners: Collection[int]) -> None:
        for owner in owners:
            self._connection.execute("UPDATE events SET owner = NULL WHERE owner = ?", (owner,))
            self._connection.execute("DELETE FROM owners WHERE id = ?", (owner,))

    def _drop(self, rows: Collection[int], reason: DropReason) -> None:
        self._count_dropped({reason: self._delete(rows)})

    def _delete(self, rows: Collection[int]) -> int:
        """Delete rows, taking their bytes off the books; return how many there were."""
        deleted = 0
        for some in _chunks(rows):
            among = f"FROM events WHERE id IN ({_marks(some)})"
            count, size = self._connection.execute(
                f"SELECT count(*), total(length(body)) {among}", some
            ).fetchone()
            self._connection.execute(f"DELETE {among}", some)
            self._connection.execute("UPDATE books SET bytes = bytes - ?", (int(size),))
            deleted += count
        return deleted

    def _count_dropped(self, counts: Mapping[DropReason, int]) -> None:
        self._connection.executemany(
            "INSERT INTO dropped (reason, count) VALUES (?, ?)"
            " ON CONFLICT (reason) DO UPDATE SET count = count + excluded.count",
            [(reason.value, count) for reason, count in counts.items() if count],
        )

    def _each_unowned(self, kind: Kind) -> Iterator[Row]:
        after, limit = 0, _FEW
        while rows := self._unowned(kind, limit, after):
            yield from rows
            after, limit = rows[-1].id, _CHUNK

    def _unowned(self, kind: Kind, limit: int, after: int = 0) -> list[Row]:
        oldest = "SELECT id, event_id, body FROM events WHERE owner IS NULL AND kind = ? AND id > ?"
        return self._rows(kind, f"{oldest} ORDER BY id LIMIT ?", (kind.value, after, limit))

    def _oldest_expired(self, kind: Kind, before: float) -> list[Row]:
        """Look at the oldest rows only, since a backlog may be long, and rows are nearly in order of time."""
        oldest = "SELECT * FROM events WHERE owner IS NULL AND kind = ? ORDER BY id LIMIT ?"
        expired = f"SELECT id, event_id, body FROM ({oldest}) WHERE accepted_at < ?"  # noqa: S608 - a constant
        return self._rows(kind, expired, (kind.value, _CHUNK, before))

    def _rows(self, kind: Kind, query: str, values: Sequence[object]) -> list[Row]:
        found = self._connection.execute(query, values)
        return [Row(row, EncodedEvent(kind, event_id, body)) for row, event_id, body in found]


def _chunks(rows: Collection[int]) -> Iterator[list[int]]:
    every = list(rows)
    return (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
