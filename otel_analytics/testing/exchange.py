"""One request and whatever is done to its answer: what a behaviour acts on."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any, Protocol

from otel_analytics.contract import IDEMPOTENCY_KEY, acknowledgement
from otel_analytics.testing.received import ReceivedRequest, RequestReader

_LINGER_ZERO = struct.pack("ii", 1, 0)  # closing sends RST, as a crashed or impatient peer does


@dataclass(frozen=True)
class StoredEvent:
    """An event that the collector kept, whether or not the client ever heard of it.

    Args:
        kind: ``"view"`` or ``"engagement"``.
        event_id: `metadata.eventId`, else the request's ``Idempotency-Key``.
        body: The decoded JSON object.
    """

    kind: str
    event_id: str
    body: Any


class Behaviour(Protocol):
    """What a collector does with a request: any callable that takes an `Exchange`."""

    def __call__(self, exchange: Exchange, /) -> None:
        """Store, answer, wait, reset; whatever is left undone stays undone."""


class Exchange:
    """A received request, and the connection to answer it on. Made by `FaultyCollector`.

    Args:
        request: What was received.
        sock: The connection.
        reader: What reads it.
        headers: Sent with every answer.
        store: Keeps events.
        closing: Set when the collector closes; ends every wait.
    """

    def __init__(
        self,
        request: ReceivedRequest,
        sock: socket.socket,
        reader: RequestReader,
        *,
        headers: Mapping[str, str],
        store: Callable[[Iterable[StoredEvent]], None],
        closing: Event,
    ) -> None:
        self.request = request
        self.is_over = False
        self._sock = sock
        self._reader = reader
        self._headers = headers
        self._store = store
        self._closing = closing

    def store(self, is_kept: Callable[[int], bool] = lambda _: True) -> None:
        """Keep the request's events, or those whose index ``is_kept`` approves."""
        key = self.request.headers.get(IDEMPOTENCY_KEY.lower(), "")
        kind = self.request.kind or ""
        self._store(
            StoredEvent(kind, _event_id(body) or key, body)
            for index, body in enumerate(self.request.events)
            if is_kept(index)
        )

    def acknowledge(self, failures: Iterable[Mapping[str, Any]] = (), status: int = 200) -> None:
        """Answer as the contract has it: an acknowledgement to an array, an empty object to an object."""
        said = {**acknowledgement(len(self.request.events)), "failures": list(failures)}
        self.answer(status, json.dumps(said if self.request.is_batch else {}).encode())

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer; the connection stays open unless it says ``Connection: close``."""
        self.send(self.head(status, len(body), headers) + body)
        if (headers or {}).get("Connection", "").lower() == "close":
            self.close()

    def head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Return an answer's head for a body of ``length`` bytes."""
        fields = {"Content-Type": "application/json", "Content-Length": length, **self._headers}
        lines = [f"{name}: {value}\r\n" for name, value in {**fields, **(headers or {})}.items()]
        return f"HTTP/1.1 {status} {_phrase(status)}\r\n{''.join(lines)}\r\n".encode()

    def send(self, data: bytes) -> None:
        """Send bytes as they are; raises `OSError` where the client has gone."""
        self._sock.sendall(data)

    def wait(self, millis: float) -> bool:
        """Wait, or less where the collector closes before; return whether it did not."""
        return not self._closing.wait(millis / 1000)

    def wait_for_more(self) -> bool:
        """Wait until the client sends another byte; false where it closes instead."""
        return self._reader.wait()

    def reset(self) -> None:
        """End the connection with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent, but keep reading until the client closes."""
        self._sock.shutdown(socket.SHUT_WR)
        while self._reader.wait():
            self._reader.read()
        self.close()

    def close(self) -> None:
        """End the connection."""
        self.is_over = True
        with contextlib.suppress(OSError):
            self._sock.close()


def _event_id(body: Any) -> str | None:
    try:
        return str(body["metadata"]["eventId"])
    except (TypeError, KeyError):
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
