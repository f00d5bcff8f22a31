"""Zero-code: ``opentelemetry-instrument``, beside ``otlp``, and the YAML of ``OTEL_CONFIG_FILE``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from otel_analytics.testing import FaultyCollector

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
PROGRAM = """
from opentelemetry import trace
with trace.get_tracer("program").start_as_current_span(
    "GET /a", kind=trace.SpanKind.SERVER, attributes={"http.method": "GET", "http.route": "/a"}
) as span:
    span.add_event("payment_processed", {"amount": 1})
print("application done")
"""


@pytest.fixture
def collector() -> Iterator[FaultyCollector]:
    with FaultyCollector() as running:
        yield running


def run_instrumented(**variables: str) -> subprocess.CompletedProcess[str]:
    quiet = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_SERVICE_NAME": "shop"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [INSTRUMENT, sys.executable, "-c", PROGRAM],
        env={**inherited, **quiet, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_two_environment_variables_are_enough(collector: FaultyCollector) -> None:
    done = run_instrumented(OTEL_TRACES_EXPORTER="analytics", OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url)
    assert (done.returncode, done.stdout) == (0, "application done\n")
    assert [body["contentId"] for body in collector.bodies("view")] == ["GET:/a"]
    assert [body["app"] for body in collector.bodies("view")] == ["shop"]
    assert [body["metricType"] for body in collector.bodies("engagement")] == ["purchase"]


def test_beside_otlp(collector: FaultyCollector) -> None:
    with FaultyCollector() as otlp:
        done = run_instrumented(
            OTEL_TRACES_EXPORTER="otlp,analytics",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.url,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        )
        assert done.returncode == 0
        assert [request.path for request in otlp.requests] == ["/v1/traces"]
    assert len(collector.bodies("view")) == 1


def test_a_bad_setting_is_one_line_and_the_application_runs(collector: FaultyCollector) -> None:
    done = run_instrumented(
        OTEL_TRACES_EXPORTER="analytics",
        OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        OTEL_EXPORTER_ANALYTICS_TIMEOUT="soon",
    )
    assert (done.returncode, done.stdout) == (0, "application done\n")
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1
    assert "OTEL_EXPORTER_ANALYTICS_TIMEOUT='soon'" in lines[0]
    assert collector.requests == []


YAML = """\
file_format: "1.0"
resource:
  attributes:
    - {name: service.name, value: shop}
tracer_provider:
  processors:
    - batch:
        exporter:
          analytics:
"""


def run_configured(tmp_path: Path, options: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "otel.yaml"
    file.write_text(YAML + options)
    return run_instrumented(OTEL_CONFIG_FILE=str(file))


def test_declarative_configuration(collector: FaultyCollector, tmp_path: Path) -> None:
    options = f"""\
            endpoint: {collector.url}
            write_key: wk_1
            timeout_millis: 2000
            batching: off
            business_events: {{invoice_paid: purchase}}
    """
    done = run_configured(tmp_path, options)
    assert (done.returncode, done.stdout) == (0, "application done\n"), done.stderr
    assert [body["contentId"] for body in collector.bodies("view")] == ["GET:/a"]
    assert {request.headers["x-write-key"] for request in collector.requests} == {"wk_1"}


def test_a_bad_setting_in_yaml_is_one_line(tmp_path: Path) -> None:
    done = run_configured(tmp_path, dedent("            endpont: http://127.0.0.1:9\n").rjust(0))
    assert done.returncode == 0
    done = run_configured(tmp_path, "            endpont: http://127.0.0.1:9\n")
    assert (done.returncode, done.stdout) == (0, "application done\n")
    assert "did you mean endpoint?" in done.stderr
    assert "Traceback" not in done.stderr
