"""What the operator is told: one line a minute for each reason, with totals, without payloads.

A logging handler is somebody else's code: it may track events itself, take long, or raise. So a line that is
due while a lock of ours is held is deferred, and emitted by whoever has let go of all locks; and what a
handler raises ends here.
"""

from __future__ import annotations

import logging
import mmap
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from otel_analytics.errors import FOREIGN_ERRORS

logger = logging.getLogger("otel_analytics")

_QUIET_SECONDS = 60.0
_SHORTEST = 4
_LONGEST = 200
_SHOWN: Final = logging.INFO - 1
"""Shows INFO. No application sets this level, so that one which it does set is told from ours."""


@dataclass
class _Tally:
    said_at: float = float("-inf")
    unsaid: int = 0
    total: int = 0


class Secrets:
    """What no line may show, whoever repeats it.

    Args:
        texts: The values of headers, the key among them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        parts = {part for text in texts for part in (text, *text.split())}
        # The longest first: one may hold another. What is shorter is a number or a word, and no secret.
        self._parts = sorted((part for part in parts if len(part) >= _SHORTEST), key=len, reverse=True)

    def hidden(self, text: str) -> str:
        """Return a text without them, and no longer than a sentence."""
        for part in self._parts:
            text = text.replace(part, "<hidden>")
        return text[:_LONGEST]


class RateLimitedLog:
    """Logs what happened to events, but never more than a line a minute for each reason.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] = {}
        self._told: set[str] = set()
        self._deferred: deque[tuple[int, str]] = deque()

    def tell(self, reason: str, count: int, text: str, level: int = logging.WARNING) -> None:
        """Log ``text`` with how often it happened since the last line and in all; never under a lock.

        Args:
            reason: What the minute is counted for.
            count: How many events it concerns now.
            text: A sentence with the remedy.
            level: A level of `logging`.
        """
        self.defer(reason, count, text, level)
        self.emit()

    def defer(self, reason: str, count: int, text: str, level: int = logging.WARNING) -> None:
        """Have the same line logged by the next `emit`; may be called under a lock."""
        tally = self._due(reason, count)
        if tally is not None:
            now, total = tally
            self._deferred.append((level, f"{text} ({reason}: {now} now, {total} in all)"))

    def tell_once(self, what: str, text: str) -> None:
        """Log a warning the first time that it is due; never under a lock."""
        with self._lock:
            if what in self._told:
                return
            self._told.add(what)
        log_safely(logging.WARNING, "%s", text)

    @property
    def has_deferred(self) -> bool:
        """Whether a line waits for `emit`."""
        return bool(self._deferred)

    def emit(self) -> None:
        """Log what was deferred; never under a lock."""
        while self._deferred:
            try:
                level, line = self._deferred.popleft()
            except IndexError:  # another thread was faster
                return
            log_safely(level, "%s", line)

    def _due(self, reason: str, count: int) -> tuple[int, int] | None:
        """Decide under the lock; the caller logs outside it."""
        now = self._clock()
        with self._lock:
            tally = self._tallies.setdefault(reason, _Tally())
            tally.unsaid += count
            tally.total += count
            if now - tally.said_at < _QUIET_SECONDS:
                return None
            said, tally.unsaid, tally.said_at = tally.unsaid, 0, now
            return said, tally.total


def log_safely(level: int, text: str, *values: object, exc_info: bool = False) -> None:
    """Log a line with the product's name, whatever filters and handlers raise: that must not stop sending."""
    line = f"otel-analytics: {text}"
    try:
        logger.log(level, line, *values, exc_info=exc_info or None)
    except FOREIGN_ERRORS:
        return


_SLOTS: Final = 1 << 16
_told: Final = mmap.mmap(-1, _SLOTS)
"""A byte for each line told, in memory that forked processes share: eight workers tell it as one would."""
_claimed: Final[dict[int, object]] = {}
"""The same for threads: `setdefault` is one step, and no lock that a fork could inherit held."""


def tell_once(level: int, text: str, *values: object, what: str = "") -> None:
    """Log a line the first time that it would be seen, in this process and all that were forked with it.

    Args:
        level: A level of `logging`.
        text: With ``%`` for each of ``values``, as `logging` takes them.
        *values: What is put into it.
        what: What the line is told from others by, where that is not its text.
    """
    slot, mine = zlib.crc32((what or text).encode(errors="replace")) % _SLOTS, object()
    if _told[slot] or not logger.isEnabledFor(level) or _claimed.setdefault(slot, mine) is not mine:
        return
    _told[slot] = 1
    log_safely(level, text, *values)


def forget_told() -> None:
    """Have each line told again, as tests need it."""
    _told[:] = bytes(_SLOTS)
    _claimed.clear()


def show_lines() -> None:
    """Show lines on standard error, INFO among them, for as long as no handler of the application takes them.

    For where nobody could have set up logging: the environment has set this package up, or `debug` asks.
    `logging` itself shows only warnings then (`logging.lastResort`), and none of what goes well.
    """
    if logger.level == logging.NOTSET:
        logger.setLevel(_SHOWN)
    logger.addHandler(_last_resort)
    logger.addFilter(_is_wanted)


class _LastResort(logging.Handler):
    """Writes what nobody else handles; it looks at each line, since logging may be set up after us."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, which cannot fail: standard error may be closed, or not there."""
        if sys.stderr is not None and not _is_handled():
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{self.format(record)}\n")


_last_resort: Final = _LastResort()


def _is_wanted(record: logging.LogRecord) -> bool:
    """Let the application's level hold where it has handlers, and has not set the logger's own."""
    if logger.level != _SHOWN or logger.parent is None or not _is_handled():
        return True
    return record.levelno >= logger.parent.getEffectiveLevel()


def _is_handled() -> bool:
    """Whether somebody else takes our lines; what OpenTelemetry exports nobody reads in a terminal."""
    at: logging.Logger | None = logger
    while at is not None:
        for handler in tuple(at.handlers):
            is_exporter = type(handler).__module__.startswith("opentelemetry.")
            if handler is not _last_resort and not is_exporter:
                return True
        at = at.parent if at.propagate else None
    return False
