"""Headers and certificates as OTLP's exporters have them; what is secret stays so."""

from __future__ import annotations

import logging
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
from conftest import QuickClient
from driving import one_each, track

from otel_analytics import AnalyticsClient, ConfigError
from otel_analytics.testing import Accept, Answer, FaultyCollector, Unavailable

_TOKEN = "Bearer t0ken-4711"  # noqa: S105 - of a test


@pytest.mark.parametrize("batching", ["off", "on"])
def test_headers_come_with_every_request(quick_client: QuickClient, batching: str) -> None:
    headers = {"authorization": _TOKEN, "X-Tenant": "shop", "user-agent": "mine/1"}
    with FaultyCollector(Unavailable(), then=Accept()) as collector:
        client = quick_client(collector.url, headers=headers, write_key="wk_1", batching=batching)
        track(client, 3)
        assert client.flush(3_000)
        assert len(collector.requests) >= 2
        for request in collector.requests:
            assert headers.items() <= {**request.headers, "X-Tenant": request.headers["x-tenant"]}.items()
            assert request.headers["x-write-key"] == "wk_1"
            assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("said", [_TOKEN, "t0ken-4711"])
def test_a_header_that_the_collector_repeats_is_not_shown(
    quick_client: QuickClient, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyCollector(then=Answer(403, f'{{"error": "{said} is over"}}'.encode())) as collector:
        client = quick_client(collector.url, headers={"Authorization": _TOKEN}, debug=True)
        track(client, 1)
        assert not client.flush(100)
        client.shutdown(100)
    assert "<hidden> is over" in caplog.text
    assert "t0ken" not in caplog.text


class Files:
    """What a private authority has made: its own certificate, and a client's with its key."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        client = self.authority.issue_cert("client@shop.example")
        self.trusted, self.certificate = str(folder / "ca.pem"), str(folder / "client.pem")
        self.key, self.both = str(folder / "client.key"), str(folder / "both.pem")
        self.authority.cert_pem.write_to_path(self.trusted)
        client.cert_chain_pems[0].write_to_path(self.certificate)
        client.private_key_pem.write_to_path(self.key)
        client.private_key_and_cert_chain_pem.write_to_path(self.both)

    def server_context(self, *, wants_client: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.trusted)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_private_authority_is_trusted_by_option(quick_client: QuickClient, files: Files) -> None:
    with FaultyCollector(ssl_context=files.server_context(wants_client=False)) as collector:
        stranger = quick_client(collector.url)
        track(stranger, 1)
        assert not stranger.flush(150)
        client = quick_client(collector.url, certificate=files.trusted)
        ids = track(client, 3)
        assert client.flush(3_000)
        one_each(collector, ids)


@pytest.mark.parametrize("in_one_file", [False, True])
def test_a_client_shows_its_certificate(
    quick_client: QuickClient, files: Files, *, in_one_file: bool
) -> None:
    own = {"client_certificate": files.certificate, "client_key": files.key}
    with FaultyCollector(ssl_context=files.server_context(wants_client=True)) as collector:
        unknown = quick_client(collector.url, certificate=files.trusted)
        track(unknown, 1)
        assert not unknown.flush(150)
        shown = {"client_certificate": files.both} if in_one_file else own
        client = quick_client(collector.url, certificate=files.trusted, **shown)
        ids = track(client, 3)
        assert client.flush(3_000)
        one_each(collector, ids)


@pytest.mark.parametrize("option", ["certificate", "client_certificate"])
@pytest.mark.parametrize("content", [None, "", "garbage"])
def test_a_file_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, option: str, content: str | None
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    options: dict[str, Any] = {option: str(path)}
    with pytest.raises(ConfigError, match=rf"^{option}='.*file.pem': cannot be used"):
        AnalyticsClient(**options)


def test_a_key_without_its_certificate_is_refused(files: Files) -> None:
    with pytest.raises(ConfigError, match=r"^client_key: is of no use without client_certificate"):
        AnalyticsClient("https://127.0.0.1:9", client_key=files.key)


def test_a_key_of_another_certificate_is_refused(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    files.authority.issue_cert("other.example").private_key_pem.write_to_path(str(other))
    with pytest.raises(ConfigError, match=r"^client_certificate=.*cannot be used"):
        AnalyticsClient(client_certificate=files.certificate, client_key=str(other))


def test_nobody_is_asked_for_a_password(files: Files, tmp_path: Path) -> None:
    encrypted = str(tmp_path / "encrypted.key")
    command = ["openssl", "pkey", "-in", files.key, "-aes256", "-passout", "pass:s3cret", "-out", encrypted]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    with pytest.raises(ConfigError, match="must not be encrypted"):
        AnalyticsClient(client_certificate=files.certificate, client_key=encrypted)


_KEY = {"write_key": "s3cret"}
_HEADER = {"headers": {"Authorization": "s3cret"}}


@pytest.mark.parametrize(
    ("endpoint", "options", "warned"),
    [
        ("http://collector.example", _KEY, True),
        ("HTTP://10.0.0.1:4380/base", _HEADER, True),
        ("http://localhost.example", _KEY, True),
        ("http://collector.example", {**_KEY, "insecure_key": True}, False),
        ("http://collector.example", {}, False),
        ("https://collector.example", _KEY, False),
        ("http://localhost:4380", _KEY, False),
        ("http://shop.localhost.", _KEY, False),
        ("http://127.8.0.1", _KEY, False),
        ("http://[::1]:4380", _KEY, False),
        ("http://[::ffff:127.0.0.1]", _KEY, False),
    ],
)
def test_a_key_in_plain_sight_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, endpoint: str, options: dict[str, Any], *, warned: bool
) -> None:
    client = AnalyticsClient(endpoint, shutdown_timeout_millis=0, timeout_millis=100, **options)
    for _ in range(3):
        track(client, 1)
    client.shutdown(0)
    lines = [r.getMessage() for r in caplog.records if "insecure_key" in r.getMessage()]
    assert len(lines) == warned
    assert not any("s3cret" in line for line in lines)
