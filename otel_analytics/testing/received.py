"""HTTP/1.1 requests off a socket (RFC 9112), as far as a client of a collector sends them."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_analytics.contract import kind_of

_CHUNK = 65_536
_MAX_HEAD = 65_536


@dataclass(frozen=True)
class ReceivedRequest:
    """One request, whole.

    Args:
        method: ``"POST"``.
        path: The target as it was sent.
        headers: Names in lower case.
        body: Decompressed where it came with gzip.
        received_at: When it was complete, monotonic seconds.
        connection: Number of the connection it came on, from 1.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    received_at: float
    connection: int

    @property
    def kind(self) -> str | None:
        """``"view"`` or ``"engagement"``; `None` for a path that is neither's."""
        kind = kind_of(self.path)
        return kind and kind.value

    @property
    def json(self) -> Any:
        """The decoded body; `None` where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def events(self) -> list[Any]:
        """The decoded bodies of its events: an array's items, or the one object."""
        decoded = self.json
        return decoded if isinstance(decoded, list) else [decoded]

    @property
    def is_batch(self) -> bool:
        """Whether the body is an array."""
        return self.body.lstrip().startswith(b"[")


class RequestReader:
    """Reads the requests of one connection, one after the other.

    Args:
        sock: The connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def wait(self) -> bool:
        """Wait for the first byte of a request; false where the client closed."""
        return bool(self._buffer) or self._fill()

    def read(self) -> tuple[str, str, dict[str, str], bytes]:
        """Return method, path, headers and body of the next request.

        Raises:
            OSError: The connection ended within it.
            ValueError: It is not HTTP.
        """
        request_line, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        method, path, _ = request_line.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return method, path, headers, _plain(self._body(headers), headers)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", ""):
            return self._chunked()
        return self._exactly(int(headers.get("content-length", "0")))

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        while self._until(b"\r\n"):  # trailers, up to the empty line
            pass
        return body

    def _until(self, end: bytes) -> bytes:
        while (found := self._buffer.find(end)) < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise ValueError("no end of a line or head in sight")
            self._must_fill()
        text = bytes(self._buffer[:found])
        del self._buffer[: found + len(end)]
        return text

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._must_fill()
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _must_fill(self) -> None:
        if not self._fill():
            raise ConnectionError("the client closed within a request")

    def _fill(self) -> bool:
        data = self._sock.recv(_CHUNK)
        self._buffer += data
        return bool(data)


def _plain(body: bytes, headers: Mapping[str, str]) -> bytes:
    if headers.get("content-encoding", "").lower() != "gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return body
