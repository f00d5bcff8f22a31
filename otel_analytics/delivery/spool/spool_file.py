"""The journal as files fail: opened at its first use, anew after any trouble, left alone in between.

Whoever uses it learns one thing: whether the file took it. A fork closes it, since SQLite's connections must
not be carried through one: the parent opens it again, the child its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from otel_analytics.delivery.logs import Reporter
from otel_analytics.delivery.spool.journal import Journal
from otel_analytics.delivery.spool.schema import FileIdentity, identity_of, is_damage, set_aside

_SHORTEST_REST = 1.0  # seconds after a failure in which the file is left alone; doubled with each in a row
_LONGEST_REST = 8.0


class SpoolFile:
    """A journal that may fail at any time; whoever uses it holds `lock`.

    Args:
        path: The file.
        open_journal: Opens it.
        on_replaced: Called where the file turns out to be another than before: all its rows are gone.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
        reporter: Tells the operator.
    """

    def __init__(
        self,
        path: Path,
        open_journal: Callable[[], Journal],
        *,
        on_replaced: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        reporter: Reporter,
    ) -> None:
        self.path = path
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.rests_until = float("-inf")
        self.is_inherited = False  # open in the parent when it forked without hooks: not to be touched here
        self._open_journal = open_journal
        self._on_replaced = on_replaced
        self._clock = clock
        self._wall_clock = wall_clock
        self._reporter = reporter
        self._journal: Journal | None = None
        self._file: int | None = None
        self._identity: FileIdentity | None = None
        self._failures = 0
        self._is_closed = False
        _LIVE[id(self)] = self

    @property
    def is_open(self) -> bool:
        """Whether there is a connection now."""
        return self._journal is not None

    def use(self, work: Callable[[Journal], object]) -> bool:
        """Do something with the file; return whether that went well."""
        if self._clock() < self.rests_until:
            return False
        error = self._attempt(work)
        if error is not None and self._begin_anew(error):
            error = self._attempt(work)
        if error is not None:
            self._rest(error)
            return False
        self._failures = 0
        if self._is_closed:
            self.disconnect()
        return True

    def read(self, work: Callable[[Journal], object]) -> bool:
        """Look something up, even while the file rests from being written; return whether that went well."""
        if self._clock() >= self.rests_until:
            return self.use(work)
        if self._attempt(work) is not None:
            self.disconnect()
            return False
        return True

    def close(self) -> None:
        """End the lease and close; whatever still comes opens the file for that one use."""
        self.use(lambda journal: journal.resign())
        self._is_closed = True
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection until the next use."""
        if self._journal is not None:
            self._journal.disconnect()
            self._journal = None

    def _attempt(self, work: Callable[[Journal], object]) -> Exception | None:
        try:
            work(self._opened())
        except Exception as error:  # noqa: BLE001 - a file may hold anything; the application must not notice
            return error
        return None

    def _opened(self) -> Journal:
        if self._journal is not None and self._journal.is_displaced():
            self.disconnect()
        if self._journal is None:
            self._refuse_inherited()
            self._identity = identity_of(self.path)
            self._journal = self._open_journal()
            self._identity = identity_of(self.path)
            if self._file not in {None, self._journal.file}:
                self._reporter.tell("spool_replaced", 1, "the spool's file has gone; another one is used")
                self._on_replaced()
            self._file = self._journal.file
        return self._journal

    def _refuse_inherited(self) -> None:
        for other in _live():
            if other.is_open and other.pid != self.pid and other.path == self.path:
                self.is_inherited = True
                raise InheritedFileError

    def _begin_anew(self, error: Exception) -> bool:
        """Set a damaged file aside; return whether that was it."""
        self.disconnect()
        aside = set_aside(self.path, self._identity, int(self._wall_clock())) if is_damage(error) else None
        if aside is None:
            return False
        self._file = None
        self._on_replaced()
        text = f"the spool is damaged ({error}); set aside as {aside.name}, begun anew"
        self._reporter.tell("spool_damaged", 1, text)
        return True

    def _rest(self, error: Exception) -> None:
        self.disconnect()
        self.rests_until = self._clock() + min(_SHORTEST_REST * 2**self._failures, _LONGEST_REST)
        self._failures += 1
        self._reporter.tell("spool_failed", 1, f"the spool cannot be used ({error}); events wait in memory")


class InheritedFileError(sqlite3.OperationalError):
    """A fork that ran none of Python's hooks has left another process's connection in this one."""

    def __init__(self) -> None:
        super().__init__(
            "it was open in the parent, and the server forked without Python's hooks:"
            " load the application in the workers, as uWSGI does with `lazy-apps`"
        )


# By id, since a list of the values is made in one step, whatever other threads add meanwhile.
_LIVE: weakref.WeakValueDictionary[int, SpoolFile] = weakref.WeakValueDictionary()
_forking: dict[int, list[SpoolFile]] = {}


def _live() -> list[SpoolFile]:
    return [file for reference in _LIVE.valuerefs() if (file := reference()) is not None]


def _before_fork() -> None:
    """Finish what other threads are doing with this process's files, and close them."""
    # A fork without hooks leaves files behind whose locks nobody can release any more: those are not touched.
    files = _forking[threading.get_ident()] = [file for file in _live() if file.pid == os.getpid()]
    for file in files:
        file.lock.acquire()
        file.disconnect()


def _after_fork_in_parent() -> None:
    for file in _forking.pop(threading.get_ident(), ()):
        file.lock.release()


def _after_fork_in_child() -> None:
    _forking.clear()
    _LIVE.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
