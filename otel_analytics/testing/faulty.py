"""A collector that does what a script says: real sockets, one thread a connection."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from otel_analytics.contract import ADVERTISEMENT, WRITE_KEY
from otel_analytics.testing.answers import Accept, Answer
from otel_analytics.testing.exchange import Behaviour, Exchange, StoredEvent
from otel_analytics.testing.received import ReceivedRequest, RequestReader

if TYPE_CHECKING:
    from typing_extensions import Self

_LOOK_SECONDS = 0.02
_JOIN_SECONDS = 5.0


class FaultyCollector:
    """A collector on 127.0.0.1 that behaves as it is told; a context manager.

    Args:
        *behaviours: One for each request, in the order in which requests are complete.
        then: For all requests after those.
        batch: The value of ``X-Analytics-Batch``, sent with every answer; `None`: not sent. May be set at
            any time.
        write_key: Requests without it are answered 401, and use up no behaviour.
        ssl_context: Serves https with this context, which holds a certificate.
    """

    def __init__(
        self,
        *behaviours: Behaviour,
        then: Behaviour = Accept(),  # noqa: B008 - frozen
        batch: str | None = None,
        write_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.batch = batch
        self._script = deque(behaviours)
        self._then = then
        self._write_key = write_key
        self._ssl_context = ssl_context
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._stored: list[StoredEvent] = []
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._connected = 0
        self._closing = threading.Event()
        self._socket = _bound(0)
        self._port: int = self._socket.getsockname()[1]
        self._listener: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The endpoint to give to a client."""
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests received until now, in order."""
        with self._changed:
            return list(self._requests)

    @property
    def stored(self) -> list[StoredEvent]:
        """The events kept until now, in order, duplicates among them."""
        with self._changed:
            return list(self._stored)

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        return self._connected

    def bodies(self, kind: str | None = None) -> list[Any]:
        """Return the decoded bodies of stored events, of one kind (``"view"``, ``"engagement"``) or all."""
        return [event.body for event in self.stored if kind in {None, event.kind}]

    def event_ids(self) -> Counter[str]:
        """Return how often each event id was stored."""
        return Counter(event.event_id for event in self.stored)

    def behave(self, *behaviours: Behaviour, then: Behaviour | None = None) -> None:
        """Replace what is left of the script.

        Args:
            *behaviours: One for each request from now on.
            then: For all after those; `None`: as before.
        """
        with self._changed:
            self._script = deque(behaviours)
            self._then = then or self._then

    def wait_for_requests(self, count: int, timeout_millis: float = 5_000) -> None:
        """Wait for ``count`` requests in all.

        Raises:
            TimeoutError: There were fewer in that time.
        """
        self._wait(lambda: len(self._requests) >= count, f"{count} requests", timeout_millis)

    def wait_for_events(self, count: int, timeout_millis: float = 5_000) -> None:
        """Wait for ``count`` stored events in all, each id counted once.

        Raises:
            TimeoutError: There were fewer in that time.
        """
        self._wait(
            lambda: len({event.event_id for event in self._stored}) >= count,
            f"{count} events",
            timeout_millis,
        )

    def stop_listening(self) -> None:
        """End all connections and refuse new ones; the port stays this collector's own."""
        self._stop()
        self._socket = _bound(self._port)

    def resume(self) -> None:
        """Listen again, on the same port; does nothing where it listens."""
        if self._listener is None:
            self._closing = threading.Event()
            self._socket.listen(128)
            self._socket.settimeout(_LOOK_SECONDS)
            self._listener = threading.Thread(target=self._listen, name="faulty-collector", daemon=True)
            self._listener.start()

    def __enter__(self) -> Self:
        """Start listening."""
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections and free the port."""
        self._stop()

    def _stop(self) -> None:
        self._closing.set()
        if self._listener is not None:
            self._listener.join(_JOIN_SECONDS)
            self._listener = None
        self._socket.close()
        with self._changed:
            connections = dict(self._connections)
        for thread, sock in connections.items():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(_JOIN_SECONDS)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._socket.accept()
            except TimeoutError:
                continue
            with self._changed:
                self._connected += 1
                thread = threading.Thread(target=self._serve, args=(sock, self._connected), daemon=True)
                self._connections[thread] = sock
            thread.start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        # A client may go at any moment; that is what this collector is for.
        with contextlib.suppress(OSError, ValueError):
            sock.settimeout(None)
            if self._ssl_context:
                sock = self._secured(sock, self._ssl_context)
            self._converse(sock, connection)
        sock.close()
        with self._changed:
            self._connections.pop(threading.current_thread(), None)

    def _secured(self, plain: socket.socket, context: ssl.SSLContext) -> socket.socket:
        sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._connections[threading.current_thread()] = sock  # the plain one is detached
        sock.do_handshake()
        return sock

    def _converse(self, sock: socket.socket, connection: int) -> None:
        reader = RequestReader(sock)
        while not self._closing.is_set() and reader.wait():
            request = ReceivedRequest(*reader.read(), time.monotonic(), connection)
            exchange = Exchange(
                request,
                sock,
                reader,
                headers={ADVERTISEMENT: self.batch} if self.batch is not None else {},
                store=self._store,
                closing=self._closing,
            )
            self._behaviour(request)(exchange)
            if exchange.is_over:
                return

    def _behaviour(self, request: ReceivedRequest) -> Behaviour:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            if request.kind is None:
                return Answer(404)
            if self._write_key not in {None, request.headers.get(WRITE_KEY.lower())}:
                return Answer(401)
            return self._script.popleft() if self._script else self._then

    def _store(self, events: Iterable[StoredEvent]) -> None:
        kept = list(events)
        with self._changed:
            self._stored.extend(kept)
            self._changed.notify_all()

    def _wait(self, done: Callable[[], bool], what: str, timeout_millis: float) -> None:
        with self._changed:
            if not self._changed.wait_for(done, timeout_millis / 1000):
                raise TimeoutError(
                    f"waited {timeout_millis:g} ms for {what}; there were {len(self._requests)} requests"
                    f" on {self._connected} connections, and {len(self._stored)} stored events"
                )


def _bound(port: int) -> socket.socket:
    """Return a socket that holds a port but does not listen, so connections to it are refused."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
