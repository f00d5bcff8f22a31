"""Requests to the collector and back, many at a time on one thread.

A thread for each connection would compete with the application for its interpreter, and httpcore's pool takes
twice the time that a request does here; an asyncio loop cannot run beside others in a process that gevent has
patched, nor look up a name at the exit. So one selector waits for all connections, each of which is a
generator (see `connection`). Idle ones are used newest first, so that those which are one too many grow old
and go.

A transport belongs to the thread that waits; only `wake` may be called from others, or by a signal's handler.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import ssl
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
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
from otel_analytics.delivery.logs import log_safely
from otel_analytics.errors import ConfigError

_IDLE_SECONDS = 30.0
# As long as load balancers ask for by DNS; what is added or taken away is then noticed.
_MOST_AGE_SECONDS = 60.0
_KNOWN_SECONDS = 5.0  # an address; a burst of new connections looks it up once
_NOTHING = Wait(-1)
_MOST_HEADS = 2_048
_FAILURES = (httpx.InvalidURL, OSError, RuntimeError, ValueError)
_FAILED = (OSError, h11.ProtocolError, ValueError)


class TlsFiles(NamedTuple):
    """PEM files, each `None` where there is none.

    Args:
        certificate: Whom to trust, instead of whom the system trusts.
        client_certificate: Who we are, where the collector asks.
        client_key: Its private key, where that is not in the same file.
    """

    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class Exchanged(NamedTuple):
    """A request that is over.

    Args:
        token: What it was started with.
        result: What came of it.
        connection: Over which; `None` where there was none.
    """

    token: Any
    result: Answer | NoAnswer
    connection: Connection | None = None


class _Watched(NamedTuple):
    """What the selector knows of a connection."""

    socket: socket.socket
    events: int


class _Exchange:
    """A request on its way."""

    __slots__ = ("asking", "connection", "deadline", "due", "is_repeated", "request", "token", "wait")

    def __init__(self, request: Request, token: Any, deadline: float, connection: Connection) -> None:
        self.request = request
        self.token = token
        self.deadline = deadline
        self.connection = connection
        self.asking: Waiting[Answer]
        self.wait = _NOTHING
        self.due = deadline
        self.is_repeated = False


class Transport:
    """Connections to the collector.

    Args:
        endpoint: Base URL, without a trailing slash.
        write_key: Sent as ``X-Write-Key``.
        clock: Monotonic seconds.
        headers: More of them, which may replace those about this library and the host.
        tls: How to encrypt.
    """

    def __init__(
        self,
        endpoint: str,
        write_key: str | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        tls: TlsFiles = TlsFiles(),  # noqa: B008 - a tuple
    ) -> None:
        self._endpoint = httpx.URL(endpoint)
        self._clock = clock
        self._route: Route | None = None
        self._targets: dict[str, bytes] = {}
        own = httpx.Headers({"Host": self._endpoint.netloc.decode("ascii")})
        own.update(headers)
        own.update({WRITE_KEY: write_key} if write_key else {})
        self._headers = list(own.raw)
        self._own = frozenset(own)
        self._tls = tls
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._waker.settimeout(0)
        self._woken.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._addresses = _Addresses(clock, self.wake)
        # Each is watched for what it can be read from as long as it lives: an idle one has nothing to say.
        self._watched: dict[Connection, _Watched] = {}
        self._idle: dict[Connection, float] = {}  # since when, the newest last
        self._asked: dict[Connection, _Exchange] = {}
        self._heads: dict[tuple[str, int], h11.Request] = {}
        self._over: deque[Exchanged] = deque()
        self._deadline = 0.0
        self._is_forgotten = False

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return len(self._asked)

    def start(
        self, request: Request, timeout: float, token: Any = None, connected_since: float = -math.inf
    ) -> None:
        """Begin to send a request, over a connection that is idle or a new one.

        Args:
            request: What to send.
            timeout: Seconds until its answer has to be here, connecting included.
            token: Whatever tells it from others.
            connected_since: A connection made before that is not used again (monotonic seconds).
        """
        try:
            route = self._route = self._route or self._routed()
        except _FAILURES as error:  # bad certificates, or a bad proxy
            self._over.append(Exchanged(token, NoAnswer(describe(error), reached=False)))
            return
        now = self._clock()
        connection = self._connection(route, max(connected_since, now - _MOST_AGE_SECONDS))
        self._begin(_Exchange(request, token, now + timeout, connection))

    def leave(self, connection: Connection) -> None:
        """Do not use a connection again: it may lead to one bad replica of many."""
        if self._idle.pop(connection, None) is not None:
            self._drop(connection)

    def wait(self, until: float) -> Iterator[Exchanged]:
        """Yield what is over, as soon as anything is; nothing when woken, or at ``until`` (monotonic).

        Meanwhile idle connections are closed that have ended, or have bytes that nobody asked for.
        """
        if not self._over:
            self._turn(min((until, *(exchange.due for exchange in self._asked.values()))))
        while self._over:
            yield self._over.popleft()

    def wake(self) -> None:
        """Have `wait` return; from any thread, also from a signal's handler."""
        with suppress(OSError):  # it is full, so it will; or closed
            self._waker.send(b"\0")

    def close(self) -> list[Any]:
        """Close all connections; return the tokens of what was started, and never came out of `wait`."""
        unsettled = [exchange.token for exchange in self._asked.values()]
        unsettled += [exchanged.token for exchanged in self._over]
        for exchange in self._asked.values():
            exchange.asking.close()
        for connection in (*self._asked, *self._idle):
            connection.close()
        self._asked.clear()
        self._idle.clear()
        self._selector.close()
        self._waker.close()
        self._woken.close()
        return unsettled

    def forget(self) -> None:
        """Let go of the sockets in a forked child: they are the parent's, which keeps them."""
        self._is_forgotten = True
        sockets = [connection.socket for connection in (*self._asked, *self._idle)]
        for each in (*sockets, self._waker, self._woken):
            if each is not None and each.fileno() >= 0:
                # Not closed: gevent would take it off the event loop, which right after a fork is still the
                # parent's.
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, each.fileno(), inheritable=False)
                os.close(nothing)

    # Requests

    def _begin(self, exchange: _Exchange) -> None:
        request, connection = exchange.request, exchange.connection
        own, headers = self._own, request.headers.items()
        more = "".join([f"{name}: {value}\r\n" for name, value in headers if name.lower() not in own])
        exchange.asking = connection.exchange(
            self._head(request.path, len(request.body)), more.encode("ascii"), request.body
        )
        self._asked[connection] = exchange
        self._resume(exchange)

    def _head(self, path: str, length: int) -> h11.Request:
        head = self._heads.get((path, length))
        if head is None:
            headers = [*self._headers, (b"Content-Length", str(length).encode())]
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            head = self._heads[path, length] = h11.Request(
                method=b"POST", target=self._targets[path], headers=headers
            )
        return head

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
        except Exception as fault:  # noqa: BLE001 - of ours, or of a package below: it ends no other request
            log_safely(logging.ERROR, "a request failed unexpectedly", exc_info=True)
            self._settle(exchange, NoAnswer(type(fault).__name__, reached=True))
        else:
            self._await(exchange, wait)

    def _await(self, exchange: _Exchange, wait: Wait) -> None:
        exchange.wait = wait
        exchange.due = exchange.deadline
        if wait.share < 1:
            exchange.due -= (exchange.deadline - self._clock()) * (1 - wait.share)
        if wait.descriptor >= 0:
            self._watch(exchange.connection, wait.events)

    def _watch(self, connection: Connection, events: int) -> None:
        watched = self._watched.get(connection)
        if watched is not None and watched.socket is not connection.socket:
            self._ignore(connection)  # the next address of its host
            watched = None
        if connection.socket is None or (watched is not None and watched.events == events):
            return
        if watched is None:
            self._selector.register(connection.socket, events, connection)
        else:
            self._selector.modify(connection.socket, events, connection)
        self._watched[connection] = _Watched(connection.socket, events)

    def _ignore(self, connection: Connection) -> None:
        watched = self._watched.pop(connection, None)
        if watched is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(watched.socket)

    def _drop(self, connection: Connection) -> None:
        self._ignore(connection)
        connection.close()

    def _fail(self, exchange: _Exchange, failure: BaseException) -> None:
        connection = exchange.connection
        if not connection.is_fresh and not connection.has_begun_answer and self._clock() < exchange.deadline:
            # The server closed the idle connection just as we used it: that says nothing about its health.
            del self._asked[connection]
            self._drop(connection)
            exchange.wait = _NOTHING
            exchange.is_repeated = True
            exchange.connection = self._new_connection(connection.route)
            self._begin(exchange)
            return
        self._settle(exchange, NoAnswer(describe(failure), reached=connection.is_reached))

    def _settle(self, exchange: _Exchange, result: Answer | NoAnswer) -> None:
        connection = exchange.connection
        del self._asked[connection]
        if isinstance(result, Answer) and connection.is_reusable:
            connection.renew()
            self._watch(connection, selectors.EVENT_READ)
            self._idle[connection] = self._clock()
        else:
            self._drop(connection)
        if exchange.is_repeated and isinstance(result, Answer):
            result = replace(result, repeated=True)
        self._over.append(Exchanged(exchange.token, result, connection))

    # Waiting

    def _turn(self, until: float) -> None:
        timeout = max(until - self._clock(), 0.0)
        ready = self._selector.select(None if timeout == math.inf else timeout)
        if self._is_forgotten:
            raise ConnectionAbortedError("this process has been forked")
        for key, _ in ready:
            if key.data is None:
                self._drain()
            elif key.data in self._asked:
                self._resume(self._asked[key.data])
            elif key.data in self._idle and key.data.is_stale():
                del self._idle[key.data]
                self._drop(key.data)
        now = self._clock()
        for exchange in [each for each in self._asked.values() if each.due <= now]:
            self._resume(exchange, TimeoutError() if exchange.deadline <= now else None)
        self._close_old(now)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4_096)
        for exchange in [each for each in self._asked.values() if each.wait.descriptor < 0]:
            self._resume(exchange)

    def _close_old(self, now: float) -> None:
        while self._idle:
            oldest = next(iter(self._idle))
            if self._idle[oldest] + _IDLE_SECONDS >= now:
                return
            del self._idle[oldest]
            self._drop(oldest)

    # Connections

    def _connection(self, route: Route, connected_since: float) -> Connection:
        while self._idle:
            connection, _ = self._idle.popitem()
            is_young = connection.connected_at >= connected_since
            # `wait` sees what the sockets hold, but not what TLS has read ahead.
            if is_young and (self._endpoint.scheme == "http" or not connection.is_stale()):
                return connection
            self._drop(connection)
        return self._new_connection(route)

    def _new_connection(self, route: Route) -> Connection:
        return Connection(route, self._addresses, self._time_left, self._clock())

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
            _tls_context(self._tls) if self._endpoint.scheme == "https" else None,
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


