"""``otel-analytics bridge --kafka``, as its own process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from brokers import QUICK_GROUP, broker
from opentelemetry.trace import SpanContext
from otlp_making import otlp
from test_bridge_intake import server
from test_bridge_server import bridge_process

from otel_analytics.cli import main
from otel_analytics.cli.bridge import KAFKA_VARIABLE
from otel_analytics.testing import FaultyCollector

TOPIC = "otlp_traces"
SETTINGS = [f"{name}={value}" for name, value in QUICK_GROUP.items()]


def test_the_command_reads_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with FaultyCollector() as collector, broker(tmp_path) as running:
        running.create(TOPIC, 1)
        calls = [otlp([server(context=SpanContext(number, 1, is_remote=False))]) for number in range(1, 11)]
        running.send(TOPIC, [(0, b"no OTLP \xff"), *((0, call) for call in calls)])
        arguments = [
            "--kafka",
            running.bootstrap,
            "--topic",
            TOPIC,
            "--kafka-poison",
            str(tmp_path / "poison"),
        ]
        settings = {KAFKA_VARIABLE: SETTINGS[0]}
        with bridge_process(collector, *arguments, "--kafka-config", SETTINGS[1], **settings) as (process, _):
            collector.wait_for_events(10, 20_000)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=15)
            assert process.returncode == 0, output
            assert "Stopped: 10 events accepted, 10 delivered" in output
        assert [each.name for each in (tmp_path / "poison").iterdir()] == [f"{TOPIC}-0-0"]


def test_a_setting_from_the_environment_that_is_none_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KAFKA_VARIABLE, "sasl.password=s3cret\nsasl.s3cret")
    assert main(["bridge", "--kafka", "127.0.0.1:9", "--topic", TOPIC]) == 2
    error = capsys.readouterr().err
    assert f"{KAFKA_VARIABLE}=<hidden>: must be lines of NAME=VALUE" in error
    assert "s3cret" not in error
