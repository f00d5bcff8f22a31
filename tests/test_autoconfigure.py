"""Zero-code: ``opentelemetry-instrument``, beside ``otlp``, and the YAML of ``OTEL_CONFIG_FILE``."""

from __future__ import annotations

import gzip
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from driving import NO_INSTRUMENTATIONS
from opentelemetry.sdk.trace.export import SpanExportResult

from otel_analytics.delivery.logs import logger
from otel_analytics.sdk.autoconfigure import AutoconfiguredLogRecordExporter, AutoconfiguredSpanExporter
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


def run_instrumented(program: str = PROGRAM, /, **variables: str) -> subprocess.CompletedProcess[str]:
    quiet = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_SERVICE_NAME": "shop"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [INSTRUMENT, sys.executable, "-c", program],
        env={**inherited, **NO_INSTRUMENTATIONS, **quiet, **variables},
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


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "otel-analytics" in line]


FORKING = """
import os, time
from opentelemetry import trace

def serve():
    tracer = trace.get_tracer("program")
    with tracer.start_as_current_span(
        "GET", kind=trace.SpanKind.SERVER, attributes={"http.method": "GET", "http.route": "/a"}
    ):
        pass
    assert trace.get_tracer_provider().force_flush()

for _ in range(2):
    if not os.fork():
        serve()
        time.sleep(1)  # the thread that sends says it after it has settled, as nobody waits for a line
        os._exit(0)
    os.wait()
serve()
"""


def test_start_and_first_delivery_are_told_once_by_all_that_are_forked(collector: FaultyCollector) -> None:
    done = run_instrumented(
        FORKING,
        OTEL_TRACES_EXPORTER="analytics",
        OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        OTEL_EXPORTER_ANALYTICS_WRITE_KEY="wk_4711_0815",
    )
    how = "batches by advertisement, waiting in memory, unsampled calls counted"
    assert _lines(done) == [
        f"otel-analytics: analytics of shop go to {collector.url} ({how})",
        f"otel-analytics: first events delivered: {collector.url} took 1 view",
    ]
    assert len(collector.bodies("view")) == 3


def test_debug_prints_what_each_span_gave(collector: FaultyCollector) -> None:
    done = run_instrumented(
        PROGRAM,
        OTEL_TRACES_EXPORTER="analytics",
        OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        OTEL_EXPORTER_ANALYTICS_WRITE_KEY="wk_4711_0815",
        OTEL_EXPORTER_ANALYTICS_DEBUG="true",
    )
    assert [line for line in _lines(done) if "span" in line] == [
        "otel-analytics: server span 'GET /a': view: GET:/a",
        "otel-analytics: server span 'GET /a': payment_processed: purchase",
    ]
    assert "otel-analytics: 1 view event(s): ACCEPTED" in _lines(done)
    assert "0815" not in done.stderr


LOGGING_LATER = "import logging\nlogging.basicConfig(level={level}, format='app %(message)s')\n"


@pytest.mark.parametrize(("level", "count"), [("logging.INFO", 1), ("logging.WARNING", 0)])
def test_logging_that_is_set_up_later_has_what_comes_later(
    collector: FaultyCollector, level: str, count: int
) -> None:
    done = run_instrumented(
        LOGGING_LATER.format(level=level) + PROGRAM,
        OTEL_TRACES_EXPORTER="analytics",
        OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        OTEL_EXPORTER_ANALYTICS_COUNT_UNSAMPLED="false",
        OTEL_SERVICE_NAME="",
    )
    start, nameless, *later = _lines(done)
    assert "analytics go to http" in start
    assert "unsampled calls not counted" in start
    assert "OTEL_SERVICE_NAME or app_name" in nameless
    assert [line[:30] for line in later] == ["app otel-analytics: first even"] * count


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


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://a\u200b.example",
        pytest.param("http://[v1.x]", marks=pytest.mark.slow),  # test_config has all of them
        "https://user:hunter2@[bad",
        pytest.param("https://a.example/?key=hunter2", marks=pytest.mark.slow),
    ],
)
def test_a_bad_endpoint_is_one_line_without_its_secret_and_the_application_runs(endpoint: str) -> None:
    done = run_instrumented(OTEL_TRACES_EXPORTER="analytics", OTEL_EXPORTER_ANALYTICS_ENDPOINT=endpoint)
    assert (done.returncode, done.stdout) == (0, "application done\n")
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert "OTEL_EXPORTER_ANALYTICS_ENDPOINT=" in line
    assert "hunter2" not in line


class Hostile(dict[str, str]):
    """Options from elsewhere that fail in a way nobody foresaw."""

    def items(self) -> Any:
        raise LookupError("hunter2")


UNFORESEEN: list[dict[str, Any]] = [
    {"client": "hunter2"},
    {"self": "hunter2"},
    {"business_events": Hostile()},
]
FORESEEN: list[dict[str, Any]] = [
    {"spool_path": "\x00"},
    {"endpoint": "https://hunter2@a.example"},
    {"timeout_millis": 10**400},
]