def prepare_tls(endpoint: str, files: TlsFiles = TlsFiles()) -> None:  # noqa: B008 - a tuple
    """Load the certificates that an endpoint needs now, on the thread that configures.

    On a sending thread a fork could meet it: OpenSSL's locks, held in that moment, stay held in the child.
    What is wrong with the system's certificates is said by the first request.

    Raises:
        ConfigError: A file that is named cannot be used.
    """
    if files.client_key is not None and files.client_certificate is None:
        raise ConfigError("client_key: is of no use without client_certificate; give both.")
    _try_tls("certificate", files._replace(client_certificate=None))
    _try_tls("client_certificate", files._replace(certificate=None))
    url = httpx.URL(endpoint)
    with suppress(*_FAILURES):
        if url.scheme == "https":
            _tls_context(files)
    with suppress(*_FAILURES):
        proxy = _proxy_for(url)
        if proxy is not None and proxy.url.scheme == "https":
            _proxy_tls_context()


def _try_tls(option: str, files: TlsFiles) -> None:
    path = getattr(files, option)
    if path is None:
        return
    try:
        _tls_context(files)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{option}={path!r}: cannot be used ({describe(error)}). Name a PEM file that this process may"
            " read; its private key, there or in client_key, must not be encrypted."
        ) from None


@lru_cache(maxsize=8)
def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Load the certificates once: it takes tens of milliseconds, and honours SSL_CERT_FILE."""
    if files.certificate is None:
        context = httpx.create_ssl_context()
    else:
        context = ssl.create_default_context(cafile=files.certificate)
    if files.client_certificate is not None:
        # An empty password, since OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.client_certificate, files.client_key, password=lambda: "")
    return context


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
