"""How processes end: with a well collector nothing is lost, with a broken one nobody waits long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from otel_analytics.testing import Behaviour, FaultyCollector, Hang, SlowDrip, Unavailable

SET_UP = """
import atexit, logging, os, sys, threading
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from otel_analytics import AnalyticsClient, AnalyticsSpanExporter

logging.basicConfig()

def served(tracer, count=3):
    for number in range(count):
        attributes = {"http.method": "GET", "http.route": f"/{number}"}
        with tracer.start_as_current_span("GET", kind=trace.SpanKind.SERVER, attributes=attributes):
            pass

def traced(processor=BatchSpanProcessor, **options):
    provider = TracerProvider()
    provider.add_span_processor(processor(AnalyticsSpanExporter(**options)))
    return provider.get_tracer("program")
"""

ENDS = {
    "a normal end": "served(traced())",
    "the simple processor": "served(traced(SimpleSpanProcessor))",
    "an exception in main": "served(traced())\nraise RuntimeError('main failed')",
    "sys.exit in a thread": (
        "def work():\n    served(tracer)\n    sys.exit(3)\n"
        "tracer = traced()\nthread = threading.Thread(target=work)\nthread.start()\nthread.join()"
    ),
    "sys.exit in main": "served(traced())\nsys.exit(4)",
    "events only at exit": "tracer = traced()\natexit.register(served, tracer)",
    "a client and no shutdown": (
        "client = AnalyticsClient()\nfor number in range(3): client.track_api_call(f'/{number}', 'GET', 200)"
    ),
    "a client's first event at exit": (
        "client = AnalyticsClient()\n"
        "@atexit.register\n"
        "def last():\n    for number in range(3): client.track_api_call(f'/{number}', 'GET', 200)"
    ),
    "a client made at exit": (
        "@atexit.register\n"
        "def last():\n    client = AnalyticsClient()\n"
        "    for number in range(3): client.track_api_call(f'/{number}', 'GET', 200)"
    ),
    "a provider older than the client it shares": (
        "provider = TracerProvider()\nclient = AnalyticsClient()\n"
        "provider.add_span_processor(BatchSpanProcessor(AnalyticsSpanExporter(client=client)))\n"
        "served(provider.get_tracer('program'))"
    ),
    "a child forked by the program": (
        "tracer = traced()\npid = os.fork()\n"
        "if pid == 0:\n    served(tracer)\n    sys.exit(0)\n"
        "os.waitpid(pid, 0)"
    ),
}


def run(program: str, collector_url: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a program to its end; return it and how long it took, in seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SET_UP + program],
        env={
            **os.environ,
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector_url,
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, time.monotonic() - started


@pytest.mark.parametrize("program", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("batch", [None, "max=512"], ids=["singly", "batches"])
def test_nothing_is_lost_however_the_process_ends(program: str, batch: str | None) -> None:
    with FaultyCollector(batch=batch) as collector:
        done, _ = run(program, collector.url)
        assert sorted(body["contentId"] for body in collector.bodies()) == ["GET:/0", "GET:/1", "GET:/2"]
        assert set(collector.event_ids().values()) == {1}
    assert "otel" not in done.stderr.lower().replace("opentelemetry", "")


def refused(collector: FaultyCollector) -> None:
    collector.stop_listening()


def answering(behaviour: Behaviour) -> Callable[[FaultyCollector], None]:
    return lambda collector: collector.behave(then=behaviour)


BROKEN = {
    "refused": refused,
    "hanging": answering(Hang(millis=60_000)),
    "hanging in the body": answering(Hang("body", millis=60_000)),
    "dripping": answering(SlowDrip(interval_millis=100)),
    "unavailable": answering(Unavailable(503)),
    "unavailable for long": answering(Unavailable(503, retry_after="120")),
    "refusing the key": answering(Unavailable(401)),
}


@pytest.mark.parametrize("end", ["a normal end", "events only at exit", "a client made at exit"])
@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN.keys())
def test_the_process_exits_in_time_and_says_what_is_lost(
    break_it: Callable[[FaultyCollector], None], end: str
) -> None:
    with FaultyCollector() as collector:
        break_it(collector)
        done, seconds = run(ENDS[end], collector.url, OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT="1000")
    assert done.returncode == 0
    assert seconds < 1.0 + 2.0, "beyond the option only the interpreter's own start and end"
    (line,) = [line for line in done.stderr.splitlines() if "shutdown: " in line]
    assert "3 in all" in line or "1 now" in line
    assert "Traceback" not in done.stderr
