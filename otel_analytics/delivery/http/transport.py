"""A request to the collector and back; the only module that imports httpx.

httpcore, which comes with httpx, is used without httpx's client: no INFO line for each request, no redirects
followed, no cookies kept, and a fraction of the time. A transport belongs to one thread and holds one
keep-alive connection. Failures are values.

All of a request has one deadline. httpcore's timeouts begin anew with each operation, so an answer that drips
in, or comes fast but never ends, would outlive them. Hence httpcore gets its connections from here, TLS
included, which in a proxy's tunnel it would otherwise put on top of them.
"""

from __future__ import annotations

import math
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import httpcore
import httpx

from otel_analytics.contract import PATHS, WRITE_KEY
from otel_analytics.delivery.http.wire import Answer, NoAnswer, Request
from otel_analytics.errors import ConfigError

T = TypeVar("T")
_MAX_ANSWER_BYTES = 1_000_000  # an acknowledgement that lists every event of a batch is far below that
_KEEP_ALIVE_SECONDS = 30.0
_MOST_AGE_SECONDS = (
    60.0  # as long as load balancers ask for by DNS; what is added or taken away is then noticed
)
_CHUNK = 262_144
# What ends a head, and a body in chunks; at the very start, after a line that was handed out before.
_BLANK_LINE = re.compile(rb"\A\r?\n|\n\r?\n")
_RECORD = 16_384  # the most that TLS encrypts at once
_UNREACHED = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpx.InvalidURL,
    OSError,
    RuntimeError,
    ValueError,
)


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


class Transport:
    """One connection to the collector.

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
        self._urls = {path: _httpcore_url(httpx.URL(endpoint + path)) for path in PATHS.values()}
        self._own_headers = {**headers, **({WRITE_KEY: write_key} if write_key else {})}
        self._tls = tls
        self._network = _Network(clock)
        self._pool: httpcore.ConnectionPool | None = None

    def send(self, request: Request, timeout: float, connected_since: float = -math.inf) -> Answer | NoAnswer:
        """Send a request and wait for the answer.

        Args:
            request: The request.
            timeout: Most seconds for all of it, connecting included.
            connected_since: A connection made before that is not used again (monotonic seconds).
        """
        if not self._network.has_connected_since(connected_since):
            self.close()
        self._network.begin(timeout)
        result = self._attempt(request)
        if isinstance(result, NoAnswer) and result.reached and self._network.may_try_again():
            # The server closed the idle connection just as we used it: that says nothing about its health.
            result = self._attempt(request)
            if isinstance(result, Answer):
                return replace(result, repeated=True)
        return result

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def forget(self) -> None:
        """Let go of the socket in a forked child: it is the parent's, which keeps it."""
        self._network.forget()

    def _attempt(self, request: Request) -> Answer | NoAnswer:
        try:
            self._pool = self._pool or _pool_for(self._endpoint, self._network, self._tls)
        except _FAILURES as error:  # bad certificates, or a bad proxy
            return NoAnswer(_describe(error), reached=False)
        try:
            response = self._pool.handle_request(self._outgoing(request))
            try:
                return self._answer(response)
            finally:
                response.close()
        except (httpcore.TimeoutException, TimeoutError) as error:
            reached = not isinstance(error, _UNREACHED)
            return NoAnswer("no answer in time" if reached else "no connection in time", reached=reached)
        except _FAILURES as error:
            return NoAnswer(_describe(error), reached=not isinstance(error, _UNREACHED))
        except Exception as error:
            if not isinstance(self._pool, httpcore.SOCKSProxy):
                raise
            # The package for SOCKS has errors of its own.
            return NoAnswer(f"SOCKS proxy: {_describe(error)}", reached=False)

    def _outgoing(self, request: Request) -> httpcore.Request:
        headers = {
            "Host": self._endpoint.netloc.decode("ascii"),
            **request.headers,
            **self._own_headers,
            "Content-Length": str(len(request.body)),
        }
        return httpcore.Request(
            "POST",
            self._urls[request.path],
            headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
            content=self._chunks(request.body),
            extensions={"timeout": {"pool": self._network.time_left()}},  # all else asks for itself
        )

    def _chunks(self, body: bytes) -> Iterator[bytes]:
        self._network.stream.expect_answer()  # the request's head is sent: what a proxy had to say was read
        for start in range(0, len(body), _CHUNK):
            yield body[start : start + _CHUNK]

    def _answer(self, response: httpcore.Response) -> Answer:
        stream = self._network.stream
        before = stream.handed_out
        headers = dict(httpx.Headers(response.headers))
        body = self._read(response)
        if "transfer-encoding" not in headers:
            stream.is_spoilt = stream.handed_out - before != len(body)
        return Answer(response.status, headers, body)

    def _read(self, response: httpcore.Response) -> bytes:
        """Read the body as far as it can matter; the rest stays unread and the connection is closed."""
        body = bytearray()
        for chunk in response.iter_stream():
            self._network.time_left()  # many chunks may come with one read
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES:
                break
        return bytes(body)


