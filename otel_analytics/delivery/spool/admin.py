"""What an operator does with a spool: look into it, send what it holds, throw it away.

Looking takes no lock that a running worker would wait for, and reads in small steps. What a running process
holds is left to it: it has those events in memory and sends them itself.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import Any

from otel_analytics.client import AnalyticsClient
from otel_analytics.contract import Kind
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.spool.directory import (
    BY_WORTH,
    Claim,
    Sizes,
    Summary,
    damaged,
    databases,
    summary_of,
)
from otel_analytics.delivery.spool.schema import open_existing
from otel_analytics.errors import AnalyticsError

_CHUNK = 500  # rows read or deleted at a time
_NO_LIMIT = 2**62
_STEP_MILLIS = 500


class SpoolError(AnalyticsError):
    """The directory is no spool, or cannot be used."""


@dataclass(frozen=True)
class Waiting:
    """Events of a kind in the spool.

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

    def __add__(self, other: Waiting) -> Waiting:
        """Return both together."""
        oldest = [each for each in (self.oldest, other.oldest) if each is not None]
        return Waiting(
            self.count + other.count,
            self.bytes + other.bytes,
            self.held + other.held,
            min(oldest, default=None),
        )


@dataclass(frozen=True)
class Status:
    """A spool at one moment.

    Args:
        ledger: Of the processes that hold or left a file there; where nothing is left, there is no file.
        waiting: What it holds, by kind.
        processes: How many running processes hold a file of it.
        damaged: How many files cannot be read, or were set aside for that.
    """

    ledger: LedgerSnapshot
    waiting: Mapping[Kind, Waiting]
    processes: int
    damaged: int

    @property
    def held(self) -> int:
        """How many events running processes hold."""
        return sum(waiting.held for waiting in self.waiting.values())


@dataclass(frozen=True)
class SpooledEvent:
    """An event in the spool.

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


def status(directory: Path) -> Status:
    """Return what a spool holds.

    Raises:
        SpoolError: There is no such spool.
    """
    waiting = dict.fromkeys(Kind, Waiting())
    ledger, processes, unread = LedgerSnapshot(), 0, len(damaged(directory)) + len(databases(directory))
    for file in _files(directory):
        processes, unread = processes + file.is_held, unread - 1
        ledger += summary_of(file.path).books
        for kind in Kind:
            values = f"SELECT count(*), total(length(body)), min(accepted_at) FROM {kind.value}"  # noqa: S608
            count, size, oldest = file.connection.execute(values).fetchone()
            ledger += LedgerSnapshot(pending=count)
            waiting[kind] += Waiting(count, int(size), count if file.is_held else 0, oldest)
    return Status(ledger, waiting, processes, max(unread, 0))


def events(
    directory: Path, kinds: Collection[Kind] = tuple(Kind), limit: int | None = None
) -> Iterator[SpooledEvent]:
    """Return the events that a spool holds, oldest first in each of its files.

    Args:
        directory: The spool.
        kinds: Which.
        limit: How many at most.

    Raises:
        SpoolError: There is no such spool.
    """
    left = _NO_LIMIT if limit is None else limit
    for file in _files(directory):
        for event in merge(*(file.events(kind) for kind in kinds), key=lambda event: event.accepted_at):
            if left <= 0:
                return
            left -= 1
            yield event


def replay(
    directory: Path,
    client: AnalyticsClient,
    patience_seconds: float,
    progress: Callable[[LedgerSnapshot], object],
) -> LedgerSnapshot:
    """Deliver what nobody holds through a client of the same spool; return what became of that.

    Args:
        directory: The spool.
        client: Shut down when this returns.
        patience_seconds: Longest time in which nothing is settled.
        progress: Told how it stands, about twice a second.

    Raises:
        SpoolError: There is no such spool.
    """
    status(directory)
    with client:
        before, gives_up_at = 0, time.monotonic() + patience_seconds
        while time.monotonic() < gives_up_at:
            if client.flush(_STEP_MILLIS) and not _has_free(directory):
                break
            now = client.stats()
            progress(now)
            if _settled(now) != before:
                before, gives_up_at = _settled(now), time.monotonic() + patience_seconds
    return client.stats()


def purge(
    directory: Path,
    kinds: Collection[Kind],
    before: float,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Drop the events of a spool that no running process holds; return how many.

    Args:
        directory: The spool.
        kinds: Which.
        before: Only those accepted before this moment, seconds since the epoch.
        progress: Told how many so far, after each step.

    Raises:
        SpoolError: There is no such spool.
    """
    count = 0
    for file in _files(directory):
        for kind in () if file.is_held else kinds:
            while chunk := file.purge(kind, before):
                count += chunk
                file.note_purged(chunk)
                progress(count)
    return count


@dataclass(frozen=True)
class _File:
    """A file of the spool while it is looked at."""

    path: Path
    connection: sqlite3.Connection
    claim: Claim | None

    @property
    def is_held(self) -> bool:
        """Whether a running process holds it."""
        return self.claim is None

    def events(self, kind: Kind) -> Iterator[SpooledEvent]:
        after = 0
        columns = "id, event_id, accepted_at, body"
        query = f"SELECT {columns} FROM {kind.value} WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
        while rows := self.connection.execute(query, (after, _CHUNK)).fetchall():
            after = rows[-1][0]
            for _, event_id, accepted_at, body in rows:
                yield SpooledEvent(kind, event_id, accepted_at, self.is_held, json.loads(body))

    def purge(self, kind: Kind, before: float) -> int:
        """Delete some of the oldest rows."""
        old = f"SELECT id FROM {kind.value} WHERE accepted_at < ? ORDER BY id LIMIT ?"  # noqa: S608
        with self.connection:
            delete = f"DELETE FROM {kind.value} WHERE id IN ({old})"  # noqa: S608
            return self.connection.execute(delete, (before, _CHUNK)).rowcount

    def note_purged(self, count: int) -> None:
        if self.claim is not None:
            size = "SELECT total(length(body)) FROM {}"
            left = [int(self.connection.execute(size.format(k.value)).fetchone()[0]) for k in BY_WORTH]
            purged = LedgerSnapshot(dropped={DropReason.PURGED.value: count})
            self.claim.publish(Summary(Sizes(*left), self.claim.summary.books + purged))

    def is_empty(self) -> bool:
        count = "SELECT EXISTS (SELECT 1 FROM {})"
        return not any(self.connection.execute(count.format(kind.value)).fetchone()[0] for kind in Kind)


def _files(directory: Path) -> Iterator[_File]:
    """Open one file of a spool after the other; one that nobody holds is held meanwhile."""
    if not directory.is_dir():
        raise SpoolError(f"{directory} is no spool: there is no such directory")
    for path in databases(directory):
        claim = _claim(path)
        is_empty = False
        try:
            with closing(open_existing(path)) as connection:
                file = _File(path, connection, claim)
                yield file
                is_empty = claim is not None and file.is_empty()
        except (sqlite3.Error, OSError):
            continue  # damaged, somebody else's, or emptied and removed just now
        finally:
            if claim is not None:
                (claim.remove if is_empty else claim.release)()


def _claim(path: Path) -> Claim | None:
    try:
        return Claim(path)
    except OSError:
        return None


def _has_free(directory: Path) -> bool:
    return any(not file.is_held and not file.is_empty() for file in _files(directory))


def _settled(now: LedgerSnapshot) -> int:
    return now.delivered + sum(now.dropped.values())
