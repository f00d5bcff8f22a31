"""uvicorn with bounds on connections: how many there are, how long each may take, and rest where none can be.

uvicorn bounds only idle connections, and asyncio's accept loop, where no file descriptors are left, tries and
logs as often as its backlog is long. So connections are accepted here, one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_LOGGER = logging.getLogger("otel_analytics")
_QUIET_SECONDS = 60.0  # between two lines that say the same
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        OSError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    # asyncio sets it only on sockets that name their protocol; without it each keep-alive answer waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@dataclass(frozen=True)
class ConnectionLimits:
    """What one peer can take from the others.

    Args:
        max_connections: Most at a time; further ones wait in the listener's queue until another closes.
        request_seconds: Longest time in seconds from a connection, or its last answer, to its next answer,
            and from there until that answer is read.
        accept_pause_seconds: How long to wait, in seconds, where the system has no file descriptor left.
    """

    max_connections: int = 200
    request_seconds: float = 30.0
    accept_pause_seconds: float = 1.0


class BoundedServer(uvicorn.Server):
    """A uvicorn server of one listening socket, which its `run` is given.

    Args:
        app: Answers.
        limits: What one peer can take.
        name: What the log calls it.
        **settings: More of uvicorn's.
    """

    def __init__(
        self, app: ASGIApp, limits: ConnectionLimits, name: str = "the collector", **settings: Any
    ) -> None:
        # `log_config=None`: the process's logging belongs to the application under test.
        quiet: dict[str, Any] = {"log_config": None, "log_level": None, "access_log": False}
        only_http: dict[str, Any] = {"lifespan": "off", "ws": "none", "proxy_headers": False}
        super().__init__(uvicorn.Config(app, server_header=False, **quiet, **only_http, **settings))
        self._limits = limits
        self._name = name
        self._closed = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting; uvicorn is told of no socket, since it would leave that to asyncio."""
        await super().startup(sockets=[])
        (listener,) = sockets or []
        listener.settimeout(0)  # as `sock_accept` wants it
        self._accepting = asyncio.create_task(self._accept_all(listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting before uvicorn counts the connections it waits for."""
        self._accepting.cancel()
        with suppress(asyncio.CancelledError):
            await self._accepting
        await super().shutdown(sockets)

    async def _accept_all(self, listener: socket.socket) -> None:
        quiet_until = -math.inf
        while True:
            await self._room()
            try:
                await self._accept(listener)
            except ConnectionError:  # that peer has gone already
                continue
            except OSError as error:
                # One may be accepted in between, as descriptors come and go.
                if time.monotonic() >= quiet_until:
                    text = "%s accepts no connections for the moment: %s"
                    _LOGGER.warning(text, self._name, error.strerror)
                    quiet_until = time.monotonic() + _QUIET_SECONDS
                await asyncio.sleep(self._limits.accept_pause_seconds)

    async def _room(self) -> None:
        while len(self.server_state.connections) >= self._limits.max_connections:
            self._closed.clear()
            await self._closed.wait()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(listener)
        await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> _Connection:
        return _Connection(self.config, self.server_state, self._limits.request_seconds, self._closed)


class _Connection(H11Protocol):
    """Cuts itself off where a request, or the reading of its answer, takes too long."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: uvicorn.server.ServerState,
        request_seconds: float,
        closed: asyncio.Event,
    ) -> None:
        super().__init__(config, server_state, app_state={})
        self._request_seconds = request_seconds
        self._closed = closed
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()
        self._closed.set()

    def on_response_complete(self) -> None:
        self._set_deadline()
        super().on_response_complete()

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        # Not `close`: that waits until the peer has read all.
        self._deadline = self.loop.call_later(self._request_seconds, self.transport.abort)
