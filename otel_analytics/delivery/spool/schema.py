"""A file of the spool as SQLite has it: made, opened, told from others, and set aside when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from otel_analytics.contract import Kind

APPLICATION_ID = 0x6F74616E  # "otan"
SCHEMA_VERSION = 2
# A table for each kind, since each is read in order of its own; ids go up through both.
_TABLE = """
CREATE TABLE IF NOT EXISTS {kind} (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    clock REAL NOT NULL,
    body BLOB NOT NULL
);
"""
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES, _ID_AT = 100, 68  # of the file format
_SIDE_FILES = ("-wal", "-shm")
_OTHERS_BITS = 0o077
_LOG_PAGES = 4_000  # 16 MB of write-ahead log, then a checkpoint
_PATIENCE_SECONDS = 2.0  # of an operator's look at a file that is just being made

FileIdentity = tuple[int, int]
"""Device and inode: which file a path leads to."""


class ForeignFileError(sqlite3.OperationalError):
    """The file is a SQLite database, but none of this version's spools."""

    def __init__(self) -> None:
        super().__init__("the file is a database of something else, or of another version")


class UnsafeFileError(OSError):
    """Somebody else could have put this file here, or could change where it leads."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, making it where there is none.

    Raises:
        sqlite3.Error: It is no database, or none of ours.
        OSError: It cannot be made.
    """
    # SQLite would make the file with the umask's permissions; its -wal and -shm take over the file's. One
    # that is there must not be opened beside SQLite: closing it cancels all locks this process has on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    _refuse_unsafe(path)
    connection = _connected(path, _make)
    _tighten(path)  # it is ours by now
    return connection


def open_existing(path: Path) -> sqlite3.Connection:
    """Open a file that is a spool already.

    Raises:
        sqlite3.Error: It is none.
        OSError: There is no such file.
    """
    path.stat()  # SQLite would make it
    _refuse_unsafe(path, as_operator=True)
    return _connected(path, _refuse_empty, timeout=_PATIENCE_SECONDS)


def refuse_foreign_owner(path: Path, status: os.stat_result, *, or_root: bool = False) -> None:
    """Refuse what another user could have put here.

    Args:
        path: A file or directory.
        status: Its own, not that of what it leads to.
        or_root: Whether it may be root's, too, as the directory of a mounted volume is.

    Raises:
        UnsafeFileError: It belongs to another user.
    """
    if hasattr(os, "geteuid") and status.st_uid not in {os.geteuid(), *([0] if or_root else ())}:
        raise UnsafeFileError(f"{path.name} belongs to another user")


def refuse_other_file(path: Path, status: os.stat_result) -> None:
    """Refuse a file that was opened by a path which leads to another by now, or to none.

    Raises:
        OSError: It does.
    """
    if not os.path.samestat(status, path.stat()):
        raise BlockingIOError(f"{path.name} has just been removed")


def _refuse_unsafe(path: Path, *, as_operator: bool = False) -> None:
    """Refuse what others could have put here.

    Raises:
        UnsafeFileError: A file is a symbolic link, none of the ordinary kind, or another user's.
    """
    for file in _files(path):
        with suppress(FileNotFoundError):
            status = file.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise UnsafeFileError(f"{file.name} is a symbolic link, which may lead anywhere")
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeFileError(f"{file.name} is no ordinary file")
            if not (as_operator and os.geteuid() == 0):  # an operator may look as root
                refuse_foreign_owner(file, status)


def _tighten(path: Path) -> None:
    """Take all permissions away from others, so that nobody else reads the events."""
    for file in _files(path):
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.lstat().st_mode)
            if mode & _OTHERS_BITS:
                file.chmod(mode & ~_OTHERS_BITS)


def _files(path: Path) -> list[Path]:
    return [path, *(Path(f"{path}{suffix}") for suffix in _SIDE_FILES)]


def remove_database(path: Path) -> None:
    """Remove a file that is not open: last of all itself, so that nobody leaves only what belongs to it."""
    for file in reversed(_files(path)):
        file.unlink(missing_ok=True)


def _connected(
    path: Path, on_empty: Callable[[sqlite3.Connection], None], timeout: float = 0.0
) -> sqlite3.Connection:
    # No time to wait for a lock: the file is this process's own, and if somebody writes to it nevertheless,
    # events wait in memory rather than their callers.
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        if not _is_ours(connection):
            on_empty(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        # A checkpoint waits for the disk, and with it whoever commits then: so it is seldom.
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_empty(_: sqlite3.Connection) -> None:
    raise ForeignFileError


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file's content is wrong; a full disk or a lock says nothing of it."""
    # SQLite's words for "malformed" and "not a database" come as the base class itself.
    return type(error) in {sqlite3.DatabaseError, sqlite3.IntegrityError, sqlite3.InternalError}


def is_database(path: Path) -> bool:
    """Whether a file begins as every SQLite database does.

    Not to be asked of a file that this process has open: closing it cancels SQLite's locks on it (POSIX).
    """
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


def is_spool(path: Path) -> bool:
    """Whether a file says of itself that it is a spool's; not to be asked of one that is open, as above."""
    with suppress(OSError), path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        return header.startswith(_MAGIC) and header[_ID_AT : _ID_AT + 4] == APPLICATION_ID.to_bytes(4, "big")
    return False


def identity_of(path: Path) -> FileIdentity | None:
    """Return which file a path leads to; `None`: to none, or to one that somebody has emptied."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked before every commit, and `Path.stat` takes longer
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size else None


def set_aside(path: Path, unix_now: int) -> Path | None:
    """Rename a damaged file, and what belongs to it.

    Args:
        path: The file, which this process holds.
        unix_now: Part of the new name.

    Returns:
        The new path; `None`: nothing was done.
    """
    aside = path.with_name(f"{path.name}.damaged-{unix_now}")
    with suppress(OSError):
        path.replace(aside)
        for suffix in _SIDE_FILES:
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
        return aside
    return None


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Return false for a file without tables yet.

    Raises:
        ForeignFileError: There are tables, and they are not ours.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
        raise ForeignFileError
    return bool(tables)


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    tables = "".join(_TABLE.format(kind=kind.value) for kind in Kind)
    connection.executescript(
        f"BEGIN IMMEDIATE; {tables} PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )
