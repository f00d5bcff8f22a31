"""The journal as files fail: opened at its first use, anew after any trouble, left alone in between.

Whoever uses it learns one thing: whether the file took it. A fork closes it, since SQLite's connections must
not be carried through one: the parent opens it again, the child its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Final, Literal, TypeVar

from otel_analytics import process
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.logs import RateLimitedLog
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.delivery.spool.schema import (
    FileIdentity,
    ForeignFileError,
    UnsafeFileError,
    identity_of,
    is_damage,
    is_database,
    set_aside,
)

_SHORTEST_REST = 1.0  # seconds after a failure in which the file is left alone; doubled with each in a row
_LONGEST_REST = 8.0


T = TypeVar("T")


class Failed(Enum):
    """What a use of the file gives where the file failed."""

    FAILED = auto()


FAILED: Final = Failed.FAILED


class SpoolFile:
    """A journal that may fail at any time; whoever uses it holds `lock`.

    Args:
        path: The file.
        open_journal: Opens it.
        on_replaced: Called where the file turns out to be another than before: all its rows are gone.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        log: Tells the operator.
        life: After whose end the file is opened for each use alone.
    """

    def __init__(
        self,
        path: Path,
        open_journal: Callable[[], Journal],
        *,
        on_replaced: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        log: RateLimitedLog,
        life: Life,
    ) -> None:
        self.path = path
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.rests_until = float("-inf")
        self.is_off_limits = False  # nothing in it is this process's, nor may be touched here
        self._open_journal = open_journal
        self._on_replaced = on_replaced
        self._clock = clock
        self._wall_clock = wall_clock
        self._log = log
        self._journal: Journal | None = None
        self._file: int | None = None
        self._identity: FileIdentity | None = None
        self._failures = 0
        self._life = life
        self._is_held_for_fork = False
        process.register(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection now."""
        return self._journal is not None

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
        self.is_off_limits = False
        if self._life.is_closed:
            self.disconnect()
        return result

    def read(self, work: Callable[[Journal], T]) -> T | Literal[Failed.FAILED]:
        """Look something up, even while the file rests from being written; `FAILED` where that failed."""
        if self._clock() >= self.rests_until:
            return self.use(work)
        try:
            return work(self._opened())
        except Exception:  # noqa: BLE001 - as above
            self.disconnect()
            return FAILED

    def close(self) -> None:
        """End the lease and close; whatever still comes opens the file for that one use."""
        self.use(lambda journal: journal.resign())
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection until the next use."""
        if self._journal is not None:
            self._journal.disconnect()
            self._journal = None

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
        """Do nothing: the lock stays held, and a child's spool opens the file anew."""

    def _attempt(self, work: Callable[[Journal], T]) -> T:
        """Do it; where the file turns out to be damaged, once more with a new one."""
        try:
            return work(self._opened())
        except sqlite3.Error as error:
            if not self._begin_anew(error):
                raise
        return work(self._opened())

    def _opened(self) -> Journal:
        if self._journal is not None and self._journal.is_displaced():
            self.disconnect()
        if self._journal is None:
            self._refuse_inherited()
            self._identity = identity_of(self.path)
            self._journal = self._open_journal()
            self._identity = identity_of(self.path)
            if self._file not in {None, self._journal.file}:
                self._log.defer("spool_replaced", 1, "the spool's file has gone; another one is used")
                self._on_replaced()
            self._file = self._journal.file
        return self._journal

    def _refuse_inherited(self) -> None:
        for other in process.residents(SpoolFile):
            if other.is_open and other.pid != self.pid and other.path == self.path:
                raise InheritedFileError

    def _begin_anew(self, error: Exception) -> bool:
        """Set a damaged file aside; return whether that was it."""
        self.disconnect()
        aside = None
        # A file is never moved that has not been a spool, or at least a database: it may be anybody's.
        if is_damage(error) and (self._file is not None or is_database(self.path)):
            aside = set_aside(self.path, self._identity, int(self._wall_clock()))
        if aside is None:
            return False
        self._file = None
        self._on_replaced()
        text = f"the spool is damaged ({error}); set aside as {aside.name}, begun anew"
        self._log.defer("spool_damaged", 1, text)
        return True

    def _rest(self, error: Exception) -> None:
        self.disconnect()
        self.rests_until = self._clock() + min(_SHORTEST_REST * 2**self._failures, _LONGEST_REST)
        self._failures += 1
        no_spool = is_damage(error) and self._file is None
        self.is_off_limits = no_spool or isinstance(error, _NONE_OF_OURS)
        self._log.defer("spool_failed", 1, f"the spool cannot be used ({error}); events wait in memory")


class InheritedFileError(sqlite3.OperationalError):
    """A fork that ran none of Python's hooks has left another process's connection in this one."""

    def __init__(self) -> None:
        super().__init__(
            "it was open in the parent, and the server forked without Python's hooks:"
            " load the application in the workers, as uWSGI does with `lazy-apps`"
        )


_NONE_OF_OURS = (InheritedFileError, ForeignFileError, UnsafeFileError)
