"""The process: what lives in it, its forks and its end. Imports nothing of ours.

Whatever works in a process registers here once and is held weakly, so that what is dropped without a word
does not stay for good: there is one hook at forks and one at exit, not one for each.

Locks, threads and sockets do not survive a fork. `before_fork` is called on the forking thread and may hold a
lock until `after_fork_in_parent`; in the child, where nothing registered works any more,
`after_fork_in_child` only lets go of what is the parent's. A fork without Python's hooks (uWSGI) calls none
of these: whoever keeps something for a process compares `os.getpid()` too.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Resident(Protocol):
    """What works in a process; a method that has nothing to do does nothing."""

    def at_exit(self) -> None:
        """Finish: the process, or a child of `multiprocessing`, ends."""

    def before_fork(self) -> None:
        """Come to a state that a fork can copy."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's."""


# By id, since a list of the references is made in one step, whatever other threads add meanwhile.
_residents: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_forking: dict[int, list[Resident]] = {}


def register(resident: Resident) -> None:
    """Have a resident's methods called from now on, for as long as anybody holds it."""
    _residents[id(resident)] = resident
    _at_end_of_child()


def residents(kind: type[Any]) -> list[Any]:
    """Return what of a kind lives in this process."""
    return [resident for resident in _living() if isinstance(resident, kind)]


def is_exiting() -> bool:
    """Whether the main thread has done its work, so that threads are joined and ``atexit`` functions run.

    Not asked of the main thread itself: `Thread.is_alive` marks it as ended for good where an exception from
    a signal handler meets it (CPython up to 3.12).
    """
    return _exiting.is_set()


def is_child_of_multiprocessing() -> bool:
    """Whether `multiprocessing` has started this process."""
    # Another thread may be importing it just now: then this is no child of it.
    parent_process = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    return parent_process is not None and parent_process() is not None


_exiting = threading.Event()


def _notice_exit() -> None:
    """Have it noticed as `concurrent.futures` does, before ``atexit``: there, others may come before us."""
    try:
        getattr(threading, "_register_atexit", atexit.register)(_exiting.set)
    except RuntimeError:  # imported by something that runs at the exit
        _exiting.set()


def _living() -> list[Any]:
    return [found for reference in _residents.valuerefs() if (found := reference()) is not None]


def _at_exit() -> None:
    for resident in _living():
        resident.at_exit()


_ending_child: set[int] = set()


def _at_end_of_child() -> None:
    """Have the exit noticed in a child of `multiprocessing` too: they end without ``atexit``."""
    if not is_child_of_multiprocessing() or os.getpid() in _ending_child:
        return
    _ending_child.add(os.getpid())
    sys.modules["multiprocessing.util"].Finalize(None, _at_exit, exitpriority=0)


def _before_fork() -> None:
    residents_now = _forking[threading.get_ident()] = _living()
    for resident in residents_now:
        resident.before_fork()


def _after_fork_in_parent() -> None:
    for resident in _forking.pop(threading.get_ident(), ()):
        resident.after_fork_in_parent()


def _after_fork_in_child() -> None:
    inherited = _forking.pop(threading.get_ident(), ())
    _forking.clear()
    _residents.clear()
    _exiting.clear()
    for resident in inherited:
        resident.after_fork_in_child()


def _register_hooks(at_fork: Callable[..., None] | None) -> None:
    atexit.register(_at_exit)
    if at_fork is not None:  # not on Windows
        at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


_notice_exit()
_register_hooks(getattr(os, "register_at_fork", None))
