"""The one life of a client in a process: open, then a last chance until a deadline, then closed."""

from __future__ import annotations

import math
from enum import IntEnum


class Stage(IntEnum):
    """Where a life stands; it only moves on."""

    OPEN = 0
    LAST_CHANCE = 1  # what is left is sent without backoff, and nothing tried twice for its own fault
    CLOSED = 2  # what comes is dropped and counted


class Life:
    """Read by everything that a client has in a process, moved on by its delivery alone.

    Without a lock: each step is one assignment, so that whatever interrupts it finds one stage or the other.

    Args:
        stage: Where it begins: a client closed before a fork is closed after it.
    """

    def __init__(self, stage: Stage = Stage.OPEN) -> None:
        self.stage = stage
        self.deadline = math.inf  # of the last chance, monotonic seconds

    def begin_last_chance(self, deadline: float) -> bool:
        """Begin it, or move its deadline; return whether it is begun by this."""
        self.deadline = deadline
        if self.stage is not Stage.OPEN:
            return False
        self.stage = Stage.LAST_CHANCE
        return True

    def close(self) -> None:
        """End it."""
        self.stage = Stage.CLOSED

    @property
    def is_ending(self) -> bool:
        """Whether the last chance has begun, or passed."""
        return self.stage is not Stage.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.stage is Stage.CLOSED
