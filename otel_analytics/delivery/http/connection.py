"""One connection to the collector, as far as it goes without waiting.

Whatever may have to wait is a generator: it yields a `Wait` and is resumed once that is over, or a
`TimeoutError` is thrown into it. So one thread drives many connections, and every wait of a request - for a
name, an address, a proxy, TLS, an answer that drips in - ends at the request's one deadline.

Names, proxies and TLS are configured as httpx does it; the protocol is h11's, SOCKS that of `socksio`, which
come with it.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

import h11
import httpx

from otel_analytics.delivery.http.wire import Answer

T = TypeVar("T")
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_MAX_ANSWER_BYTES = 1_000_000  # an acknowledgement that lists every event of a batch is far below that
_MOST_INTERIM_BYTES = 64_000
_CHUNK = 262_144
_LINE_END = b"\r\n"


class Wait(NamedTuple):
    """What a generator waits for.

    Args:
        descriptor: The socket's; -1 where somebody says when it is over.
        events: `READ` or `WRITE`.
        share: Which part of the time left it may take; after that it is resumed all the same.
    """

    descriptor: int
    events: int = READ
    share: float = 1.0


Waiting = Generator[Wait, None, T]


class Addresses(Protocol):
    """Looks up names."""

    def of(self, host: str, port: int) -> Waiting[Sequence[Any]]:
        """Return what `socket.getaddrinfo` does."""


class Route(NamedTuple):
    """How the collector is reached.

    Args:
        endpoint: Its base URL.
        proxy: What stands before it.
        context: For TLS with the collector.
        proxy_context: For TLS with the proxy.
    """

    endpoint: httpx.URL
    proxy: httpx.Proxy | None = None
    context: ssl.SSLContext | None = None
    proxy_context: ssl.SSLContext | None = None

    @property
    def is_forwarded(self) -> bool:
        """Whether a proxy is given the requests themselves, rather than a tunnel's bytes."""
        return self.proxy is not None and self.proxy.url.scheme in _HTTP and self.endpoint.scheme == "http"


_HTTP = frozenset({"http", "https"})
_DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class UnreachableError(OSError):
    """There is no connection over which the collector could have had the request."""


class ProxyError(OSError):
    """A proxy does not do what it is there for."""


