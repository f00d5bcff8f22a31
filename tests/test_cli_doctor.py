"""`otel-analytics doctor` names what is wrong with each kind of broken set-up, and fails only for that."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from otel_analytics.cli.doctor import Finding, Level, opentelemetry_findings, option_findings
from otel_analytics.cli.main import main
from otel_analytics.collector import DevCollector

_PREFIX = "OTEL_EXPORTER_ANALYTICS_"


@pytest.fixture(autouse=True)
def _sound(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{name}_EXPORTER", "none")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "analytics")
    monkeypatch.setenv(f"{_PREFIX}TIMEOUT", "2000")


def _doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code, and each check's level and text."""
    code = main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    return code, {each["name"]: (each["level"], each["text"]) for each in found}


@contextmanager
def _answering(
    status: int,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """Answer everything in one way."""

    class _Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
        finally:
            server.shutdown()


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    with DevCollector(write_key="secret!") as collector:
        code, found = _doctor(capsys, "--endpoint", collector.url, "--write-key", "secret!")
        (event,) = collector.events()
    assert code == 0
    assert event["contentId"] == "TEST:/otel-analytics-doctor"
    assert found["endpoint"] == ("ok", f"'{collector.url}' (argument)")
    assert found["write_key"] == ("ok", "<hidden> (argument)")
    assert found["timeout_millis"] == ("ok", f"2000 ({_PREFIX}TIMEOUT)")
    assert found["batching"] == ("ok", "'auto' (default)")
    assert found["clock"][0] == "ok"
    assert found["batches"][1].startswith("max=")
    assert found["compression"][1] == "gzip"


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (401, {}, "write_key"),
        (403, {}, "does not allow this write_key"),
        (200, {"Content-Type": "text/html; charset=utf-8"}, "an HTML page"),
        (404, {}, "base URL"),
        (302, {"Location": "/elsewhere"}, "redirects are not followed"),
        (422, {"Content-Type": "text/plain"}, "app is unknown"),
    ],
)
def test_a_refusal_has_a_remedy(
    status: int, headers: dict[str, str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with _answering(status, headers, b"app is unknown") as url:
        code, found = _doctor(capsys, "--endpoint", url)
    level, said = found["test event"]
    assert (code, level) == (1, "failed")
    assert str(status) in said
    assert text in said


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, found = _doctor(capsys, "--endpoint", f"http://127.0.0.1:{port}")
    assert (code, found["connect"][0]) == (1, "failed")
    assert "test event" not in found


def test_a_name_without_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = _doctor(capsys, "--endpoint", "http://collector.invalid")
    assert (code, found["resolve"][0]) == (1, "failed")


@pytest.mark.parametrize("is_trusted", [True, False])
def test_tls(
    *, is_trusted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    if is_trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv(f"{_PREFIX}CERTIFICATE", str(tmp_path / "ca.pem"))
    with _answering(200, tls=context) as url:
        code, found = _doctor(capsys, "--endpoint", url)
    assert found["tls"][0] == ("ok" if is_trusted else "failed")
    assert code == (not is_trusted)


def test_a_scheme_that_is_not_the_ports_own(capsys: pytest.CaptureFixture[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with _answering(200, tls=context) as url:
        code, found = _doctor(capsys, "--endpoint", url.replace("https", "http"))
    assert (code, found["test event"][0]) == (1, "failed")
    assert "begins with https://" in found["test event"][1]
    with _answering(200) as url:
        code, found = _doctor(capsys, "--endpoint", url.replace("http", "https"))
    assert (code, found["tls"][0]) == (1, "failed")
    assert "is it http://" in found["tls"][1]


def test_a_mistyped_variable_is_a_warning() -> None:
    found = [each for each in option_findings({}, {f"{_PREFIX}ENDPIONT": "x"}) if each.name == "environment"]
    assert [each.level for each in found] == [Level.WARNING]
    assert f"did you mean {_PREFIX}ENDPOINT?" in found[0].text


def test_a_clock_that_is_wrong_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with _answering(200, {"Date": "Tue, 01 Jan 2030 00:00:00 GMT"}) as url:
        code, found = _doctor(capsys, "--endpoint", url)
    assert (code, found["clock"][0]) == (0, "warning")


def test_all_wrong_options_are_told_and_no_secret() -> None:
    environ = {f"{_PREFIX}BATCHING": "maybe", f"{_PREFIX}TIMEOUT": "soon", f"{_PREFIX}HEADERS": "a=hush"}
    found = {each.name: each for each in option_findings({}, environ)}
    failed = {name for name, each in found.items() if each.level is Level.FAILED}
    assert failed == {"batching", "timeout_millis"}
    assert found["headers"].text == f"<hidden> ({_PREFIX}HEADERS)"
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("environ", "name", "level", "text"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "jaegr,analytics"},
            "OTEL_TRACES_EXPORTER",
            "failed",
            "jaegr is not installed",
        ),
        ({"OTEL_METRICS_EXPORTER": "nope"}, "OTEL_METRICS_EXPORTER", "failed", "OTEL_METRICS_EXPORTER=none"),
        ({"OTEL_METRICS_EXPORTER": "none"}, "OTEL_METRICS_EXPORTER", "ok", "none"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER", "warning", "without analytics"),
        ({"OTEL_TRACES_EXPORTER": "console,analytics"}, "OTEL_TRACES_EXPORTER", "ok", "console,analytics"),
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED", "failed", "no spans"),
        ({"OTEL_TRACES_SAMPLER": "always_of"}, "sampler", "warning", "no such sampler"),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
            "sampler",
            "warning",
            "0.1",
        ),
        ({}, "sampler", "ok", "parentbased_always_on"),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}, "semantic conventions", "ok", "http/dup"),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http, databse"}, "semantic conventions", "warning", "database?"),
        ({}, "service name", "warning", "OTEL_SERVICE_NAME"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=shop"}, "service name", "ok", "shop"),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"}, "disabled", "warning", "flask"),
    ],
)
def test_the_set_up_of_opentelemetry(environ: dict[str, str], name: str, level: str, text: str) -> None:
    found: dict[str, Finding] = {each.name: each for each in opentelemetry_findings(environ)}
    assert found[name].level == level
    assert text in found[name].text


def test_a_framework_without_its_instrumentation(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"fastapi", "starlette", "flask", "opentelemetry-instrumentation-fastapi"}
    monkeypatch.setattr("otel_analytics.cli.surroundings.is_installed", there.__contains__)
    found = {each.name: each for each in opentelemetry_findings({})}
    assert "pip install opentelemetry-instrumentation-flask" in found["flask"].text
    assert not {"fastapi", "starlette", "django"} & set(found)


def test_the_dev_collector_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    with DevCollector(write_key="secret!") as collector:
        code, found = _doctor(capsys, "--collector", collector.url, "--write-key", "secret!")
    assert {level for level, _ in found.values()} == {"ok"}, found
    assert code == 0
    assert {"view: one event", "engagement: a batch, gzip", "view: a wrong key", "view: sent again"} <= set(
        found
    )


def test_a_collector_that_takes_anything_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    with _answering(200, {"X-Analytics-Batch": "max=10"}) as url:
        code, found = _doctor(capsys, "--collector", url)
    failed = {name for name, (level, _) in found.items() if level == "failed"}
    assert code == 1
    assert {
        "view: a field missing",
        "view: no JSON",
        "view: a batch",
        "engagement: a batch, one bad",
    } <= failed
    assert found["view: one event"][0] == "ok"


def test_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with DevCollector() as collector:
        assert main(["doctor", "--endpoint", collector.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "options"
    assert lines[-1].startswith("0 failed, ")
