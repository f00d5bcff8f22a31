"""The spool as a SQLite file: made, opened, told from another program's, and set aside when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

APPLICATION_ID = 0x6F74616E  # "otan"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    owner INTEGER,
    kind TEXT NOT NULL,
    event_id TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS unowned_events ON events (kind, id) WHERE owner IS NULL;
CREATE TABLE IF NOT EXISTS owners (id INTEGER PRIMARY KEY, expires_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS books (
    file INTEGER NOT NULL,
    last_row INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    accepted INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS dropped (reason TEXT PRIMARY KEY, count INTEGER NOT NULL);
INSERT INTO books (file) SELECT random() WHERE NOT EXISTS (SELECT 1 FROM books);
"""
_MAGIC = b"SQLite format 3\x00"
_SIDE_FILES = ("-wal", "-shm")
_OTHERS_BITS = 0o077
_BUSY_SECONDS = 1.0
_RETRY_SECONDS = 0.02

FileIdentity = tuple[int, int]
"""Device and inode: which file a path leads to."""


class ForeignFileError(sqlite3.OperationalError):
    """The file is a SQLite database, but none of this version's spools."""

    def __init__(self) -> None:
        super().__init__("the file is a database of something else, or of another version")


class UnsafeFileError(sqlite3.OperationalError):
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
    _refuse_unsafe(path, _me())
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
    _refuse_unsafe(path, [] if 0 in _me() else _me())  # an operator may look as root
    return _connected(path, _refuse_empty)


def _refuse_unsafe(path: Path, owners: Collection[int]) -> None:
    """Refuse what others could have put here.

    Args:
        path: The file.
        owners: The users whose it may be; empty where the system knows none.

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
            if owners and status.st_uid not in owners:
                raise UnsafeFileError(f"{file.name} belongs to another user")


def _tighten(path: Path) -> None:
    """Take all permissions away from others, so that nobody else reads the events."""
    for file in _files(path):
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.lstat().st_mode)
            if mode & _OTHERS_BITS:
                file.chmod(mode & ~_OTHERS_BITS)


def _files(path: Path) -> list[Path]:
    return [path, *(Path(f"{path}{suffix}") for suffix in _SIDE_FILES)]


def _me() -> Collection[int]:
    return [os.geteuid()] if hasattr(os, "geteuid") else []


def _connected(path: Path, on_empty: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if not _is_ours(connection):
            on_empty(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_empty(_: sqlite3.Connection) -> None:
    raise ForeignFileError


def check_writable(path: Path) -> None:
    """Open the file once, and begin to write.

    Raises:
        sqlite3.Error: It is no database, none of ours, or cannot be written. A database that is damaged is
            no error: it is set aside at its first use.
        OSError: It cannot be made.
    """
    try:
        connection = open_database(path)
    except sqlite3.Error as error:
        if is_damage(error) and is_database(path):
            return
        raise
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if not _is_locked(error):  # somebody writes to it just now, so it can be written
            raise
    finally:
        connection.close()


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


def identity_of(path: Path) -> FileIdentity | None:
    """Return which file a path leads to; `None`: to none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked before every commit, and `Path.stat` takes longer
    except OSError:
        return None
    return status.st_dev, status.st_ino


def set_aside(path: Path, place: FileIdentity | None, unix_now: int) -> Path | None:
    """Rename a damaged file, and what belongs to it.

    Args:
        path: The spool's path.
        place: The damaged file; where the path leads to another by now, somebody else has done this already.
        unix_now: Part of the new name.

    Returns:
        The new path; `None`: nothing was done.
    """
    aside = path.with_name(f"{path.name}.damaged-{unix_now}")
    with suppress(OSError):
        if identity_of(path) == place:
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
    """Make the tables; several processes may do so at once, and SQLite does not wait to switch to WAL."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while not _try_to_make(connection, is_last=time.monotonic() > deadline):
        time.sleep(_RETRY_SECONDS)


def _try_to_make(connection: sqlite3.Connection, *, is_last: bool) -> bool:
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
        )
    except sqlite3.OperationalError as error:
        if is_last or not _is_locked(error):
            raise
        return False
    return True


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return "locked" in str(error)  # CPython 3.10 gives no code