class _Network(httpcore.NetworkBackend):
    """The sockets of one transport, and how long they may take.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline = 0.0
        self._connected_at = -math.inf
        self._is_fresh = self._is_forgotten = False
        self._socket: socket.socket | None = None
        self.stream: _Stream  # the newest

    def begin(self, seconds: float) -> None:
        """Begin a request that may take so long."""
        self._deadline = self._clock() + seconds
        self._is_fresh = False

    def has_connected_since(self, moment: float) -> bool:
        """Return whether the connection is from after a moment, and not old anyway."""
        return self._connected_at >= max(moment, self._clock() - _MOST_AGE_SECONDS)

    def may_try_again(self) -> bool:
        """Return whether what failed was an earlier request's connection, and there is time for another."""
        return not self._is_fresh and self._clock() < self._deadline

    def time_left(self) -> float:
        """Return the seconds until the deadline; asked before anything that may wait, or repeat without end.

        Raises:
            TimeoutError: There are none left.
            ConnectionAbortedError: This process is a forked child, and the socket its parent's.
        """
        if self._is_forgotten:
            raise ConnectionAbortedError("this process has been forked")
        left = self._deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def forget(self) -> None:
        """See `Transport.forget`."""
        self._is_forgotten = True
        descriptor = -1 if self._socket is None else self._socket.fileno()
        if descriptor >= 0:
            # Not closed: gevent would take it off the event loop, which right after a fork is the parent's.
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, descriptor, inheritable=False)
            os.close(nothing)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - httpcore's signature
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Connect to a host or proxy."""
        with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
            self._socket = self._connected(host, port)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_fresh = True
        self._connected_at = self._clock()
        return self.stream_over(_Plain(self._socket, self.time_left))

    def stream_over(self, link: _Link) -> _Stream:
        """Return, and note, the newest stream."""
        self.stream = _Stream(link, self)
        return self.stream

    def _connected(self, host: str, port: int) -> socket.socket:
        """Try a host's addresses, each for its share of the time: a dead one must not use up the others'."""
        *others, last = (info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        for number, other in enumerate(others):
            with suppress(OSError):
                share = self.time_left() / (len(others) - number + 1)
                return socket.create_connection((str(other), port), share)
        return socket.create_connection((str(last), port), self.time_left())


class _Link(Protocol):
    """Bytes to and from a peer, within the time left."""

    def receive(self, size: int, *, wait: bool = True) -> bytes:
        """Return some bytes; none where the peer sends no more.

        Raises:
            BlockingIOError: There are none yet, and it was not to wait.
        """

    def send(self, data: bytes) -> None:
        """Send all bytes."""

    def close(self) -> None:
        """Close the socket."""


class _Plain:
    """A socket.

    Args:
        connected: The socket.
        time_left: Seconds it may wait, asked before each wait.
    """

    def __init__(self, connected: socket.socket, time_left: Callable[[], float]) -> None:
        self._socket = connected
        self._time_left = time_left

    def receive(self, size: int, *, wait: bool = True) -> bytes:
        self._socket.settimeout(self._time_left() if wait else 0.0)
        return self._socket.recv(size)

    def send(self, data: bytes) -> None:
        unsent = memoryview(data)
        while unsent:
            self._socket.settimeout(self._time_left())
            unsent = unsent[self._socket.send(unsent) :]

    def close(self) -> None:
        self._socket.close()


class _Encrypted:
    """TLS over another link, which may be TLS itself.

    Done in memory, so that every wait is the other link's: a TLS socket's own begin anew with each byte where
    gevent has patched it, and there is no TLS socket over another.
    """

    def __init__(self, link: _Link, context: ssl.SSLContext, host: str | None) -> None:
        self._link = link
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._perform(self.tls.do_handshake)

    def receive(self, size: int, *, wait: bool = True) -> bytes:
        try:
            return self._perform(lambda: self.tls.read(size), wait=wait)
        except ssl.SSLEOFError:  # the connection was closed without saying so in TLS, as many servers do
            return b""

    def send(self, data: bytes) -> None:
        self._perform(lambda: self.tls.write(data))

    def close(self) -> None:
        self._link.close()

    def _perform(self, operation: Callable[[], T], *, wait: bool = True) -> T:
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                pass
            finally:
                self._link.send(self._outgoing.read())
            received = self._link.receive(_RECORD, wait=wait)
            if received:
                self._incoming.write(received)
            else:
                self._incoming.write_eof()


class _Stream(httpcore.NetworkStream):
    """A link as httpcore wants it; the timeouts it is given are not needed.

    An answer is handed out in pieces that end wherever it may end, but for a body whose length is known. So
    what comes after an answer is still here, or was counted: in httpcore it would wait unseen for the next
    request, and answer it.
    """

    def __init__(self, link: _Link, network: _Network) -> None:
        self._link = link
        self._network = network
        self._ahead = b""
        self._expects_answer = False
        self.handed_out = 0
        self.is_spoilt = False

    def expect_answer(self) -> None:
        """Hand out pieces from now on: what a SOCKS proxy says must stay whole."""
        self._expects_answer = True

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        with _raising(httpcore.ReadTimeout, httpcore.ReadError):
            self._network.time_left()
            self._ahead = self._ahead or self._link.receive(max_bytes)
        blank_line = _BLANK_LINE.search(self._ahead) if self._expects_answer else None
        end = blank_line.end() if blank_line else len(self._ahead)
        piece, self._ahead = self._ahead[:end], self._ahead[end:]
        self.handed_out += len(piece)
        return piece

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        with _raising(httpcore.WriteTimeout, httpcore.WriteError):
            self._link.send(buffer)

    def close(self) -> None:
        self._link.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        try:
            with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
                return self._network.stream_over(_Encrypted(self._link, ssl_context, server_hostname))
        except BaseException:
            self.close()  # nobody else would
            raise

    def get_extra_info(self, info: str) -> Any:
        """Answer what httpcore asks."""
        if info == "ssl_object" and isinstance(self._link, _Encrypted):
            return self._link.tls
        return self._is_readable() if info == "is_readable" else None

    def _is_readable(self) -> bool:
        """Return whether an idle connection has ended, or has bytes nobody asked for; may take one of them.

        httpcore asks before it keeps a connection and before it uses it again, and closes it if so.
        """
        if self.is_spoilt or self._ahead:
            return True
        try:
            self._link.receive(1, wait=False)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


@contextmanager
def _raising(in_time: type[Exception], otherwise: type[Exception]) -> Iterator[None]:
    """Raise httpcore's exceptions in place of a socket's."""
    try:
        yield
    except TimeoutError as error:
        raise in_time(error) from error
    except OSError as error:
        raise otherwise(error) from error


def _import_everything() -> None:
    """Have the codec of host names imported now, not at the first request.

    That would be on a sending thread, and a fork while a thread imports leaves the child a half-made module.
    """
    "localhost".encode("idna")


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
    with suppress(*_FAILURES):
        _pool_for(httpx.URL(endpoint), _Network(time.monotonic), files)


def _try_tls(option: str, files: TlsFiles) -> None:
    path = getattr(files, option)
    if path is None:
        return
    try:
        _tls_context(files)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{option}={path!r}: cannot be used ({_describe(error)}). Name a PEM file that this process may"
            " read; its private key, there or in client_key, must not be encrypted."
        ) from None


def _httpcore_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _pool_for(endpoint: httpx.URL, network: _Network, tls: TlsFiles) -> httpcore.ConnectionPool:
    """Return an empty pool of one connection, through the proxy that the environment names, if any."""
    options: dict[str, Any] = {
        "ssl_context": _tls_context(tls) if endpoint.scheme == "https" else None,
        "max_connections": 1,
        "keepalive_expiry": _KEEP_ALIVE_SECONDS,
        "network_backend": network,
    }
    proxy = _proxy_for(endpoint)
    if proxy is None:
        return httpcore.ConnectionPool(**options)
    options.update(proxy_url=_httpcore_url(proxy.url), proxy_auth=proxy.raw_auth)
    if proxy.url.scheme.startswith("socks"):
        return _through_socks(options)
    if proxy.url.scheme == "https":
        options["proxy_ssl_context"] = _proxy_tls_context()
    return httpcore.HTTPProxy(**options)


def _through_socks(options: dict[str, Any]) -> httpcore.ConnectionPool:
    try:
        return httpcore.SOCKSProxy(**options)
    except RuntimeError as error:
        raise httpcore.ProxyError("a SOCKS proxy takes a package: pip install 'httpx[socks]'") from error


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
