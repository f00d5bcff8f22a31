"""SIGTERM and the ASGI lifespan: what is sent, and that the process dies as it would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from driving import NO_INSTRUMENTATIONS

from otel_analytics.testing import FaultyCollector, Hang

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
SERVE_ONE = """
import signal, sys, time
from opentelemetry import trace
attributes = {"http.method": "GET", "http.route": "/a"}
trace.get_tracer("program").start_span("GET", kind=trace.SpanKind.SERVER, attributes=attributes).end()
"""
# In short sleeps: CPython may be about to begin one as the signal comes, and looks for it only after that.
WAIT = "print('ready', flush=True)\nfor _ in range(1200): time.sleep(0.05)\n"


QUIET = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", **NO_INSTRUMENTATIONS}


def end_by_sigterm(program: str, *, zero_code: bool = True, **variables: str) -> tuple[int, str, float]:
    """Run a program, end it by SIGTERM when it is ready; return status, stderr and seconds it took to die."""
    process = subprocess.Popen(
        [*([INSTRUMENT] if zero_code else []), sys.executable, "-c", program],
        env={**os.environ, **QUIET, "OTEL_TRACES_EXPORTER": "analytics", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr, time.monotonic() - started


@pytest.fixture
def collector() -> FaultyCollector:
    return FaultyCollector()


def test_what_waits_is_sent_and_the_status_is_the_signals(collector: FaultyCollector) -> None:
    with collector:
        status, _, _ = end_by_sigterm(SERVE_ONE + WAIT, OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url)
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]
    assert status == -signal.SIGTERM


def test_it_can_be_switched_off(collector: FaultyCollector) -> None:
    with collector:
        status, _, _ = end_by_sigterm(
            SERVE_ONE + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_FLUSH_ON_SIGTERM="false",
            OTEL_EXPORTER_ANALYTICS_BATCHING="on",
            OTEL_EXPORTER_ANALYTICS_FLUSH_INTERVAL="60000",
        )
        assert collector.requests == []
    assert status == -signal.SIGTERM


def test_a_handler_of_the_applications_own_stays(collector: FaultyCollector) -> None:
    own = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    with collector:
        status, _, _ = end_by_sigterm(SERVE_ONE + own + WAIT, OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url)
        assert len(collector.bodies()) == 1, "its exit runs atexit, which sends"
    assert status == 7


def test_a_hanging_collector_delays_the_end_no_longer_than_the_option(collector: FaultyCollector) -> None:
    with collector:
        collector.behave(then=Hang(millis=60_000))
        status, _, seconds = end_by_sigterm(
            SERVE_ONE + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="500",
        )
    assert status == -signal.SIGTERM
    assert seconds < 2.5


LOCKED = """
from otel_analytics import AnalyticsSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
exporter = AnalyticsSpanExporter()
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
queue = exporter.client._delivery()._queue
with queue._lock:
    print('ready', flush=True)
    for _ in range(1200): time.sleep(0.05)
"""


def test_a_signal_while_the_main_thread_holds_a_lock_ends_the_process(collector: FaultyCollector) -> None:
    with collector:
        status, _, seconds = end_by_sigterm(
            SERVE_ONE + LOCKED,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="500",
        )
    assert status == -signal.SIGTERM
    assert seconds < 2.5


DIRECT = """
from otel_analytics import AnalyticsClient
clients = [AnalyticsClient(flush_interval_millis=60_000) for _ in range(3)]
for number, client in enumerate(clients):
    for _ in range(4):
        client.track_view(f"direct/{number}", "page")
"""


def test_every_client_is_flushed_not_only_the_providers(collector: FaultyCollector) -> None:
    with collector:
        status, _, _ = end_by_sigterm(
            SERVE_ONE + DIRECT + WAIT, OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url
        )
        assert Counter(body["contentId"] for body in collector.bodies()) == {
            "GET:/a": 1,
            **{f"direct/{number}": 4 for number in range(3)},
        }
    assert status == -signal.SIGTERM


WAITING = """
import time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from otel_analytics import AnalyticsSpanProcessor, flush_on_sigterm
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(AnalyticsSpanProcessor(url))
flush_on_sigterm()
tracer = provider.get_tracer("shop")
request = tracer.start_span("POST /buy", kind=SpanKind.SERVER, attributes={"http.request.method": "POST"})
with trace.use_span(request), tracer.start_as_current_span("charge") as span:
    span.add_event("payment_processed", {"user.id": "u-1"})
