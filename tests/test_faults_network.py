"""What networks and broken servers do to a connection: nothing is lost, nothing waits beyond its time."""

from __future__ import annotations

import socket
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from conftest import QuickClient
from driving import calls, eventually, one_each, track, within

from otel_analytics import AnalyticsClient
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.http import transport
from otel_analytics.testing import (
    Accept,
    Behaviour,
    CloseIdle,
    FaultyCollector,
    Garbage,
    Gigantic,
    HalfClose,
    Hang,
    LostAcknowledgement,
    ResetAtOnce,
    ResetMidBody,
    SlowDrip,
)

_TIMEOUT = 0.3
_VISIBLE = RetryPolicy(initial=60, ceiling=60)  # a backoff would fail the test

_BREAKAGES: dict[str, Behaviour] = {
    "hang before the response": Hang(),
    "hang inside the response": Hang("body"),
    "head drips": SlowDrip("head"),
    "body drips": SlowDrip("body"),
    "reset at once": ResetAtOnce(),
    "reset mid-body": ResetMidBody(),
    "half-close": HalfClose(),
    "not HTTP": Garbage(),
    "endless header line": Garbage(b"HTTP/1.1 200 " + b"x" * 300_000),
    "endless interim answers": Garbage(b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "truncated body": Garbage(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"),
    "bad chunk": Garbage(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "acknowledgement lost": LostAcknowledgement(),
}


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize("breakage", _BREAKAGES.values(), ids=_BREAKAGES)
def test_a_broken_answer_is_survived(quick_client: QuickClient, breakage: Behaviour, batching: str) -> None:
    with FaultyCollector(breakage, breakage) as collector:
        client = quick_client(collector.url, batching=batching, timeout_millis=200)
        ids = track(client, 6)
        assert client.flush(4_000)
        assert client.stats().delivered == 6
        assert calls(collector) == ids
        assert set(collector.event_ids().values()) <= {1, 2, 3}


@pytest.mark.parametrize("breakage", [Hang(), Hang("body"), SlowDrip("head"), SlowDrip("body")], ids=str)
def test_a_request_ends_in_time_however_the_answer_drips(
    quick_client: QuickClient, breakage: Behaviour
) -> None:
    with FaultyCollector(breakage) as collector:
        client = quick_client(collector.url, timeout_millis=_TIMEOUT * 1000)
        track(client, 1)
        assert client.flush(4_000)
        first, second = collector.requests
        assert _TIMEOUT - 0.05 <= second.received_at - first.received_at < _TIMEOUT + 0.25


@pytest.mark.parametrize("breakage", [Hang(), SlowDrip()], ids=str)
def test_flush_and_shutdown_end_in_time_while_the_collector_hangs(
    quick_client: QuickClient, breakage: Behaviour
) -> None:
    with FaultyCollector(then=breakage) as collector:
        client = quick_client(collector.url, timeout_millis=5_000)
        track(client, 3)
        assert not within(0.2, lambda: client.flush(200))
        assert not within(0.2, lambda: client.shutdown(200))
        assert client.stats().dropped == {"shutdown": 3}


def test_a_refused_connection_is_waited_out(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        client = quick_client(collector.url)
        ids = track(client, 20)
        assert not client.flush(150)
        assert client.stats().pending == 20
        collector.resume()
        assert client.flush(3_000)
        one_each(collector, ids)


def test_a_collector_that_restarts_between_requests_loses_nothing(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        track(client, 5)
        assert client.flush(3_000)
        collector.stop_listening()
        track(client, 5)
        assert not client.flush(100)
        collector.resume()
        assert client.flush(3_000)
        assert sum(collector.event_ids().values()) == 10


def test_a_name_that_does_not_resolve_keeps_the_events(quick_client: QuickClient) -> None:
    client = quick_client("http://collector.invalid")
    track(client, 3)
    assert not within(0.2, lambda: client.flush(200))
    assert client.stats().pending == 3


@pytest.mark.parametrize("under_request", [False, True])
@pytest.mark.parametrize("batching", ["off", "on"])
def test_a_reset_of_the_idle_connection_costs_neither_events_nor_time(
    quick_client: QuickClient, batching: str, *, under_request: bool
) -> None:
    idle = CloseIdle(under_request=under_request)
    with FaultyCollector(then=idle) as collector:
        client = quick_client(collector.url, batching=batching, max_connections=1, policy=_VISIBLE)
        for count in range(1, 6):
            track(client, 1)
            assert client.flush(2_000)
            assert client.stats().delivered == count
            time.sleep(0.03)  # idle, so that `CloseIdle` has its way
        assert len(collector.requests) == 5
        assert set(collector.event_ids().values()) == {1}


@pytest.mark.parametrize("status", [200, 500])
def test_a_gigantic_answer_costs_neither_memory_nor_time(quick_client: QuickClient, status: int) -> None:
    with FaultyCollector(Gigantic(status=status)) as collector:
        client = quick_client(collector.url, timeout_millis=2_000)
        tracemalloc.start()
        track(client, 1)
        started = time.monotonic()
        assert client.flush(3_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert time.monotonic() - started < 1
        assert peak < 8_000_000


def test_an_untrusted_certificate_keeps_the_events(
    quick_client: QuickClient, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyCollector(ssl_context=_server_context(authority)) as collector:
        client = quick_client(collector.url, write_key="s3cret")
        track(client, 3)
        assert not client.flush(200)
        assert client.stats().pending == 3
        assert not collector.requests
    assert "certificate verify failed" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.usefixtures("trusted")
def test_a_trusted_certificate_delivers(quick_client: QuickClient, authority: trustme.CA) -> None:
    with FaultyCollector(ResetAtOnce(), Hang(), ssl_context=_server_context(authority)) as collector:
        client = quick_client(collector.url, timeout_millis=200)
        ids = track(client, 3)
        assert client.flush(3_000)
        assert calls(collector) == ids


def test_plain_http_at_a_tls_port_keeps_the_events(quick_client: QuickClient, authority: trustme.CA) -> None:
    with FaultyCollector(ssl_context=_server_context(authority)) as collector:
        client = quick_client(collector.url.replace("https", "http"))
        track(client, 1)
        assert not client.flush(150)
        assert client.stats().pending == 1


def test_tls_at_a_plain_port_keeps_the_events(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url.replace("http", "https"), timeout_millis=200)
        track(client, 1)
        assert not client.flush(300)
        assert client.stats().pending == 1


def test_a_port_that_accepts_but_never_speaks_is_given_up_in_time(quick_client: QuickClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = quick_client(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout_millis=100)
        track(client, 2)
        assert not within(0.4, lambda: client.flush(400))
        assert client.stats().pending == 2


def test_tracking_does_not_wait_for_a_collector_that_hangs(quick_client: QuickClient) -> None:
    with FaultyCollector(then=Hang()) as collector:
        client = quick_client(collector.url, timeout_millis=5_000)
        started = time.monotonic()
        track(client, 2_000)
        assert time.monotonic() - started < 1


def test_one_hanging_request_does_not_hold_up_the_others(quick_client: QuickClient) -> None:
    """Events that come all at once, while the only busy thread is stuck."""
    with FaultyCollector(then=Accept()) as collector:
        client = quick_client(collector.url, timeout_millis=3_000, max_connections=4)
        track(client, 50)
        assert client.flush(3_000)
        collector.behave(Hang())
        track(client, 20)
        assert eventually(lambda: client.stats().delivered == 69, 1.0)
        assert client.stats().pending == 1


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    transport._tls_context.cache_clear()
    yield
    transport._tls_context.cache_clear()


@pytest.mark.usefixtures("trusted")
def test_certificates_are_loaded_where_the_client_is_made() -> None:
    """On a sending thread a fork could meet it."""
    AnalyticsClient("https://127.0.0.1:9").shutdown()
    assert transport._tls_context.cache_info().currsize == 1


def test_certificates_that_cannot_be_loaded_keep_the_events(
    quick_client: QuickClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("garbage")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    transport._tls_context.cache_clear()
    client = quick_client("https://127.0.0.1:9")
    track(client, 3)
    assert not client.flush(200)
    assert client.stats().pending == 3
    assert client._delivery()._last_problem.startswith("SSLError")


def _server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
