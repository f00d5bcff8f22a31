"""`otel-analytics run` and `tail`: signals and status are the command's, and what arrives is shown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from otel_analytics.cli.main import main
from otel_analytics.cli.run import environment
from otel_analytics.cli.tail import Tail
from otel_analytics.client import AnalyticsClient
from otel_analytics.collector import DevCollector

_ENDPOINT = "OTEL_EXPORTER_ANALYTICS_ENDPOINT"
_SPAN = """
from opentelemetry import trace
with trace.get_tracer("t").start_as_current_span("x") as span:
    span.add_event("payment_processed", {"order.id": "7", "user.id": "u1"})
print("the command's own")
raise SystemExit(3)
"""


def _command(*command: str) -> list[str]:
    return [sys.executable, "-m", "otel_analytics.cli", "run", "--", *command]


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


@pytest.mark.slow
def test_a_command_is_run_and_what_it_sends_is_shown() -> None:
    done = subprocess.run(
        _command(sys.executable, "-c", _SPAN),
        env=_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (3, "the command's own\n"), done.stderr
    assert "shown at http://127.0.0.1:" in done.stderr
    assert "payment_processed purchase 7 user u1" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: exit(7))", 7),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL)", 128 + signal.SIGTERM),
    ],
)
def test_a_signal_is_the_commands(code: str, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    script = f"import signal; {code}; print('ready', flush=True); signal.pause()"
    with subprocess.Popen(
        _command(sys.executable, "-c", script),
        env={**_environ(), _ENDPOINT: endpoint},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == status


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "needs a command"),
        (["run", "--", "no-such-command-anywhere"], 127, "command not found"),
        (["tail", "--endpoint", "http://127.0.0.1:9"], 1, "no dev collector at http://127.0.0.1:9/events"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "exporters"),
    [("", "analytics"), ("none", "analytics"), ("otlp", "otlp,analytics"), ("analytics", "analytics")],
)
def test_the_commands_environment(given: str, exporters: str) -> None:
    made = environment({"OTEL_TRACES_EXPORTER": given, "OTEL_LOGS_EXPORTER": "console"})
    assert made["OTEL_TRACES_EXPORTER"] == exporters
    assert (made["OTEL_METRICS_EXPORTER"], made["OTEL_LOGS_EXPORTER"]) == ("none", "console")


def test_tail_shows_each_event_once() -> None:
    with DevCollector() as collector, AnalyticsClient(collector.url) as client:
        tail = Tail(collector.url)
        _pay(client, "1")
        tail.skip()
        _pay(client, "2")
        (line,) = tail.lines()
        assert line.endswith(" engagement purchase 2 user u1")
        assert tail.lines() == []
        tail.close()


def _pay(client: AnalyticsClient, order: str) -> None:
    client.track_engagement("u1", "purchase", order, "content")
    assert client.flush(5_000)
