"""What a peer or a proxy may do to a connection: a request ends in time, and only its own answer counts."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme
from conftest import QuickClient
from driving import send, track, within

from otel_analytics import AnalyticsClient
from otel_analytics.delivery.http import transport
from otel_analytics.delivery.http.transport import Transport
from otel_analytics.delivery.http.wire import Answer, NoAnswer, Request
from otel_analytics.testing import Behaviour, FaultyCollector, Hang, SlowDrip

_SECONDS = 0.4
_BUSY = 0.8  # this process also plays the peer, which at times sends as fast as it can
_VIEW = "/analytics/track/view"
_REQUEST = Request(_VIEW, {}, b"{}")
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n"),
    "tiny chunks": (_CHUNKED, b"1\r\n \r\n"),
    "chunk extensions": (_CHUNKED, b"1" + b";x" * 5_000 + b"\r\n \r\n"),
    "chunks of blank lines": (_CHUNKED, b"2\r\n\n\n\r\n"),
}

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_ANSWERS = {
    "body": _ANSWER,
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "empty body": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "blank lines": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\n\r\n\n{}\n",
    "after interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
    + _ANSWER,
    "chunks": _CHUNKED + b"2;x=y\r\nok\r\n0\r\n\r\n",
    "chunks of blank lines": _CHUNKED + b"4\r\n\n\r\n\n\r\n3\r\n{}\n\r\n0\r\n\r\n",
    "chunks and trailers": _CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\nC: d\r\n\r\n",
}
_EXTRAS = {
    "answer": _ANSWER,
    "part of an answer": _ANSWER[:20],
    "interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "blank line": b"\r\n",
    "byte": b"x",
}

Talk = Callable[[socket.socket], None]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("begin", "forever"), _ENDLESS.values(), ids=_ENDLESS)
def test_a_fast_answer_without_end_is_given_up_in_time(
    server_context: ssl.SSLContext, scheme: str, begin: bytes, forever: bytes
) -> None:
    def talk(sock: socket.socket) -> None:
        _request_of(sock)
        sock.sendall(begin)
        while True:
            sock.sendall(forever * 500)

    with _peer(talk, server_context if scheme == "https" else None) as port:
        result = _sent_in_time(f"{scheme}://127.0.0.1:{port}")
    assert result == NoAnswer("no answer in time", reached=True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_peer_that_reads_slowly_is_given_up_in_time(server_context: ssl.SSLContext, scheme: str) -> None:
    def talk(sock: socket.socket) -> None:
        while sock.recv(16_384):
            time.sleep(0.02)

    request = Request(_VIEW, {}, os.urandom(16_000_000))
    with _peer(talk, server_context if scheme == "https" else None) as port:
        result = _sent_in_time(f"{scheme}://127.0.0.1:{port}", request)
    assert result == NoAnswer("no answer in time", reached=True)


def test_a_dead_address_of_a_host_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a name has an IPv6 address that nothing answers at."""
    real = socket.getaddrinfo

    def two(host: str, port: int, *args: int, **options: int) -> list[object]:
        hosts = ["127.0.0.2", "127.0.0.1"] if host == "two-faced.test" else [host]
        return [info for each in hosts for info in real(each, port, *args, **options)]

    with FaultyCollector() as collector:
        port = int(collector.url.rpartition(":")[2])
        with socket.create_server(("127.0.0.2", port), backlog=0) as dead, contextlib.ExitStack() as stack:
            for _ in range(3):  # its queue is full: a further connection is not even refused
                sock = stack.enter_context(socket.socket())
                sock.settimeout(0)
                sock.connect_ex(dead.getsockname())
            monkeypatch.setattr(socket, "getaddrinfo", two)
            monkeypatch.setenv("NO_PROXY", "*")
            result = _sent_in_time(f"http://two-faced.test:{port}")
    assert isinstance(result, Answer)
    assert len(collector.requests) == 1


