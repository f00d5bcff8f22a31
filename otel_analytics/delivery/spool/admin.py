"""What an operator does with a spool file: look into it, send what it holds, throw it away.

Looking takes no lock that a running worker would wait for, and reads in small steps. What a worker holds by
its lease is left to that worker: it has those events in memory and sends them itself.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_analytics.client import AnalyticsClient
from otel_analytics.contract import Kind
from otel_analytics.delivery.queue.ledger import LedgerSnapshot
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.delivery.spool.schema import open_existing
from otel_analytics.errors import AnalyticsError

_CHUNK = 500  # rows read or deleted at a time
_IS_HELD = "(owner IN (SELECT id FROM owners WHERE expires_at >= :now))"
_NO_LIMIT = 2**62
_STEP_MILLIS = 500


class SpoolError(AnalyticsError):
    """The file is no spool, or cannot be used."""


@dataclass(frozen=True)
class Waiting:
    """Events of a kind in the file.

    Args:
        count: How many.
        bytes: Of their bodies.
        held: How many of them running processes hold.
        oldest: When the first was accepted, seconds since the epoch; `None`: there is none.
    """

    count: int = 0
    bytes: int = 0
    held: int = 0
    oldest: float | None = None


@dataclass(frozen=True)
class Status:
    """A spool at one moment.

    Args:
        ledger: Of all processes that ever used it.
        waiting: What it holds, by kind.
        processes: How many processes have a valid lease.
    """

    ledger: LedgerSnapshot
    waiting: Mapping[Kind, Waiting]
    processes: int

    @property
    def held(self) -> int:
        """How many events running processes hold."""
        return sum(waiting.held for waiting in self.waiting.values())


@dataclass(frozen=True)
class SpooledEvent:
    """An event in the file.

    Args:
        kind: Its kind.
        event_id: Its id.
        accepted_at: Seconds since the epoch.
        is_held: Whether a running process holds it.
        body: As it is sent.
    """

    kind: Kind
    event_id: str
    accepted_at: float
    is_held: bool
    body: Any


def status(path: Path, now: Callable[[], float] = time.time) -> Status:
    """Return what a spool holds and what became of the rest.

    Raises:
        SpoolError: There is no such spool.
    """
    with _opened(path) as connection:
        connection.execute("BEGIN")  # one moment for all of it
        accepted, delivered = connection.execute("SELECT accepted, delivered FROM books").fetchone()
        dropped = dict(connection.execute("SELECT reason, count FROM dropped").fetchall())
        moment = {"now": now()}
        found = connection.execute(
            f"SELECT kind, count(*), total(length(body)), total({_IS_HELD}), min(accepted_at)"  # noqa: S608 - a constant
            " FROM events GROUP BY kind",
            moment,
        ).fetchall()
        (processes,) = connection.execute(
            "SELECT count(*) FROM owners WHERE expires_at >= :now", moment
        ).fetchone()
    waiting = dict.fromkeys(Kind, Waiting())
    for kind, count, size, held, oldest in found:
        waiting[Kind(kind)] = Waiting(count, int(size), int(held), oldest)
    pending = sum(each.count for each in waiting.values())
    return Status(LedgerSnapshot(accepted, delivered, dropped, pending), waiting, processes)


def events(
    path: Path,
    kinds: Collection[Kind] = tuple(Kind),
    limit: int | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[SpooledEvent]:
    """Return the events that a spool holds, oldest first.

    Args:
        path: The file.
        kinds: Which.
        limit: How many at most.
        now: Seconds since the epoch.

    Raises:
        SpoolError: There is no such spool.
    """
    left, after = _NO_LIMIT if limit is None else limit, 0
    names = ",".join(f"'{kind.value}'" for kind in kinds)
    query = (
        f"SELECT id, kind, event_id, accepted_at, ifnull({_IS_HELD}, 0), body FROM events"  # noqa: S608 - constants
        f" WHERE kind IN ({names}) AND id > :after ORDER BY id LIMIT :limit"
    )
    with _opened(path) as connection:
        while left > 0:
            values = {"now": now(), "after": after, "limit": min(left, _CHUNK)}
            rows = connection.execute(query, values).fetchall()
            if not rows:
                return
            left, after = left - len(rows), rows[-1][0]
            for _, kind, event_id, accepted_at, is_held, body in rows:
                yield SpooledEvent(Kind(kind), event_id, accepted_at, bool(is_held), json.loads(body))


def replay(
    path: Path, client: AnalyticsClient, patience_seconds: float, progress: Callable[[Status], object]
) -> Status:
    """Deliver what a spool holds through a client of the same spool; return what is left then.

    Args:
        path: The file.
        client: Shut down when this returns.
        patience_seconds: Longest time in which nothing is settled.
        progress: Told how it stands, about twice a second.

    Raises:
        SpoolError: There is no such spool.
    """
    with client:
        before = status(path)
        gives_up_at = time.monotonic() + patience_seconds
        while not client.flush(_STEP_MILLIS) and time.monotonic() < gives_up_at:
            now = status(path)
            progress(now)
            if _settled(now) != _settled(before):
                before, gives_up_at = now, time.monotonic() + patience_seconds
    return status(path)


def purge(
    path: Path, kinds: Collection[Kind], before: float, progress: Callable[[int], object] = lambda _: None
) -> int:
    """Drop the events of a spool that no running process holds; return how many.

    Args:
        path: The file.
        kinds: Which.
        before: Only those accepted before this moment, seconds since the epoch.
        progress: Told how many so far, after each step.

    Raises:
        SpoolError: There is no such spool.
    """
    with _opened(path):
        journal = Journal(
            path, owner=secrets.randbits(62), wall_clock=time.time, max_bytes=_NO_LIMIT, lease=0.0
        )
        try:
            journal.beat()  # frees what dead processes held
            count = 0
            for kind in kinds:
                while chunk := journal.purge(kind, before, _CHUNK):
                    count += chunk
                    progress(count)
            return count
        finally:
            journal.resign()
            journal.disconnect()


def _settled(now: Status) -> int:
    return now.ledger.delivered + sum(now.ledger.dropped.values())


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(open_existing(path)) as connection:
            yield connection
    except (sqlite3.Error, OSError, ValueError) as error:
        raise SpoolError(f"cannot use {path} as a spool: {error}") from None