class Connection:
    """A connection that is used for one request at a time.

    Args:
        route: Where it goes.
        addresses: Looks up names.
        time_left: Says how many seconds its request still has; raises `TimeoutError` where it has none.
        connected_at: Now, monotonic seconds.
    """

    def __init__(
        self, route: Route, addresses: Addresses, time_left: Callable[[], float], connected_at: float
    ) -> None:
        self.route = route
        self.connected_at = connected_at
        self.time_left = time_left
        self.socket: socket.socket | None = None
        self.is_reached = False  # whether the collector may have had something of a request
        self.is_fresh = True  # no request has been answered over it
        self.has_begun_answer = False
        self._addresses = addresses
        self._link: _Link = _Nowhere()
        self._http = h11.Connection(h11.CLIENT, _MOST_INTERIM_BYTES)

    def exchange(self, head: h11.Request, more: bytes, body: bytes) -> Waiting[Answer]:
        """Send a request and return the answer to it.

        Args:
            head: What many requests have in common; one object for all of them, since h11's look at each
                header costs more than all else.
            more: Further lines of the head, each with its end.
            body: The body.

        Raises:
            UnreachableError: The collector has had nothing of it.
            TimeoutError: It took too long.
            OSError: The connection broke.
            h11.RemoteProtocolError: What came is no answer.
        """
        if not self.is_reached:
            self._link = yield from self._connected()
            self.is_reached = True
        self.has_begun_answer = False
        # A request may be refused in the middle: then there is an answer all the same.
        with suppress(ConnectionError, ssl.SSLError):
            yield from self._send(head, more, body)
        return (yield from self._answer())

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow: all was said, and nothing beyond it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        return self._http.trailing_data == (b"", False)

    def is_stale(self) -> bool:
        """Whether an idle connection has ended, or has bytes that nobody asked for."""
        try:
            next(self._link.receive())
        except StopIteration:  # it has something to read, be it the end
            return True
        except OSError:
            return True
        return False

    def renew(self) -> None:
        """Make ready for the next request."""
        self._http.start_next_cycle()
        self.is_fresh = False

    def close(self) -> None:
        """Close the socket."""
        if self.socket is not None:
            self.socket.close()

    # One request

    def _send(self, head: h11.Request, more: bytes, body: bytes) -> Waiting[None]:
        start = self._http.send(head) or b""
        rest = self._http.send(h11.Data(data=body)) or b""
        self._http.send(h11.EndOfMessage())
        data = start[: -len(_LINE_END)] + more + _LINE_END + rest
        for begin in range(0, len(data), _CHUNK):
            yield from self._link.send(data[begin : begin + _CHUNK])
        if self.socket is not None:
            yield Wait(self.socket.fileno())  # no answer can be here yet

    def _answer(self) -> Waiting[Answer]:
        response: h11.Response | None = None
        body = bytearray()
        while True:
            event = yield from self._event()
            if isinstance(event, h11.Response):
                response = event
                self.has_begun_answer = True
            elif isinstance(event, h11.Data):
                body += event.data
            is_over = isinstance(event, h11.EndOfMessage) or len(body) > _MAX_ANSWER_BYTES
            if response is not None and is_over:
                return Answer(response.status_code, _headers_of(response), bytes(body))

    def _event(self) -> Waiting[Any]:
        while True:
            self.time_left()  # many may come with one read
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data((yield from self._link.receive()))
            elif isinstance(event, (h11.ConnectionClosed, type(h11.PAUSED))):
                raise ConnectionError("the connection was closed without an answer")
            else:
                return event

    # Connecting

    def _connected(self) -> Waiting[_Link]:
        endpoint, proxy = self.route.endpoint, self.route.proxy
        try:
            link: _Link = _Plain((yield from self._dialled(proxy.url if proxy else endpoint)))
            if proxy is not None:
                link = yield from self._through(proxy, link)
            if self.route.context is not None:
                link = yield from _encrypted(link, self.route.context, _host_of(endpoint))
        except TimeoutError:
            raise
        except (OSError, h11.RemoteProtocolError) as error:
            raise UnreachableError(describe(error)) from error
        return link

    def _dialled(self, url: httpx.URL) -> Waiting[socket.socket]:
        """Try a host's addresses, each for its share of the time: a dead one must not use up the others'."""
        found = yield from self._addresses.of(_host_of(url), _port_of(url))
        failure: OSError = OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(found):
            self.socket = socket.socket(family, kind, protocol)
            self.socket.settimeout(0)
            try:
                yield from _connect(self.socket, address, 1.0 / (len(found) - number))
            except TimeoutError:
                raise
            except OSError as error:
                self.socket.close()
                failure = error
            else:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self.socket
        raise failure

    def _through(self, proxy: httpx.Proxy, link: _Link) -> Waiting[_Link]:
        if proxy.url.scheme == "https" and self.route.proxy_context is not None:
            link = yield from _encrypted(link, self.route.proxy_context, _host_of(proxy.url))
        if proxy.url.scheme not in _HTTP:
            yield from _speak_socks(link, proxy, self.route.endpoint)
        elif not self.route.is_forwarded:
            yield from self._tunnel(proxy, link)
        return link

    def _tunnel(self, proxy: httpx.Proxy, link: _Link) -> Waiting[None]:
        """Ask a proxy for a tunnel (RFC 9110, section 9.3.6)."""
        endpoint, host = self.route.endpoint, _host_of(self.route.endpoint)
        target = f"[{host}]:{_port_of(endpoint)}" if ":" in host else f"{host}:{_port_of(endpoint)}"
        headers = [("Host", target), ("Accept", "*/*"), *proxy_headers(proxy)]
        asking = h11.Connection(h11.CLIENT, _MOST_INTERIM_BYTES)
        asked = h11.Request(method="CONNECT", target=target, headers=headers)
        yield from link.send(asking.send(asked) or b"")
        while True:
            self.time_left()
            event = asking.next_event()
            if event is h11.NEED_DATA:
                asking.receive_data((yield from link.receive()))
            elif isinstance(event, h11.Response):
                if event.status_code not in range(200, 300):
                    raise ProxyError(f"the proxy answered {event.status_code}")
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise ProxyError("the proxy closed the connection")


def _host_of(url: httpx.URL) -> str:
    """Return a host as it is looked up and certified: Python would encode `url.host` in another way."""
    return url.raw_host.decode("ascii")


def _port_of(url: httpx.URL) -> int:
    return url.port or _DEFAULT_PORTS[url.scheme]


