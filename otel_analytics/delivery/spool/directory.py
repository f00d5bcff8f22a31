"""The spool's directory: a file of events for each process, and a lock that says whether that process lives.

::

    spool_path/
      3f9c0a12.db  -wal  -shm    the events that one process has accepted (see `journal`); only it writes
      3f9c0a12.lock              locked by it for as long as it lives; says how much waits there

    made ──► held by its process ──► removed, once nothing is left in it
                   │       ▲
    the process is │       │ adopted: another process holds it now, and sends what is in it
     gone, events  ▼       │
       are left    free ───┘

No process waits for another: a lock is tried, never awaited, and a file has one process that writes to it.
An adopter that dies, or ends, gives up its lock too, and the file is free again with what is left in it.

The lock is a record lock of POSIX (`fcntl`), since that belongs to one process: a forked child has none of
its parent's locks, so the kernel frees them with the parent, whoever lives on with a copy of its
descriptors. What comes with it: inside a process it excludes nobody, and closing any descriptor of the file
ends it. Hence `_claims`, which says what this process has, so that no lock file is opened twice; and hence a
lock file beside the database, which SQLite opens and closes, with locks of its own.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from otel_analytics.contract import Kind
from otel_analytics.delivery.queue.ledger import LedgerSnapshot
from otel_analytics.delivery.spool.schema import (
    UnsafeFileError,
    is_spool,
    refuse_foreign_owner,
    refuse_other_file,
    remove_database,
)

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: no locks, so events wait in memory
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"[0-9a-f]{16}\.db")
_OURS = re.compile(r"[0-9a-f]{16}\.(?:lock|db(?:-wal|-shm|-journal|\.damaged-\d+(?:-wal|-shm)?)?)")
_LOCK_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_OWNERS_ONLY = 0o600
_SUMMARY_BYTES = 1_000
_BEGUN_SECONDS = 60.0
_SHARE = 16  # of what is free may come between two looks at the others: that many processes never exceed it


BY_WORTH = (Kind.VIEW, Kind.ENGAGEMENT)  # who gives way first


class Sizes(NamedTuple):
    """Bytes of events, by kind, in that order."""

    views: int = 0
    engagements: int = 0


class Summary(NamedTuple):
    """What the lock file says to other processes and the operator: what waits, what became of the rest."""

    sizes: Sizes = Sizes()
    books: LedgerSnapshot = LedgerSnapshot()

    @classmethod
    def read(cls, text: bytes) -> Summary:
        """Read it; where there is none yet, of an empty file."""
        with suppress(ValueError, TypeError, KeyError):
            found = json.loads(text)
            books = LedgerSnapshot(found["accepted"], found["delivered"], dict(found["dropped"]))
            return cls(Sizes(*found["bytes"]), books)
        return cls()

    def text(self) -> bytes:
        """Return it as `read` reads it, in one length: a full disk takes what is changed in place."""
        books = {name: getattr(self.books, name) for name in ("accepted", "delivered", "dropped")}
        return json.dumps({"bytes": self.sizes, **books}).ljust(_SUMMARY_BYTES).encode()


class Claim:
    """A file of events that this process holds, until it releases or removes it, or dies.

    Args:
        path: The database.
        is_new: Whether there is none yet. Else, a file without a lock is claimed only where it is a spool's.

    Raises:
        BlockingIOError: Somebody else holds it, or this process does.
        OSError: There is no such lock, it cannot be made, or is none of this user's.
    """

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        if fcntl is None:  # pragma: no cover - Windows
            raise OSError("this system has no file locks")
        self.path = path
        self.pid = os.getpid()
        self.summary = Summary()
        self._lock_path = lock_of(path)
        if _claims.setdefault(path, self) is not self:
            raise BlockingIOError(f"{path.name} is held by this process")
        self._descriptor = -1
        try:
            makes = is_new or (not self._lock_path.exists() and is_spool(path))
            flags = _LOCK_FLAGS | (os.O_CREAT if makes else 0)
            self._descriptor = os.open(self._lock_path, flags, _OWNERS_ONLY)
            status = os.fstat(self._descriptor)
            refuse_foreign_owner(self._lock_path, status)
            if stat.S_IMODE(status.st_mode) != _OWNERS_ONLY:
                os.fchmod(self._descriptor, _OWNERS_ONLY)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it until now may have removed it: then this is the lock of nothing, and there is no
            # lock of this name, or another.
            refuse_other_file(self._lock_path, status)
            self.summary = Summary.read(os.pread(self._descriptor, _SUMMARY_BYTES, 0))
        except BaseException:
            self.release()
            raise

    def publish(self, summary: Summary) -> None:
        """Say in the lock file how it stands."""
        self.summary = summary
        with suppress(OSError):
            os.pwrite(self._descriptor, summary.text(), 0)

    def release(self) -> None:
        """Let anybody have the file, with what is in it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        if _claims.get(self.path) is self:
            del _claims[self.path]

    def remove(self) -> None:
        """Remove the file, in which nothing is left; the lock last, since it says whose the rest is."""
        with suppress(OSError):
            remove_database(self.path)
            self._lock_path.unlink()
        self.release()


