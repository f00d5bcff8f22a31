"""The collector's events in SQLite: one connection, one lock, one transaction a request."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from otel_analytics.collector.filters import selection
from otel_analytics.collector.records import Record
from otel_analytics.contract import Kind

_APPLICATION_ID = 0x0A7A_11C5
_SCHEMA_VERSION = 1
_SCHEMA = f"""
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_SCHEMA_VERSION};
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        event_id TEXT,
        content_id TEXT,
        metric_type TEXT,
        user_id TEXT,
        duration REAL,
        failed INTEGER,
        time_millis INTEGER NOT NULL,
        received_millis INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE UNIQUE INDEX events_once ON events (event_id, kind);
    CREATE INDEX events_by_content ON events (content_id, duration, failed);
    CREATE INDEX events_by_metric ON events (metric_type, user_id);
    CREATE INDEX events_by_user ON events (user_id);
    CREATE INDEX events_by_time ON events (time_millis);
    CREATE TABLE counts (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    );
    CREATE TABLE refusals (status INTEGER PRIMARY KEY, requests INTEGER NOT NULL);
"""
_INSERT = (
    f"INSERT INTO events ({', '.join(Record._fields)})"  # noqa: S608 - column names of this package
    f" VALUES ({', '.join('?' * len(Record._fields))}) ON CONFLICT (event_id, kind) DO NOTHING"
)
_COUNT = "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
_NEWEST = "SELECT ifnull(max(id), 0) FROM events"
_SIZE = "SELECT count(*), total(length(body)) FROM events WHERE id > ?"
_OLDEST = "SELECT id, length(body) FROM events ORDER BY id"
_REFUSE = "INSERT INTO refusals VALUES (?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1"


class StoreError(Exception):
    """The database file cannot be used; the message says why."""


@dataclass(frozen=True)
class StoreLimits:
    """What is kept at most; beyond it the oldest events are dropped, and their ids forgotten.

    Args:
        max_events: Most events.
        max_bytes: Most bytes of their bodies.
    """

    max_events: int = 100_000
    max_bytes: int = 100_000_000


class Counts(NamedTuple):
    """Events of one kind: ``received == stored + duplicates + rejected``."""

    received: int
    stored: int
    duplicates: int
    rejected: int


@dataclass(frozen=True)
class Stats:
    """What came, over the database's whole life.

    Args:
        received: Events in requests that could be read.
        stored: Those kept, each once.
        duplicates: Those whose id was known already.
        rejected: Those that break the contract.
        kinds: The same by ``"view"`` and ``"engagement"``.
        refused: Requests turned down as a whole, by HTTP status.
        dropped: Those stored that have been dropped since, the oldest, to make room.
    """

    received: int
    stored: int
    duplicates: int
    rejected: int
    kinds: Mapping[str, Counts]
    refused: Mapping[int, int]
    dropped: int = 0


class StoredEvent(NamedTuple):
    """An event as it was sent, and when it came (milliseconds since the epoch)."""

    kind: str
    received_millis: int
    body: str


class _Held(NamedTuple):
    """What is in the table, counted as it changes: to ask it each time means to read it all."""

    events: int
    bytes: float


class Store:
    """Events, and counts that agree with them.

    Args:
        path: A file, readable by its owner only; `None` keeps all in memory.
        limits: What is kept at most.

    Raises:
        StoreError: The file cannot be opened, or is not a collector's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        limits: StoreLimits = StoreLimits(),
    ) -> None:
        self._changed = threading.Condition()
        self._limits = limits
        self._connection = _opened(path)
        self._held = _Held(*self.query(_SIZE, (0,))[0])
        self._stored = self.stats().stored

    def add(self, kind: Kind, records: Sequence[Record], *, rejected: int = 0) -> None:
        """Store a request's events, each id once, and count what came. One transaction."""
        with self._changed:
            with self._connection:
                (newest,) = self._connection.execute(_NEWEST).fetchone()
                self._connection.executemany(_INSERT, records)
                stored, size = self._connection.execute(_SIZE, (newest,)).fetchone()
                held, dropped = self._make_room(_Held(self._held.events + stored, self._held.bytes + size))
                counts = {"stored": stored, "duplicates": len(records) - stored, "rejected": rejected}
                counts["dropped"] = dropped
                self._connection.executemany(_COUNT, [(kind.value, *count) for count in counts.items()])
            self._held = held
            self._stored += stored
            self._changed.notify_all()

    def _make_room(self, held: _Held) -> tuple[_Held, int]:
        """Delete the oldest events until the rest is within the limits; return that, and how many went."""
        last = dropped = 0
        for event_id, size in self._connection.execute(_OLDEST):
            if held.events <= self._limits.max_events and held.bytes <= self._limits.max_bytes:
                break
            last, dropped = event_id, dropped + 1
            held = _Held(held.events - 1, held.bytes - size)
        self._connection.execute("DELETE FROM events WHERE id <= ?", (last,))
        return held, dropped

    def add_refusal(self, status: int) -> None:
        """Count a request that was turned down as a whole."""
        with self._changed, self._connection:
            self._connection.execute(_REFUSE, (status,))

    def events(
        self, filters: Mapping[str, Any], *, limit: int = -1, offset: int = 0, newest_first: bool = False
    ) -> list[StoredEvent]:
        """Return events in arrival order; a negative limit is none.

        Raises:
            ValueError: See `selection`.
        """
        where, parameters = selection(filters)
        order = "DESC" if newest_first else "ASC"
        rows = self.query(
            f"SELECT kind, received_millis, body FROM events WHERE {where}"  # noqa: S608 - the table's own text
            f" ORDER BY id {order} LIMIT ? OFFSET ?",
            (*parameters, limit, offset),
        )
        return [StoredEvent(*row) for row in rows]

    def total(self, filters: Mapping[str, Any]) -> int:
        """Return how many events the filters mean.

        Raises:
            ValueError: See `selection`.
        """
        where, parameters = selection(filters)
        rows = self.query(f"SELECT count(*) FROM events WHERE {where}", parameters)  # noqa: S608 - as above
        return int(rows[0][0])

    def stats(self) -> Stats:
        """Return the counts."""
        counts = {(kind, name): value for kind, name, value in self.query("SELECT * FROM counts")}
        kinds = {kind.value: _counts(kind.value, counts) for kind in Kind}
        totals = Counts(*map(sum, zip(*kinds.values(), strict=True)))
        dropped = sum(value for (_, name), value in counts.items() if name == "dropped")
        refused = dict(self.query("SELECT * FROM refusals"))
        return Stats(*totals, kinds=kinds, refused=refused, dropped=dropped)

    def wait_until_stored(self, count: int, timeout_millis: int) -> int:
        """Wait until that many events are stored; return how many are, or were, be it fewer."""
        with self._changed:
            self._changed.wait_for(lambda: self._stored >= count, timeout_millis / 1000)
            return self._stored

    def query(self, statement: str, parameters: Iterable[Any] = ()) -> list[Any]:
        """Run a statement that reads."""
        with self._changed:
            return self._connection.execute(statement, tuple(parameters)).fetchall()

    def close(self) -> None:
        """Close the database; using the store afterwards raises `sqlite3.ProgrammingError`."""
        with self._changed:
            self._connection.close()


def _opened(path: str | os.PathLike[str] | None) -> sqlite3.Connection:
    try:
        connection = _connect(path)
        _prepare(connection)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot use {path} as the collector's database: {error}") from None
    return connection


def _connect(path: str | os.PathLike[str] | None) -> sqlite3.Connection:
    if path is None or path == ":memory:":
        return sqlite3.connect(":memory:", check_same_thread=False)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    identity = tuple(_pragma(connection, name) for name in ("application_id", "user_version"))
    if identity == (_APPLICATION_ID, _SCHEMA_VERSION):
        return
    if identity != (0, 0) or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError("it belongs to another program, or another version of this one")
    connection.executescript(_SCHEMA)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _counts(kind: str, counts: Mapping[tuple[str, str], int]) -> Counts:
    parts = [counts.get((kind, name), 0) for name in ("stored", "duplicates", "rejected")]
    return Counts(sum(parts), *parts)
