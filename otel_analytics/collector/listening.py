"""Accepting connections while the process, or the machine, has nothing left to accept them with.

asyncio pauses its accept loop for a second then, but not at once: it goes on for as many tries as the backlog
is long, and each of them logs a traceback and starts a pause of its own, after which all of them try again.
Here a pause starts after one try, and is noted once in a while.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from typing import Any

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # as asyncio has them
_PAUSE_SECONDS = 0.5  # less than asyncio's, so that its next try is a real one
_NOTE_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class PausingListener(socket.socket):
    """A listening socket that, once out of resources, has nothing to accept for a moment."""

    _paused_until = 0.0
    _noted_at = float("-inf")

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            BlockingIOError: There is none, or this is a pause; asyncio leaves its loop.
            OSError: The first failure for want of resources; asyncio waits before it tries again.
        """
        if time.monotonic() < self._paused_until:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause(error)
            raise

    def _pause(self, error: OSError) -> None:
        now = time.monotonic()
        self._paused_until = now + _PAUSE_SECONDS
        if now >= self._noted_at + _NOTE_SECONDS:
            self._noted_at = now
            _logger.warning("the collector accepts no connections for the moment: %s", error.strerror)


def ignore_exhaustion(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle a loop's exceptions as it does by default, but for those that a `PausingListener` has noted."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context):
        loop.default_exception_handler(context)