_claims: dict[Path, Claim] = {}
"""What this process has opened. After a fork without Python's hooks, a claim of the parent's keeps the child
from a file that is open in its memory as well, with locks that SQLite believes to have."""


class Directory:
    """The directory, as one client of one process sees it.

    Args:
        path: The directory.
        max_bytes: Most bytes of events in all its files.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.others = Sizes()
        self._max_bytes = max_bytes
        self._unseen = 0  # bytes that may come until the others are looked at again

    def begin(self) -> Claim:
        """Return a file of this process's own.

        Raises:
            OSError: The directory is unsafe, cannot be made or written.
        """
        prepare(self.path)
        self.tidy()
        return Claim(self.path / f"{secrets.token_hex(8)}.db", is_new=True)

    def abandoned(self, most: int, ignored: Collection[Path]) -> list[Claim]:
        """Claim files that nobody holds."""
        claims: list[Claim] = []
        for path in databases(self.path):
            if len(claims) >= most:
                break
            if path not in ignored and path not in _claims:
                with suppress(OSError):
                    claims.append(Claim(path))
        return claims

    def tidy(self) -> None:
        """Remove the locks of processes that died before they had a file, or after they had removed it."""
        for lock in self.path.glob("*.lock"):
            path = lock.with_suffix(".db")
            with suppress(OSError):
                # Not that of a process which is just beginning: it has a minute for that.
                if (
                    _NAME.fullmatch(path.name)
                    and not path.exists()
                    and time.time() - lock.stat().st_mtime > _BEGUN_SECONDS
                ):
                    Claim(path, is_new=True).remove()

    def excess(self, mine: Sizes, coming: int) -> int:
        """Return by how many bytes the directory would be too full with ``coming`` more."""
        self._unseen -= coming
        if self._unseen < 0:
            free = self._max_bytes - sum(self.look(mine))
            self._unseen = max(free // _SHARE, 0)
        return sum(mine) + sum(self.others) + coming - self._max_bytes

    def has_room(self, mine: Sizes, coming: int) -> bool:
        """Whether so many bytes more would fit, as far as is known of the other processes' files."""
        return sum(mine) + sum(self.others) + coming <= self._max_bytes

    def overflow(self, mine: Sizes) -> Sizes:
        """Return how much of what this process has must give way; others give as large a part of theirs."""
        total = self.look(mine)
        excess = sum(total) - self._max_bytes
        views = min(max(excess, 0), total.views)
        engagements = max(excess - views, 0)
        return Sizes(
            -(-views * mine.views // max(total.views, 1)),
            -(-engagements * mine.engagements // max(total.engagements, 1)),
        )

    def look(self, mine: Sizes) -> Sizes:
        """Look at what all files hold now, and return that."""
        found = [summary_of(path).sizes for path in databases(self.path)]
        total = Sizes(sum(each.views for each in found), sum(each.engagements for each in found))
        self.others = Sizes(max(total.views - mine.views, 0), max(total.engagements - mine.engagements, 0))
        return total


def prepare(path: Path) -> None:
    """Make the directory where there is none; see that nobody else could have put there what is in it.

    Raises:
        UnsafeFileError: It is a file, a symbolic link, or another user's.
        OSError: It cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise UnsafeFileError("it is a symbolic link, which may lead anywhere")
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeFileError("it is no directory; the spool is one, with a file for each process")
    refuse_foreign_owner(path, status, or_root=True)
    is_mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    if is_mine and status.st_mode & 0o077 and all(map(_OURS.fullmatch, os.listdir(path))):  # noqa: PTH208
        path.chmod(stat.S_IMODE(status.st_mode) & ~0o077)


def check_writable(path: Path) -> None:
    """See that files can be made in the directory, as a process will.

    Raises:
        UnsafeFileError: It is none, or somebody else could have put there what is in it.
        OSError: It cannot be made or written.
    """
    Directory(path, 0).begin().remove()


def databases(directory: Path) -> list[Path]:
    """Return the files of events, oldest name first; none where there is no such directory."""
    with suppress(OSError), os.scandir(directory) as entries:
        return [directory / name for name in sorted(each.name for each in entries) if _NAME.fullmatch(name)]
    return []


def damaged(directory: Path) -> list[Path]:
    """Return the files that were set aside."""
    return [path for path in directory.glob("*.db.damaged-*") if path.name[-1].isdigit()]


def lock_of(path: Path) -> Path:
    """Return the lock of a file of events."""
    return path.with_suffix(".lock")


def summary_of(path: Path) -> Summary:
    """Return how a file stands, as whoever has it says."""
    claim = _claims.get(path)
    if claim is not None and claim.pid == os.getpid():
        return claim.summary  # its lock file must not be opened again
    with suppress(OSError):
        return Summary.read(lock_of(path).read_bytes())
    return Summary()
