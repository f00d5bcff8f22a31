"""What the operator is told: one line a minute for each reason, with totals, without payloads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger("otel_analytics")

_QUIET_SECONDS = 60.0


@dataclass
class _Tally:
    said_at: float = float("-inf")
    unsaid: int = 0
    total: int = 0


class Reporter:
    """Logs what happened to events, but never more than a line a minute for each reason.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] = {}

    def tell(self, reason: str, count: int, text: str, level: int = logging.WARNING) -> None:
        """Log ``text`` with how often it happened since the last line and in all.

        Args:
            reason: What the minute is counted for.
            count: How many events it concerns now.
            text: A sentence with the remedy.
            level: A level of `logging`.
        """
        tally = self._due(reason, count)
        if tally is not None:
            logger.log(level, "%s (%s: %d now, %d in all)", text, reason, *tally)

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