def test_a_name_that_is_looked_up_for_long_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up cannot be ended: it is left alone, and a later request takes what it found."""
    real, looked_up = socket.getaddrinfo, threading.Event()

    def slow(host: str, port: int, **options: int) -> Sequence[object]:
        if host != "slow.test":
            return real(host, port, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        looked_up.wait(10)
        return real("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setenv("NO_PROXY", "*")
    with FaultyCollector() as collector:
        sending = Transport(f"http://slow.test:{collector.url.rpartition(':')[2]}", None)
        result = within(_SECONDS + _BUSY, lambda: send(sending, _REQUEST, _SECONDS))
        assert result == NoAnswer("no connection in time", reached=False)
        looked_up.set()
        assert isinstance(send(sending, _REQUEST, 5), Answer)
        sending.close()


def test_a_host_is_looked_up_by_the_name_that_its_url_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """By IDNA 2008 as in the URL and the `Host`; Python's own encoding makes another host of an eszett."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **options: int) -> Sequence[object]:
        asked.append(host)
        return real("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("NO_PROXY", "*")
    with FaultyCollector() as collector:
        sending = Transport(f"http://stra\xdfe.test:{collector.url.rpartition(':')[2]}", None)
        assert isinstance(send(sending, _REQUEST, 5), Answer)
        sending.close()
        (request,) = collector.requests
    assert set(asked) == {"xn--strae-oqa.test"}
    assert request.headers["host"].startswith("xn--strae-oqa.test:")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_a_tunnel_to_an_ipv6_address_is_asked_for_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9112, section 3.2.3: an authority, whose IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    heads: list[bytes] = []

    def talk(client: socket.socket) -> None:
        heads.append(_request_of(client))
        client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with _peer(talk) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        result = _sent_in_time("https://[::1]:9")
    assert result == NoAnswer("ProxyError: the proxy answered 403", reached=False)
    assert heads[0].startswith(b"CONNECT [::1]:9 HTTP/1.1\r\n")


def test_requests_through_a_tunnel_share_a_connection(
    tunnel: list[bytes], server_context: ssl.SSLContext
) -> None:
    with FaultyCollector(ssl_context=server_context) as collector:
        sending = Transport(collector.url, "s3cret")
        results = [send(sending, _REQUEST, 5) for _ in range(3)]
        sending.close()
        assert [result.status for result in results if isinstance(result, Answer)] == [200] * 3
        assert collector.connections == 1
        address = collector.url.removeprefix("https://")
        assert {request.headers["host"] for request in collector.requests} == {address}
    (head,) = tunnel
    assert head.startswith(f"CONNECT {address} ".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in head  # user:pass
    assert b"s3cret" not in head


@pytest.mark.usefixtures("tunnel")
@pytest.mark.parametrize("breakage", [Hang(), SlowDrip("head"), SlowDrip("body")], ids=str)
def test_an_answer_that_drips_through_a_tunnel_is_given_up_in_time(
    server_context: ssl.SSLContext, breakage: Behaviour
) -> None:
    with FaultyCollector(then=breakage, ssl_context=server_context) as collector:
        assert _sent_in_time(collector.url) == NoAnswer("no answer in time", reached=True)
        assert len(collector.requests) == 1


@pytest.mark.usefixtures("tunnel")
def test_a_handshake_that_drips_through_a_tunnel_is_given_up_in_time() -> None:
    with _peer(_drip_handshake) as port:
        result = _sent_in_time(f"https://127.0.0.1:{port}")
    assert result == NoAnswer("no connection in time", reached=False)


@pytest.mark.parametrize("drips", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("extra", _EXTRAS.values(), ids=_EXTRAS)
@pytest.mark.parametrize("answer", _ANSWERS.values(), ids=_ANSWERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_comes_after_an_answer_answers_no_other_request(
    server_context: ssl.SSLContext, scheme: str, answer: bytes, extra: bytes, *, drips: bool
) -> None:
    sent = threading.Semaphore(0)

    def talk(sock: socket.socket) -> None:
        _request_of(sock)
        try:
            _send(sock, answer + extra, drips=drips)
        finally:
            sent.release()
        assert not sock.recv(1), "the connection was used again"

    with _peer(talk, server_context if scheme == "https" else None) as port:
        sending = Transport(f"{scheme}://127.0.0.1:{port}", None)
        for _ in range(3):
            result = send(sending, _REQUEST, 5)
            assert isinstance(result, Answer)
            assert result.status in {200, 204}
            assert sent.acquire(timeout=5)
        sending.close()


@pytest.mark.parametrize("drips", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("answer", _ANSWERS.values(), ids=_ANSWERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_whose_answers_are_whole_is_kept(
    server_context: ssl.SSLContext, scheme: str, answer: bytes, *, drips: bool
) -> None:
    connections = []

    def talk(sock: socket.socket) -> None:
        connections.append(sock)
        while True:
            _request_of(sock)
            _send(sock, answer, drips=drips)

    with _peer(talk, server_context if scheme == "https" else None) as port:
        sending = Transport(f"{scheme}://127.0.0.1:{port}", None)
        bodies = {result.body for _ in range(5) if isinstance(result := send(sending, _REQUEST, 5), Answer)}
        sending.close()
    assert bodies <= {b"", b"ok", b"\n\r\n\n{}\n"}
    assert len(bodies) == len(connections) == 1


def test_a_connection_does_not_grow_old() -> None:
    passed = 0.0
    with FaultyCollector() as collector:
        sending = Transport(collector.url, None, lambda: time.monotonic() + passed)
        for seconds, connections in [(0, 1), (25, 1), (25, 1), (25, 2), (35, 3)]:
            passed += seconds
            assert isinstance(send(sending, _REQUEST, 5), Answer)
            assert collector.connections == connections
        sending.close()


def test_a_connection_from_before_a_moment_is_not_used_again() -> None:
    with FaultyCollector() as collector:
        sending = Transport(collector.url, None)
        for _ in range(2):
            assert isinstance(send(sending, _REQUEST, 5, time.monotonic()), Answer)
        send(sending, _REQUEST, 5, time.monotonic() - 5)
        assert collector.connections == 2
        sending.close()


def test_an_answer_too_many_delivers_nothing(quick_client: QuickClient) -> None:
    """The second request is refused; an answer left over from the first would have had it delivered."""
    statuses = iter([b"200 OK", b"503 Busy", b"200 OK"])
    answer = b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n"
    requests = []

    def talk(sock: socket.socket) -> None:
        while True:
            requests.append(_request_of(sock))
            sock.sendall(answer % next(statuses) + answer % b"200 OK")

    with _peer(talk) as port:
        client = quick_client(f"http://127.0.0.1:{port}", max_connections=1)
        for count in (1, 2):
            track(client, 1)
            assert client.flush(3_000)
            assert client.stats().delivered == count
    assert len(requests) == 3


@pytest.mark.usefixtures("server_context")
def test_the_certificates_for_a_proxy_are_loaded_where_the_client_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a sending thread a fork could meet it, as with the collector's."""
    monkeypatch.setenv("ALL_PROXY", "https://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    AnalyticsClient("http://127.0.0.1:9").shutdown()
    assert transport._proxy_tls_context.cache_info().currsize == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        pytest.param(
            "socks5://127.0.0.1:9",
            "ProxyError: a SOCKS proxy takes a package: pip install 'httpx[socks]'",
            marks=pytest.mark.skipif(find_spec("socksio") is not None, reason="that package is installed"),
        ),
        ("ftp://127.0.0.1:9", "ValueError: Unknown scheme for proxy URL"),
        ("http://127.0.0.1:none", "InvalidURL: Invalid port"),
        ("http://user:s3cret@127.0.0.1:9", "connection refused"),
    ],
)
def test_a_proxy_that_cannot_be_used_keeps_the_events(
    quick_client: QuickClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scheme: str,
    proxy: str,
    reason: str,
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    result = send(Transport(f"{scheme}://127.0.0.1:9", None), _REQUEST, 1)
    assert isinstance(result, NoAnswer)
    assert not result.reached
    assert result.reason.startswith(reason)
    client = quick_client(f"{scheme}://127.0.0.1:9")
    track(client, 3)
    assert not client.flush(100)
    assert client.stats().pending == 3
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert reason in line
    assert "s3cret" not in line
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.skipif(find_spec("socksio") is None, reason="needs httpx[socks]")
@pytest.mark.parametrize("speaks_socks", [True, False])
def test_a_socks_proxy_is_used_and_its_nonsense_kept_from_the_log(
    monkeypatch: pytest.MonkeyPatch, *, speaks_socks: bool
) -> None:
    def talk(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"\x05\x00" if speaks_socks else b"HTTP/1.1 400 Bad Request\r\n\r\n")
        address = client.recv(100)[4:]
        where = socket.inet_ntoa(address[:4]), int.from_bytes(address[4:], "big")
        with socket.create_connection(where) as collector:
            client.sendall(b"\x05\x00\x00\x01" + b"\n" * 6)  # its own address: 10.10.10.10:2570
            _pass_on(client, collector)

    with _peer(talk) as port, FaultyCollector() as collector:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        sending = Transport(collector.url, None)
        for _ in range(2):
            result = send(sending, _REQUEST, 2)
            assert isinstance(result, Answer if speaks_socks else NoAnswer)
            if isinstance(result, NoAnswer):
                assert ("SOCKS proxy" in result.reason, result.reached) == (True, False)
        sending.close()
        assert collector.connections == speaks_socks


def _drip_handshake(sock: socket.socket) -> None:
    sock.recv(65_536)
    for byte in b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc" + b"\x00" * 1_000:  # a long ServerHello
        sock.sendall(bytes((byte,)))
        time.sleep(0.02)


def _sent_in_time(url: str, request: Request = _REQUEST) -> Answer | NoAnswer:
    sending = Transport(url, None)
    try:
        return within(_SECONDS + _BUSY, lambda: send(sending, request, _SECONDS))
    finally:
        sending.close()


def _send(sock: socket.socket, data: bytes, *, drips: bool) -> None:
    step = 1 if drips else len(data)
    for start in range(0, len(data), step):
        sock.sendall(data[start : start + step])


def _request_of(sock: socket.socket) -> bytes:
    """Read a request and return its head."""
    head, received = _until(sock, lambda data: b"\r\n\r\n" in data).split(b"\r\n\r\n")
    length = int((re.findall(rb"Content-Length: (\d+)", head) or [b"0"])[0])
    _until(sock, lambda data: len(data) >= length, received)
    return head


def _until(sock: socket.socket, done: Callable[[bytes], bool], received: bytes = b"") -> bytes:
    while not done(received):
        more = sock.recv(65_536)
        if not more:
            raise ConnectionError("the client is gone")
        received += more
    return received


@contextlib.contextmanager
def _peer(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve each connection with ``talk``; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve(sock: socket.socket) -> None:
            with contextlib.suppress(OSError), sock:
                if context is None:
                    talk(sock)
                else:
                    with context.wrap_socket(sock, server_side=True) as secured:
                        talk(secured)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=serve, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        stack.callback(thread.join, 5)
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield listener.getsockname()[1]


@pytest.fixture(params=["http", "https"])
def tunnel(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, server_context: ssl.SSLContext
) -> Iterator[list[bytes]]:
    """Reach collectors through a proxy; gives the heads of the requests the proxy gets."""
    heads: list[bytes] = []

    def talk(client: socket.socket) -> None:
        heads.append(_request_of(client))
        host, _, port = heads[-1].split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as collector:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pass_on(client, collector)

    with _peer(talk, server_context if request.param == "https" else None) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{request.param}://user:pass@127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        yield heads


def _pass_on(client: socket.socket, collector: socket.socket) -> None:
    others = {client: collector, collector: client}
    while True:
        decrypted = isinstance(client, ssl.SSLSocket) and client.pending()
        for sock in [client] if decrypted else select.select([client, collector], [], [])[0]:
            received = sock.recv(65_536)
            if not received:
                return
            others[sock].sendall(received)


@pytest.fixture
def server_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """Return a context for servers on 127.0.0.1, whose certificate is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _forget_certificates()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield context
    _forget_certificates()


def _forget_certificates() -> None:
    transport._tls_context.cache_clear()
    transport._proxy_tls_context.cache_clear()