@pytest.mark.parametrize("options", UNFORESEEN + FORESEEN, ids=str)
def test_whatever_is_raised_is_one_error_and_an_inert_exporter(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    exporter = AutoconfiguredSpanExporter(**options)
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert "switched off" in record.getMessage()
    assert "hunter2" not in record.getMessage()
    assert_inert(exporter)


def test_a_wrong_spool_is_one_line_and_no_reason_for_no_analytics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("A letter.")
    with FaultyCollector() as collector:
        exporter = AutoconfiguredLogRecordExporter(endpoint=collector.url, spool_path=str(tmp_path / "file"))
        (record,) = caplog.records
        assert "events wait in memory" in record.getMessage()
        exporter._client.track_api_call("/", "GET", 200)
        assert exporter.force_flush(5_000)
        assert len(collector.bodies("view")) == 1
        exporter.shutdown()


@pytest.mark.parametrize("options", [UNFORESEEN[0], FORESEEN[0]], ids=str)
@pytest.mark.parametrize("place", ["filter", "handler"])
def test_logging_that_raises_does_not_reach_the_set_up(place: str, options: dict[str, Any]) -> None:
    class Broken(logging.Handler):
        met: object = None

        def emit(self, record: logging.LogRecord) -> None:
            self.filter(record)

        def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's signature
            self.met = sys.exc_info()[1] or "nothing in flight"
            raise RuntimeError("the application's own logging fails")

    broken = Broken()
    places = {
        "filter": (logger.addFilter, logger.removeFilter),
        "handler": (logger.addHandler, logger.removeHandler),
    }
    add, remove = places[place]
    add(broken)
    try:
        assert_inert(AutoconfiguredSpanExporter(**options))
    finally:
        remove(broken)
    assert broken.met == "nothing in flight"


def assert_inert(exporter: AutoconfiguredSpanExporter) -> None:
    assert exporter.export([]) is SpanExportResult.SUCCESS
    assert exporter.force_flush(0)
    exporter.shutdown(0)
    assert exporter.export([]) is SpanExportResult.SUCCESS  # the real one says FAILURE after its shutdown


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


MANY = """
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

tracer = trace.get_tracer("program")
for number in range(200):
    parent = SpanContext(number + 1, number + 1, is_remote=True, trace_flags=TraceFlags(0))
    above = trace.set_span_in_context(NonRecordingSpan(parent)) if number % 2 else None
    with tracer.start_as_current_span(
        "POST /pay", above, kind=SpanKind.SERVER, attributes={"http.method": "POST", "http.route": "/pay"}
    ) as server:
        server.set_attribute("user.id", f"u-{number}")
        with tracer.start_as_current_span("query", kind=SpanKind.CLIENT):
            pass
        with tracer.start_as_current_span("charge") as charge:
            charge.add_event("payment_processed", {"n": number})
"""
SAMPLED_OUT = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}


@pytest.mark.parametrize("exporters", ["analytics", "otlp,analytics", "analytics,otlp"])
def test_unsampled_calls_are_counted_with_their_users(collector: FaultyCollector, exporters: str) -> None:
    with FaultyCollector() as otlp:
        done = run_instrumented(
            MANY,
            OTEL_TRACES_EXPORTER=exporters,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.url,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            **SAMPLED_OUT,
        )
        assert done.returncode == 0, done.stderr
        traced = sum(_spans_in(request.body) for request in otlp.requests)
    assert sorted(body["userId"] for body in collector.bodies("view")) == sorted(
        f"u-{number}" for number in range(200)
    )
    payments = {body["metadata"]["n"]: body["userId"] for body in collector.bodies("engagement")}
    assert payments == {number: f"u-{number}" for number in range(200)}
    # A tenth of the half that has no unsampled parent, three spans each; none without the exporter.
    assert traced % 3 == 0
    assert traced < 3 * 40
    assert (traced > 0) == ("otlp" in exporters)


def _spans_in(body: bytes) -> int:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - not in the oldest run
        ExportTraceServiceRequest,
    )

    request = ExportTraceServiceRequest.FromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def test_counting_unsampled_calls_can_be_turned_off(collector: FaultyCollector) -> None:
    done = run_instrumented(
        MANY,
        OTEL_TRACES_EXPORTER="analytics",
        OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        OTEL_EXPORTER_ANALYTICS_COUNT_UNSAMPLED="false",
        **SAMPLED_OUT,
    )
    assert done.returncode == 0
    views = collector.bodies("view")
    # The processor sees what is recorded, and nothing else is.
    assert len(views) < 40
    assert len(views) == len(collector.bodies("engagement"))


LOG_EVENTS = """
import logging
from opentelemetry import trace

with trace.get_tracer("program").start_as_current_span(
    "GET", kind=trace.SpanKind.SERVER, attributes={"http.method": "GET", "http.route": "/a", "user.id": "u-1"}
):
    logging.getLogger("shop").warning("paid", extra={"event.name": "payment_processed"})
"""


def test_log_based_events_of_the_environment_are_joined_to_their_requests(collector: FaultyCollector) -> None:
    done = run_instrumented(
        LOG_EVENTS,
        OTEL_TRACES_EXPORTER="analytics",
        OTEL_LOGS_EXPORTER="analytics",
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
        OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        **SAMPLED_OUT,
    )
    assert done.returncode == 0, done.stderr
    (payment,) = collector.bodies("engagement")
    assert (payment["userId"], payment["targetId"]) == ("u-1", "GET:/a")
    assert len(collector.bodies("view")) == 1


NO_ADAPTER = """
from otel_analytics import identify, track

identify("nobody")
track("payment_processed", user_id="u-1", order_id="o-1")
"""


def test_track_needs_no_set_up_but_the_environment(collector: FaultyCollector) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", NO_ADAPTER],
        env={**inherited, "OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [body["targetId"] for body in collector.bodies("engagement")] == ["o-1"]