"""


def test_what_waits_for_its_server_span_is_sent_also_where_nothing_was_before(
    collector: FaultyCollector,
) -> None:
    with collector:
        status, _, _ = end_by_sigterm(WAITING.replace("url", repr(collector.url)) + WAIT, zero_code=False)
        assert [body["userId"] for body in collector.bodies("engagement")] == ["u-1"]
    assert status == -signal.SIGTERM


def test_one_hanging_collector_does_not_hold_up_the_other_clients(collector: FaultyCollector) -> None:
    with collector, FaultyCollector(then=Hang(millis=60_000)) as hanging:
        program = (
            DIRECT
            + f"""
for client in [AnalyticsClient("{hanging.url}", shutdown_timeout_millis=60_000) for _ in range(2)]:
    client.track_view("never", "page")
"""
        )
        status, _, seconds = end_by_sigterm(
            SERVE_ONE + program + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="2000",
        )
        assert len(collector.bodies()) == 13
    assert status == -signal.SIGTERM
    assert seconds < 4


def test_a_child_that_multiprocessing_ends_dies_at_once(collector: FaultyCollector) -> None:
    program = """
import multiprocessing
from otel_analytics import AnalyticsClient
def work():
    AnalyticsClient().track_view("child", "page")
    time.sleep(60)
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
time.sleep(0.5)
started = time.monotonic()
child.terminate()
child.join()
print(child.exitcode, time.monotonic() - started < 1, file=sys.stderr, flush=True)
print("ready", flush=True)
"""
    with collector:
        collector.behave(then=Hang(millis=60_000))
        _, stderr, _ = end_by_sigterm(
            SERVE_ONE + program + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="500",
        )
    assert "-15 True" in stderr


def test_process_1_ends_too(collector: FaultyCollector) -> None:
    """The kernel ignores default actions of a namespace's first process, as a container's command is."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make a namespace")
    with collector:
        program = (
            "import os\nassert os.getpid() == 1\n"
            + SERVE_ONE
            + "signal.alarm(20)\n"
            + "os.kill(1, signal.SIGTERM)\n"
            + WAIT
        )
        done = subprocess.run(
            [*unshare, INSTRUMENT, sys.executable, "-c", program],
            env={
                **os.environ,
                **QUIET,
                "OTEL_TRACES_EXPORTER": "analytics",
                "OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector.url,
            },
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 128 + signal.SIGTERM, done.stderr
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]


LIFESPAN = """
import asyncio, os, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from otel_analytics import AnalyticsSpanExporter, FlushOnShutdown
import uvicorn

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(AnalyticsSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
                attributes = {"http.method": "GET", "http.route": "/a"}
                tracer.start_span("GET", kind=trace.SpanKind.SERVER, attributes=attributes).end()
                print("ready", flush=True)
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return

uvicorn.run(FlushOnShutdown(app), port=0, log_level="warning")
"""


def test_the_lifespan_helper_sends_before_uvicorn_dies(collector: FaultyCollector) -> None:
    with collector:
        status, _, _ = end_by_sigterm(
            LIFESPAN, zero_code=False, OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url
        )
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]
    assert status == -signal.SIGTERM


# What gunicorn does: a handler in the master process, and after the fork the worker's own set-up of signals.
WORKER = """
import signal, {module} as workers
signal.signal(signal.SIGTERM, lambda *_: None)
workers.UvicornWorker.init_signals(object.__new__(workers.UvicornWorker))
"""
UVICORN_MODULES = ("uvicorn.workers", "uvicorn_worker")


@pytest.mark.parametrize("module", UVICORN_MODULES)
def test_a_worker_of_gunicorn_that_resets_its_signals_is_armed_again(
    module: str, collector: FaultyCollector
) -> None:
    with collector:
        status, _, _ = end_by_sigterm(
            SERVE_ONE + WORKER.format(module=module) + WAIT, OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url
        )
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]
    assert status == -signal.SIGTERM