def _headers_of(response: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def proxy_headers(proxy: httpx.Proxy) -> list[tuple[str, str]]:
    """Return what a proxy is told beside the request."""
    return [*proxy.headers.items(), *_authorization(proxy)]


def _authorization(proxy: httpx.Proxy) -> list[tuple[str, str]]:
    if proxy.raw_auth is None:
        return []
    asked = httpx.Request("GET", "http://proxy")
    said = next(httpx.BasicAuth(*proxy.raw_auth).auth_flow(asked)).headers["Authorization"]
    return [("Proxy-Authorization", said)]


def describe(error: BaseException) -> str:
    """Say an error in a line; the operating system's as it says it, without type and number."""
    if (
        isinstance(error, OSError)
        and error.strerror
        and not (error.filename or isinstance(error, ssl.SSLError))
    ):
        return error.strerror[:1].lower() + error.strerror[1:]
    text = " ".join(str(error).split())[:200]
    name = "" if isinstance(error, UnreachableError) else type(error).__name__
    return ": ".join(filter(None, (name, text)))


def _connect(connecting: socket.socket, address: Any, share: float) -> Waiting[None]:
    try:
        connecting.connect(address)
    except BlockingIOError:
        yield Wait(connecting.fileno(), WRITE, share)
        failed = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed)) from None
        try:
            connecting.getpeername()
        except OSError:
            raise ConnectionError("no connection in time") from None


def _speak_socks(link: _Link, proxy: httpx.Proxy, endpoint: httpx.URL) -> Waiting[None]:
    """Ask a SOCKS proxy for a connection (RFC 1928, RFC 1929)."""
    from socksio import SOCKSError, socks5  # noqa: PLC0415 - an extra of httpx

    speaking = socks5.SOCKS5Connection()
    method = socks5.SOCKS5AuthMethod
    wanted = method.NO_AUTH_REQUIRED if proxy.raw_auth is None else method.USERNAME_PASSWORD

    def ask(question: Any) -> Waiting[Any]:
        speaking.send(question)
        yield from link.send(speaking.data_to_send())
        return speaking.receive_data((yield from link.receive()))

    try:
        granted = yield from ask(socks5.SOCKS5AuthMethodsRequest([wanted]))
        if granted.method != wanted:
            raise ProxyError("the SOCKS proxy wants to be asked in another way")
        if proxy.raw_auth is not None:
            reply = yield from ask(socks5.SOCKS5UsernamePasswordRequest(*proxy.raw_auth))
            if not reply.success:
                raise ProxyError("the SOCKS proxy takes no such user and password")
        where = endpoint.raw_host, _port_of(endpoint)
        reply = yield from ask(socks5.SOCKS5CommandRequest.from_address(socks5.SOCKS5Command.CONNECT, where))
        if reply.reply_code != socks5.SOCKS5ReplyCode.SUCCEEDED:
            raise ProxyError(f"the SOCKS proxy answered {reply.reply_code}")
    except (SOCKSError, AttributeError, ValueError) as error:
        raise ProxyError(f"no answer of a SOCKS proxy: {type(error).__name__}") from error


class _Link(Protocol):
    """Bytes to and from a peer."""

    def receive(self) -> Waiting[bytes]:
        """Return some bytes; none where the peer sends no more."""

    def send(self, data: bytes) -> Waiting[None]:
        """Send all bytes."""


class _Nowhere:
    """Where there is no connection yet."""

    def receive(self) -> Waiting[bytes]:
        raise NotImplementedError

    def send(self, data: bytes) -> Waiting[None]:
        raise NotImplementedError


class _Plain:
    """A socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def receive(self) -> Waiting[bytes]:
        while True:
            with suppress(BlockingIOError):
                return self._socket.recv(65_536)
            yield Wait(self._socket.fileno(), READ)

    def send(self, data: bytes) -> Waiting[None]:
        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[self._socket.send(unsent) :]
            except BlockingIOError:  # noqa: PERF203 - a step of each wait
                yield Wait(self._socket.fileno(), WRITE)


class _Encrypted:
    """TLS over another link, which may be TLS itself.

    Done in memory, so that every wait is the other link's; and there is no TLS socket over another.
    """

    def __init__(self, link: _Link, context: ssl.SSLContext, host: str | None) -> None:
        self._link = link
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def handshake(self) -> Waiting[None]:
        yield from self._perform(self._tls.do_handshake)

    def receive(self) -> Waiting[bytes]:
        try:
            return (yield from self._perform(lambda: self._tls.read(65_536)))
        except ssl.SSLEOFError:  # the connection was closed without saying so in TLS, as many servers do
            return b""

    def send(self, data: bytes) -> Waiting[None]:
        yield from self._perform(lambda: self._tls.write(data))

    def _perform(self, operation: Callable[[], T]) -> Waiting[T]:
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:  # noqa: PERF203 - as above
                yield from self._flush()
                received = yield from self._link.receive()
                if received:
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                yield from self._flush()  # the alert that says why
                raise
            else:
                yield from self._flush()
                return result

    def _flush(self) -> Waiting[None]:
        if self._outgoing.pending:
            yield from self._link.send(self._outgoing.read())


def _encrypted(link: _Link, context: ssl.SSLContext, host: str) -> Waiting[_Link]:
    encrypted = _Encrypted(link, context, host)
    yield from encrypted.handshake()
    return encrypted
