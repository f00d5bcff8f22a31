"""The spool's file: SQLite in WAL mode, shared by all processes that name the same path.

An event is a row from its acceptance to its settlement. A row has an owner while a process holds its event in
memory; an owner's lease ends some seconds after its last heartbeat, and then any process may claim its rows.
The file keeps its own ledger, changed in the same transactions as the rows, so its books balance whoever was
killed when.

A commit survives the death of the process. At ``synchronous=NORMAL`` what came since the last checkpoint may
not survive a power cut or a crash of the operating system; the file stays consistent in any case.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from otel_analytics.delivery.ledger import DropReason, LedgerSnapshot
from otel_analytics.events import EncodedEvent, Kind

APPLICATION_ID = 0x6F74616E  # "otan"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner INTEGER,
    kind TEXT NOT NULL,
    event_id TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_owner ON events (owner, kind, id);
CREATE TABLE IF NOT EXISTS owners (id INTEGER PRIMARY KEY AUTOINCREMENT, expires_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""
_CLAIMABLE = "(owner IS NULL OR owner NOT IN (SELECT id FROM owners WHERE expires_at > :now))"
_BUSY_SECONDS = 1.0
_MOST_VARIABLES = 500  # SQLite before 3.32 takes 999
_BYTES, _ACCEPTED, _DELIVERED, _DROPPED = "bytes", "accepted", "delivered", "dropped:"


class Row(NamedTuple):
    """An event in the file: its row, when it was accepted (seconds since the epoch), and itself."""

    id: int
    accepted_at: float
    event: EncodedEvent


class Journal:
    """One process's access to the file; not safe for several threads at once.

    Args:
        path: The file; made with permissions for its owner only.
        wall_clock: Seconds since the epoch: leases and ages are compared between processes.
        max_bytes: Most bytes of bodies in the file.
        lease_seconds: How long an owner's rows are its own after its last heartbeat.
        above: Row ids begin above this: after a damaged file, those of the old one must mean nothing.

    Raises:
        sqlite3.Error: The file cannot be opened, or is none of ours.
        OSError: It cannot be made.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall_clock: Callable[[], float],
        max_bytes: int,
        lease_seconds: float,
        above: int = 0,
    ) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._max_bytes = max_bytes
        self._lease_seconds = lease_seconds
        self._beat_at = float("-inf")
        self._connection = open_database(path)
        with self._transaction():
            self._number_from(above)
            self.owner = self._new_owner()

    def disconnect(self) -> None:
        """Close the connection, keeping the lease: SQLite's must not be carried through a fork."""
        self._connection.close()

    def reconnect(self) -> None:
        """Open the file again after `disconnect`."""
        self._connection = open_database(self._path)

    def release(self) -> None:
        """Let go of this process's rows, for anybody to claim."""
        with self._transaction():
            self._connection.execute("UPDATE events SET owner = NULL WHERE owner = ?", (self.owner,))

    def append(
        self, events: Sequence[EncodedEvent], held: Collection[int]
    ) -> tuple[list[int | None], list[Row]]:
        """Accept events in one commit.

        Args:
            events: What to keep.
            held: The indices of those that this process holds in memory; others are anybody's to claim.

        Returns:
            A row id for each event, `None` for one that found no room; and the rows displaced: views before
            engagements, oldest first, and none that a process holds.
        """
        with self._transaction():
            displaced, refused = self._make_room(events)
            kept = [index for index in range(len(events)) if index not in refused]
            first = self._next_id()
            rows: list[int | None] = [None] * len(events)
            for row, index in enumerate(kept, first):
                rows[index] = row
            self._insert([(rows[i], self.owner if i in held else None, events[i]) for i in kept])
            self._count({_ACCEPTED: len(events), _DROPPED + DropReason.SPOOL_FULL.value: len(refused)})
            self._count({_BYTES: _size(events[index] for index in kept)})
        return rows, displaced

    def refuse(self, reason: DropReason, count: int) -> None:
        """Count events that were given but cannot be kept."""
        with self._transaction():
            self._count({_ACCEPTED: count, _DROPPED + reason.value: count})

    def settle(self, delivered: Collection[int], dropped: Iterable[tuple[int, DropReason]]) -> None:
        """Delete rows and count their fate; one that is gone already was counted by whoever deleted it."""
        with self._transaction():
            self._count({_DELIVERED: self._delete(delivered)})
            for row, reason in dropped:
                self._count({_DROPPED + reason.value: self._delete([row])})

    def claim(self, kind: Kind, limit: int) -> list[Row]:
        """Take over up to ``limit`` rows of a kind that nobody holds, oldest first."""
        with self._transaction():
            rows = self._connection.execute(
                f"SELECT id, accepted_at, event_id, body FROM events WHERE kind = :kind AND {_CLAIMABLE}"  # noqa: S608 - a constant
                " AND owner IS NOT :owner ORDER BY id LIMIT :limit",
                {
                    "kind": kind.value,
                    "now": self._wall_clock(),
                    "owner": self.owner,
                    "limit": limit,
                },
            ).fetchall()
            self._connection.executemany(
                "UPDATE events SET owner = ? WHERE id = ?", [(self.owner, row[0]) for row in rows]
            )
        return [Row(row, at, EncodedEvent(kind, event_id, body)) for row, at, event_id, body in rows]

    def expire(self, before: float) -> list[Row]:
        """Drop up to 1000 claimable rows accepted before a moment (seconds since the epoch); return them."""
        with self._transaction():
            old = self._connection.execute(
                f"SELECT id, accepted_at, kind, event_id, body FROM events"  # noqa: S608 - a constant
                f" WHERE accepted_at < :before AND {_CLAIMABLE} LIMIT 1000",
                {"before": before, "now": self._wall_clock()},
            ).fetchall()
            self._count({_DROPPED + DropReason.EXPIRED.value: self._delete([row[0] for row in old])})
        return [Row(row, at, EncodedEvent(Kind(kind), name, body)) for row, at, kind, name, body in old]

    def beat(self) -> None:
        """Renew this process's lease, where a third of it is over."""
        now = self._wall_clock()
        if now - self._beat_at >= self._lease_seconds / 3:
            with self._transaction():
                self._renew(now)

    def newest(self) -> int:
        """Return the last row's id."""
        return self._next_id() - 1

    def is_settled(self, through: int) -> bool:
        """Return whether of the rows up to an id none is this process's or claimable."""
        found = self._connection.execute(
            f"SELECT 1 FROM events WHERE id <= :id AND (owner = :owner OR {_CLAIMABLE}) LIMIT 1",  # noqa: S608 - a constant
            {"id": through, "owner": self.owner, "now": self._wall_clock()},
        ).fetchone()
        return found is None

    def snapshot(self) -> LedgerSnapshot:
        """Return the file's ledger: of all processes that ever shared it."""
        self._connection.execute("BEGIN")
        try:
            counts = dict(self._connection.execute("SELECT name, count FROM ledger").fetchall())
            (pending,) = self._connection.execute("SELECT count(*) FROM events").fetchone()
        finally:
            self._connection.execute("ROLLBACK")
        dropped = {
            name.removeprefix(_DROPPED): count
            for name, count in counts.items()
            if name.startswith(_DROPPED) and count
        }
        return LedgerSnapshot(counts.get(_ACCEPTED, 0), counts.get(_DELIVERED, 0), dropped, pending)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _new_owner(self) -> int:
        now = self._wall_clock()
        # Rows of owners that are long gone are claimable without their entry, too.
        self._connection.execute("DELETE FROM owners WHERE expires_at < ?", (now,))
        cursor = self._connection.execute("INSERT INTO owners (expires_at) VALUES (?)", (now,))
        self.owner = int(cursor.lastrowid or 0)
        self._renew(now)
        return self.owner

    def _renew(self, now: float) -> None:
        self._connection.execute(
            "INSERT INTO owners (id, expires_at) VALUES (?, ?)"
            " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
            (self.owner, now + self._lease_seconds),
        )
        self._beat_at = now

    def _number_from(self, above: int) -> None:
        if above >= self._next_id():
            self._connection.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            self._connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (above,))

    def _next_id(self) -> int:
        # AUTOINCREMENT's own memory: the id of a row deleted long ago is never given again.
        found = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(found[0]) + 1 if found else 1

    def _count(self, changes: dict[str, int]) -> None:
        self._connection.executemany(
            "INSERT INTO ledger (name, count) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
            [(name, change) for name, change in changes.items() if change],
        )

    def _insert(self, rows: Iterable[tuple[int | None, int | None, EncodedEvent]]) -> None:
        now = self._wall_clock()
        self._connection.executemany(
            "INSERT INTO events (id, owner, kind, event_id, accepted_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            [(row, owner, event.kind.value, event.event_id, now, event.body) for row, owner, event in rows],
        )

    def _delete(self, rows: Collection[int]) -> int:
        """Delete rows, taking their bytes off the count; return how many there were."""
        deleted = 0
        remaining = list(rows)
        while remaining:
            some, remaining = remaining[:_MOST_VARIABLES], remaining[_MOST_VARIABLES:]
            among = f"FROM events WHERE id IN ({','.join('?' * len(some))})"
            count, size = self._connection.execute(
                f"SELECT count(*), total(length(body)) {among}",
                some,
            ).fetchone()
            self._connection.execute(f"DELETE {among}", some)
            self._count({_BYTES: -int(size)})
            deleted += count
        return deleted

    def _make_room(self, events: Sequence[EncodedEvent]) -> tuple[list[Row], set[int]]:
        """Return what was displaced, and the indices of events that there is no room for even so."""
        found = self._connection.execute("SELECT count FROM ledger WHERE name = ?", (_BYTES,)).fetchone()
        excess = (int(found[0]) if found else 0) + _size(events) - self._max_bytes
        if excess <= 0:
            return [], set()
        displaced = self._displace(excess, with_engagements=any(e.kind is Kind.ENGAGEMENT for e in events))
        excess -= _size(row.event for row in displaced)
        views_first = sorted(range(len(events)), key=lambda index: events[index].kind is Kind.ENGAGEMENT)
        refused: set[int] = set()
        for index in views_first:
            if excess > 0:
                refused.add(index)
                excess -= len(events[index].body)
        return displaced, refused

    def _displace(self, excess: int, *, with_engagements: bool) -> list[Row]:
        """Drop rows that nobody holds: views for anything, engagements for engagements only."""
        displaced: list[Row] = []
        for kind in (Kind.VIEW, Kind.ENGAGEMENT) if with_engagements else (Kind.VIEW,):
            for row in self._oldest_free(kind):
                if excess <= 0:
                    break
                displaced.append(row)
                excess -= len(row.event.body)
        self._count({_DROPPED + DropReason.SPOOL_FULL.value: self._delete([row.id for row in displaced])})
        return displaced

    def _oldest_free(self, kind: Kind) -> list[Row]:
        rows = self._connection.execute(
            "SELECT id, accepted_at, event_id, body FROM events WHERE owner IS NULL AND kind = ?"
            " ORDER BY id LIMIT 1000",
            (kind.value,),
        ).fetchall()
        return [Row(row, at, EncodedEvent(kind, event_id, body)) for row, at, event_id, body in rows]


def _size(events: Iterable[EncodedEvent]) -> int:
    return sum(len(event.body) for event in events)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, making it where there is none.

    Raises:
        sqlite3.Error: It is no database, or none of ours.
        OSError: It cannot be made or written.
    """
    # SQLite would make the file with the umask's permissions; its -wal and -shm take over the file's.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
        raise ForeignFileError
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


class ForeignFileError(sqlite3.Error):
    """The file is a SQLite database, but none of this version's spools."""

    def __init__(self) -> None:
        super().__init__("the file is a database of something else, or of another version")