@pytest.mark.parametrize("module", UVICORN_MODULES)
def test_a_worker_imported_before_is_armed_too(module: str, collector: FaultyCollector) -> None:
    start = f"import {module}\nimport opentelemetry.instrumentation.auto_instrumentation.sitecustomize\n"
    with collector:
        status, _, _ = end_by_sigterm(
            start + SERVE_ONE + WORKER.format(module=module) + WAIT,
            zero_code=False,
            PYTHONPATH=os.environ.get("PYTHONPATH", ""),
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
        )
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]
    assert status == -signal.SIGTERM


def test_a_worker_takes_the_options_timeout(collector: FaultyCollector) -> None:
    with collector:
        collector.behave(then=Hang(millis=60_000))
        status, _, seconds = end_by_sigterm(
            SERVE_ONE + WORKER.format(module="uvicorn.workers") + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="500",
        )
    assert status == -signal.SIGTERM
    assert seconds < 2.5


TWICE = """
import os, threading
def kill_when_it_flushes():
    while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=kill_when_it_flushes, daemon=True).start()
"""


def test_a_second_sigterm_kills_a_worker_at_once(collector: FaultyCollector) -> None:
    with collector:
        collector.behave(then=Hang(millis=60_000))
        status, _, seconds = end_by_sigterm(
            SERVE_ONE + WORKER.format(module="uvicorn.workers") + TWICE + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="20000",
        )
    assert status == -signal.SIGTERM
    assert seconds < 2.5


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_ANALYTICS_FLUSH_ON_SIGTERM", "false"),
        ("OTEL_EXPORTER_ANALYTICS_BATCHING", "no such value"),
    ],
)
def test_workers_are_left_alone_where_nothing_is_flushed(variable: str, value: str) -> None:
    program = WORKER.format(module="uvicorn.workers") + (
        "print(repr(signal.getsignal(signal.SIGTERM)), *sys.meta_path, file=sys.stderr)\n"
    )
    status, stderr, _ = end_by_sigterm(
        "import sys, time\n" + program + WAIT, zero_code=True, **{variable: value}
    )
    said = stderr.splitlines()[-1]
    assert "SIG_DFL" in said
    assert "otel_analytics" not in said
    assert status == -signal.SIGTERM


def test_modules_hooked_keep_their_loaders() -> None:
    program = """
import importlib.machinery, inspect, sys, time
import uvicorn_worker as module
assert type(module.__loader__) is type(module.__spec__.loader) is importlib.machinery.SourceFileLoader
assert "UvicornWorker" in inspect.getsource(module)
assert module.UvicornWorker.init_signals.__module__ == "uvicorn_worker._workers"
"""
    status, stderr, _ = end_by_sigterm(program + WAIT, OTEL_EXPORTER_ANALYTICS_ENDPOINT="http://127.0.0.1:1")
    assert status == -signal.SIGTERM, stderr


@pytest.mark.parametrize("content", ["", "UvicornWorker = object()"])
def test_workers_of_another_shape_are_a_line_in_the_log(content: str, tmp_path: Path) -> None:
    (tmp_path / "uvicorn_worker.py").write_text(content)
    status, stderr, _ = end_by_sigterm(
        "import time, uvicorn_worker\n" + WAIT,
        OTEL_EXPORTER_ANALYTICS_ENDPOINT="http://127.0.0.1:1",
        PYTHONPATH=str(tmp_path),
    )
    assert status == -signal.SIGTERM
    assert "may lose their last events" in stderr


def test_a_failing_instrumentation_does_not_cost_a_workers_last_events(
    collector: FaultyCollector, tmp_path: Path
) -> None:
    """Where one raises, OpenTelemetry loads nothing after it."""
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nbroken = builtins:Ellipsis\n")
    with collector:
        _, stderr, _ = end_by_sigterm(
            SERVE_ONE + WORKER.format(module="uvicorn.workers") + WAIT,
            OTEL_EXPORTER_ANALYTICS_ENDPOINT=collector.url,
            PYTHONPATH=str(tmp_path),
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="",
        )
        assert [body["contentId"] for body in collector.bodies()] == ["GET:/a"]
    assert "Instrumenting of broken failed" in stderr
