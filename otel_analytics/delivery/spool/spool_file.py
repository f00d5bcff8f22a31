"""A journal as files fail: opened at its first use, anew after any trouble, left alone in between.

Whoever uses it learns one thing: whether the file took it. A fork closes it, since SQLite's connections must
not be carried through one: the parent opens it again, the child has a file of its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Final, Literal, TypeVar

from otel_analytics import process
from otel_analytics.delivery.logs import RateLimitedLog
from otel_analytics.delivery.spool.directory import Claim, Summary
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.delivery.spool.schema import is_damage, is_database, set_aside

_SHORTEST_REST = 1.0  # seconds after a failure in which the file is left alone; doubled with each in a row
_LONGEST_REST = 8.0


T = TypeVar("T")


class Failed(Enum):
    """What a use of the file gives where the file failed."""

    FAILED = auto()


FAILED: Final = Failed.FAILED


class FileGoneError(OSError):
    """An adopted file is not there any more; nobody begins another in its place."""


class SpoolFile:
    """A journal that may fail at any time; whoever uses it holds `lock`.

    Args:
        begin: Claims a file: at the first use, and where the former is gone.
        claim: The first file, where there is one already.
        on_lost: Called where the file turns out to be gone, with all its rows.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        log: Tells the operator.
    """

    def __init__(
        self,
        begin: Callable[[], Claim],
        claim: Claim | None = None,
        *,
        on_lost: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        log: RateLimitedLog,
    ) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.rests_until = float("-inf")
        self._begin = begin
        self._on_lost = on_lost
        self._clock = clock
        self._wall_clock = wall_clock
        self._log = log
        self._claim = claim
        self.path = (
            None if claim is None else claim.path
        )  # of the last one, whether it is held or was released
        self._journal: Journal | None = None
        self._has_rows = False  # whether it was ever open, so that its end would be a loss
        self._failures = 0
        self._is_held_for_fork = False
        process.register(self)

    def use(self, work: Callable[[Journal], T]) -> T | Literal[Failed.FAILED]:
        """Do something with the file; return what that gives, or `FAILED`."""
        if self._clock() < self.rests_until:
            return FAILED
        try:
            result = self._attempt(work)
        except Exception as error:  # noqa: BLE001 - a file may hold anything; the application must not notice
            self._rest(error)
            return FAILED
        self._failures = 0
        return result

    @property
    def summary(self) -> Summary:
        """What was said of the file when it was claimed."""
        return Summary() if self._claim is None else self._claim.summary

    def publish(self, summary: Summary) -> None:
        """Say how it stands with the file."""
        if self._claim is not None:
            self._claim.publish(summary)

    def wake(self) -> None:
        """Have the next use try at once, however the last one failed."""
        self.rests_until = float("-inf")

    def close(self, *, is_empty: bool = False) -> None:
        """Let others have what is left; remove the file where that is nothing. A later use claims it again.

        Args:
            is_empty: Whether nothing is left for all this process knows, whatever the file could be told.
        """
        if self._claim is not None and not is_empty:
            with suppress(Exception):
                is_empty = self._opened().is_empty()
        self.disconnect()
        claim, self._claim = self._claim, None
        if claim is not None:
            self._has_rows = not is_empty
            (claim.remove if is_empty else claim.release)()

    def give_back(self) -> None:
        """Let others have the file, whatever it is."""
        self.disconnect()
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

    def disconnect(self) -> None:
        """Close the connection until the next use."""
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.disconnect()

    def at_exit(self) -> None:
        """Do nothing: whoever uses the file closes it."""

    def before_fork(self) -> None:
        """Finish what other threads are doing with the file, and close it."""
        # A fork without hooks leaves files behind whose locks nobody can release any more: those stay.
        if self.pid == os.getpid():
            self.lock.acquire()
            self._is_held_for_fork = True
            self.disconnect()

    def after_fork_in_parent(self) -> None:
        """Let others use the file again."""
        if self._is_held_for_fork:
            self._is_held_for_fork = False
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of the parent's file; the lock stays held, and nobody waits for it."""
        if self._claim is not None:
            self._claim.release()

    def __del__(self) -> None:
        """Close the file of a client that was dropped without a word."""
        with suppress(Exception):
            if self.pid == os.getpid():
                self.close()

    def _attempt(self, work: Callable[[Journal], T]) -> T:
        """Do it; where the file turns out to be damaged, once more with a new one."""
        try:
            return work(self._opened())
        except sqlite3.Error as error:
            if not self._set_aside(error):
                raise
        return work(self._opened())

    def _opened(self) -> Journal:
        if self._journal is not None and self._journal.is_displaced():
            self._lose("spool_replaced", "the spool's file has gone; another one is begun")
        claim = self._claim = self._claim or self._claimed()
        if self._journal is None:
            if self._has_rows and not claim.path.exists():
                self._lose("spool_replaced", "the spool's file has gone; another one is begun")
                claim = self._claim = self._begin()
            self._journal = Journal(claim.path, self._clock, self._wall_clock)
            self.path, self._has_rows = claim.path, True
        return self._journal

    def _claimed(self) -> Claim:
        """Claim the file that was released, where nobody has taken it over by now; else begin another."""
        if self._has_rows and self.path is not None:
            with suppress(OSError):
                return Claim(self.path)
            self._has_rows = False
        return self._begin()

    def _lose(self, reason: str, text: str) -> None:
        """Give up a file that is not there any more, or not in its place."""
        self.disconnect()
        claim, self._claim = self._claim, None
        if claim is not None:
            (claim.release if claim.path.exists() else claim.remove)()
        self._has_rows = False
        self._log.defer(reason, 1, text)
        self._on_lost()

    def _set_aside(self, error: Exception) -> bool:
        """Set a damaged file aside; return whether that was it."""
        self.disconnect()
        # A file is never moved that has not been a spool, or at least a database: it may be anybody's.
        if not is_damage(error) or self._claim is None:
            return False
        path = self._claim.path
        aside = set_aside(path, int(self._wall_clock())) if self._has_rows or is_database(path) else None
        if aside is None:
            return False
        self._lose("spool_damaged", f"the spool is damaged ({error}); set aside as {aside.name}, begun anew")
        return True

    def _rest(self, error: Exception) -> None:
        self.disconnect()
        self.rests_until = self._clock() + min(_SHORTEST_REST * 2**self._failures, _LONGEST_REST)
        self._failures += 1
        if not isinstance(error, FileGoneError):
            self._log.defer("spool_failed", 1, f"the spool cannot be used ({error}); events wait in memory")
