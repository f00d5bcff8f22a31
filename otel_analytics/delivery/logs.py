"""What the operator is told: one line a minute for each reason, with totals, without payloads.

A logging handler is somebody else's code: it may track events itself, take long, or raise. So a line that is
due while a lock of ours is held is deferred, and emitted by whoever has let go of all locks; and what a
handler raises ends here.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from otel_analytics.errors import FOREIGN_ERRORS

logger = logging.getLogger("otel_analytics")

_QUIET_SECONDS = 60.0
_SHORTEST = 4
_LONGEST = 200


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
