"""Requests to the collector and back, many at a time on one thread.

A thread for each connection would compete with the application for its interpreter, and httpcore's pool costs
twice of what a request does here; an asyncio loop cannot run beside others in a process that gevent has patched,
nor its look-ups at the exit. So one selector waits for all connections, each of which is a generator (see
`connection`). Idle connections are used newest first, so that those which are one too many grow old and go.

A transport belongs to the thread that waits; only `wake` may be called from others, or by a signal's handler.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import h11
import httpcore
import httpx

from otel_analytics.contract import PATHS, WRITE_KEY
from otel_analytics.delivery.http.connection import (
    Connection,
    ProxyError,
    Route,
    UnreachableError,
    Wait,
    Waiting,
    describe,
    proxy_headers,
)
from otel_analytics.delivery.http.wire import Answer, NoAnswer, Request

_IDLE_SECONDS = 30.0
_KNOWN_SECONDS = 5.0  # an address; a burst of new connections looks it up once
_FAILURES = (httpx.InvalidURL, OSError, RuntimeError, ValueError)
_FAILED = (OSError, h11.ProtocolError, ValueError)


class Exchanged(NamedTuple):
    """A request that is over.

    Args:
        token: What it was started with.
        result: What came of it.
    """

    token: Any
    result: Answer | NoAnswer


class _Exchange:
    """A request on its way."""

    __slots__ = ("asking", "connection", "deadline", "due", "request", "token", "wait")

    def __init__(self, request: Request, token: Any, deadline: float, connection: Connection) -> None:
        self.request = request
        self.token = token
        self.deadline = deadline
        self.connection = connection
        self.asking: Waiting[Answer]
        self.wait = Wait(-1)
        self.due = deadline


class Transport:
    """Connections to the collector.

    Args:
        endpoint: Base URL, without a trailing slash.
        write_key: Sent as ``X-Write-Key``.
        clock: Monotonic seconds.
    """

    def __init__(
        self, endpoint: str, write_key: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoint = httpx.URL(endpoint)
        self._clock = clock
        self._route: Route | None = None
        self._targets: dict[str, bytes] = {}
        self._headers: list[tuple[bytes, bytes]] = [(b"Host", self._endpoint.netloc)]
        if write_key:
            self._headers.append((WRITE_KEY.encode(), write_key.encode("ascii")))
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._addresses = _Addresses(clock, self.wake)
        self._idle: list[tuple[Connection, float]] = []  # and since when
        self._asked: dict[_Exchange, None] = {}
        self._over: list[Exchanged] = []
        self._deadline = 0.0
        self._is_forgotten = False

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return len(self._asked)

    def start(self, request: Request, timeout: float, token: Any = None) -> None:
        """Begin to send a request, over a connection that is idle or a new one.

        Args:
            request: What to send.
            timeout: Seconds until its answer has to be here, connecting included.
            token: Whatever tells it from others.
        """
        try:
            self._route = self._route or self._routed()
        except _FAILURES as error:  # bad certificates, or a bad proxy
            self._over.append(Exchanged(token, NoAnswer(describe(error), reached=False)))
            return
        exchange = _Exchange(request, token, self._clock() + timeout, self._connection())
        self._begin(exchange)

    def wait(self, until: float) -> list[Exchanged]:
        """Return what is over, as soon as anything is; nothing when woken, or at ``until`` (monotonic)."""
        if not self._over:
            self._turn(min((until, *(exchange.due for exchange in self._asked))))
        over, self._over = self._over, []
        return over

    def wake(self) -> None:
        """Have `wait` return; from any thread, also from a signal's handler."""
        with suppress(OSError):  # it is full, so it will; or closed
            self._waker.send(b"\0")

    def close(self) -> None:
        """Close all connections, whatever is on its way."""
        for exchange in self._asked:
            exchange.asking.close()
            exchange.connection.close()
        for connection, _ in self._idle:
            connection.close()
        self._asked.clear()
        self._idle.clear()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def forget(self) -> None:
        """Let go of the sockets in a forked child: they are the parent's, which keeps them."""
        self._is_forgotten = True
        used = [exchange.connection.socket for exchange in self._asked]
        idle = [connection.socket for connection, _ in self._idle]
        for each in (*used, *idle, self._waker, self._woken):
            if each is not None and each.fileno() >= 0:
                # Not closed: gevent would take it off the event loop, which right after a fork is the parent's.
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, each.fileno(), inheritable=False)
                os.close(nothing)

    # Requests

    def _begin(self, exchange: _Exchange) -> None:
        head = self._head(exchange.request)
        exchange.asking = exchange.connection.exchange(head, exchange.request.body)
        self._asked[exchange] = None
        self._resume(exchange)

    def _head(self, request: Request) -> h11.Request:
        headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in request.headers.items()]
        length = (b"Content-Length", str(len(request.body)).encode())
        return h11.Request(
            method=b"POST", target=self._targets[request.path], headers=[*self._headers, *headers, length]
        )

    def _resume(self, exchange: _Exchange, error: BaseException | None = None) -> None:
        """Go on with a request as far as it goes without waiting."""
        self._deadline = exchange.deadline
        try:
            wait = next(exchange.asking) if error is None else exchange.asking.throw(error)
        except StopIteration as done:
            self._settle(exchange, done.value)
        except TimeoutError:
            reached = exchange.connection.is_reached
            reason = "no answer in time" if reached else "no connection in time"
            self._settle(exchange, NoAnswer(reason, reached=reached))
        except UnreachableError as failure:
            self._settle(exchange, NoAnswer(describe(failure), reached=False))
        except _FAILED as failure:
            self._fail(exchange, failure)
        else:
            self._await(exchange, wait)

    def _await(self, exchange: _Exchange, wait: Wait) -> None:
        left = exchange.deadline - self._clock()
        exchange.due = exchange.deadline if wait.share >= 1 else exchange.deadline - left * (1 - wait.share)
        before, exchange.wait = exchange.wait, wait
        if (before.descriptor, before.events) == (wait.descriptor, wait.events):
            return
        self._unregister(before)
        if wait.descriptor >= 0:
            self._selector.register(wait.descriptor, wait.events, exchange)

    def _unregister(self, wait: Wait) -> None:
        if wait.descriptor >= 0:
            with suppress(KeyError, ValueError):
                self._selector.unregister(wait.descriptor)

    def _fail(self, exchange: _Exchange, failure: BaseException) -> None:
        connection = exchange.connection
        if not connection.is_fresh and not connection.has_begun_answer and self._clock() < exchange.deadline:
            # The server closed the idle connection just as we used it: that says nothing about its health.
            self._unregister(exchange.wait)
            connection.close()
            del self._asked[exchange]
            exchange.wait = Wait(-1)
            exchange.connection = self._new_connection()
            self._begin(exchange)
            return
        self._settle(exchange, NoAnswer(describe(failure), reached=connection.is_reached))

    def _settle(self, exchange: _Exchange, result: Answer | NoAnswer) -> None:
        self._unregister(exchange.wait)
        del self._asked[exchange]
        connection = exchange.connection
        if isinstance(result, Answer) and connection.is_reusable:
            connection.renew()
            self._idle.append((connection, self._clock()))
        else:
            connection.close()
        self._over.append(Exchanged(exchange.token, result))

    # Waiting

    def _turn(self, until: float) -> None:
        timeout = max(until - self._clock(), 0.0)
        ready = self._selector.select(None if timeout == float("inf") else timeout)
        if self._is_forgotten:
            raise ConnectionAbortedError("this process has been forked")
        for key, _ in ready:
            if key.data is None:
                self._drain()
            else:
                self._resume(key.data)
        now = self._clock()
        for exchange in [each for each in self._asked if each.due <= now]:
            self._resume(exchange, TimeoutError() if exchange.deadline <= now else None)
        self._close_old(now)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4_096):
                pass
        for exchange in [each for each in self._asked if each.wait.descriptor < 0]:
            self._resume(exchange)

    def _close_old(self, now: float) -> None:
        while self._idle and self._idle[0][1] + _IDLE_SECONDS < now:
            self._idle.pop(0)[0].close()

    # Connections

    def _connection(self) -> Connection:
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return self._new_connection()

    def _new_connection(self) -> Connection:
        assert self._route is not None
        return Connection(self._route, self._addresses, self._time_left)

    def _time_left(self) -> float:
        """Return the seconds that the request at hand has; asked before anything that repeats without end."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _routed(self) -> Route:
        proxy = _proxy_for(self._endpoint)
        if proxy is not None and proxy.url.scheme.startswith("socks") and not find_spec("socksio"):
            raise ProxyError("a SOCKS proxy takes a package: pip install 'httpx[socks]'")
        route = Route(
            self._endpoint,
            proxy,
            _tls_context() if self._endpoint.scheme == "https" else None,
            _proxy_tls_context() if proxy is not None and proxy.url.scheme == "https" else None,
        )
        for path in PATHS.values():
            url = httpx.URL(str(self._endpoint) + path)
            self._targets[path] = bytes(str(url), "ascii") if route.is_forwarded else url.raw_path
        if proxy is not None and route.is_forwarded:
            self._headers += [(name.encode(), value.encode()) for name, value in proxy_headers(proxy)]
        return route


class _Addresses:
    """Looks up names, each on a thread of its own: a look-up cannot be ended, only left alone."""

    def __init__(self, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._known: dict[tuple[str, int], _LookUp] = {}

    def of(self, host: str, port: int) -> Waiting[Sequence[Any]]:
        """Return what `socket.getaddrinfo` does."""
        found = self._known.get((host, port))
        if found is None or found.is_old(self._clock()):
            found = self._known[host, port] = _LookUp(host, port, self._clock, self._wake)
            found.start()
        while not found.is_done:
            yield Wait(-1)
        if found.error is not None:
            raise found.error
        return found.addresses


class _LookUp:
    """One look-up of a name."""

    def __init__(self, host: str, port: int, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._host, self._port = host, port
        self._clock = clock
        self._wake = wake
        self._done_at = float("inf")
        self.is_done = False
        self.addresses: Sequence[Any] = ()
        self.error: OSError | None = None

    def is_old(self, now: float) -> bool:
        """Whether what it found may have changed."""
        return self.is_done and (self.error is not None or self._done_at + _KNOWN_SECONDS < now)

    def start(self) -> None:
        """Begin; what is an address already needs no thread, and at an exit there may be none."""
        with suppress(OSError, UnicodeError):
            self.addresses = _addresses_of(self._host, self._port, flags=socket.AI_NUMERICHOST)
            self._end()
            return
        try:
            threading.Thread(target=self._run, name="otel-analytics-names", daemon=True).start()
        except RuntimeError:
            self._run()

    def _run(self) -> None:
        try:
            self.addresses = _addresses_of(self._host, self._port)
        except (OSError, UnicodeError) as error:
            self.error = error if isinstance(error, OSError) else OSError(str(error))
        self._end()
        self._wake()

    def _end(self) -> None:
        self._done_at = self._clock()
        self.is_done = True


def _addresses_of(host: str, port: int, flags: int = 0) -> Sequence[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _import_everything() -> None:
    """Have the codec of host names imported now, not at the first request.

    That would be on a sending thread, and a fork while a thread imports leaves the child a half-made module.
    """
    "localhost".encode("idna")


def prepare_tls(endpoint: str) -> None:
    """Load the certificates that an endpoint needs now, on the thread that configures.

    On a sending thread a fork could meet it: OpenSSL's locks, held in that moment, stay held in the child.
    What is wrong with the certificates is said by the first request.
    """
    url = httpx.URL(endpoint)
    with suppress(*_FAILURES):
        if url.scheme == "https":
            _tls_context()
    with suppress(*_FAILURES):
        proxy = _proxy_for(url)
        if proxy is not None and proxy.url.scheme == "https":
            _proxy_tls_context()


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Load the certificates once: it takes tens of milliseconds, and honours SSL_CERT_FILE."""
    return httpx.create_ssl_context()


@lru_cache(maxsize=1)
def _proxy_tls_context() -> ssl.SSLContext:
    """Load the certificates for a proxy reached by https, among them those that only this machine trusts."""
    return httpcore.default_ssl_context()


def _proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy that the environment names for a URL (``HTTPS_PROXY``, ``NO_PROXY``, ...)."""
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(url.host):
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}") if proxy else None


def parse_endpoint(text: str) -> httpx.URL | None:
    """Parse a base URL as `Transport` and the socket below it will; `None` where either would fail."""
    try:
        for path in PATHS.values():
            httpx.URL(text.rstrip("/") + path)
        url = httpx.URL(text)
        url.host.encode("idna")  # decodes xn-- on the way, as looking for a proxy does
        url.raw_host.decode("ascii").encode("idna")  # as the look-up of the address does
    except (httpx.InvalidURL, ValueError):
        return None
    return url


_import_everything()
