"""What the exporter costs beside its peer: ``python tests/benchmark_cost.py``.

Each contender runs in a process of its own against a sink in another one: 20,000 SERVER spans through
`BatchSpanProcessor`, then whatever it takes until all are delivered. Figures are CPU time of the whole
process above ``noop`` (span creation and processor alone), the median of several interleaved rounds. Then
what a caller waits for metadata, plain and absurd, and what an import takes, each beside its peer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter

SPANS = 20_000
ROUNDS = int(os.environ.get("ROUNDS", "5"))
REQUEST: dict[str, Any] = {
    "http.scheme": "http", "http.host": "127.0.0.1:8000", "net.host.port": 8000, "http.flavor": "1.1",
    "http.target": "/items/42", "http.url": "http://127.0.0.1:8000/items/42?q=1", "http.method": "GET",
    "http.server_name": "127.0.0.1:8000", "http.user_agent": "python-httpx/0.28.1",
    "net.peer.ip": "127.0.0.1", "net.peer.port": 50038, "http.route": "/items/{item_id}",
    "http.status_code": 200,
}  # fmt: skip


class Noop(SpanExporter):
    """Takes spans and does nothing."""

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - the SDK's signature
        return SpanExportResult.SUCCESS


def make_spans(exporter: SpanExporter) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=SPANS, schedule_delay_millis=200))
    tracer = provider.get_tracer("benchmark")
    for _ in range(SPANS):
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=REQUEST):
            pass
    provider.force_flush()
    exporter.force_flush(60_000)
    provider.shutdown()


def ours(url: str) -> None:
    exporter = AnalyticsSpanExporter(url)
    make_spans(exporter)
    assert exporter.client.stats().delivered == SPANS, exporter.client.stats()


def otlp(url: str) -> None:
    make_spans(OTLPSpanExporter(f"{url}/v1/traces"))


def noop(_: str) -> None:
    make_spans(Noop())


def tracked(url: str) -> None:
    """Direct events, in bursts that fit the queue; also the time a call takes its caller."""
    client = AnalyticsClient(url, app_name="shop")
    spent = 0.0
    for _ in range(4):
        started = time.thread_time()
        for _ in range(SPANS // 4):
            client.track_api_call("/items/{item_id}", "GET", 200, "user-7", 12.5, "203.0.113.7")
        spent += time.thread_time() - started
        assert client.flush(60_000)
    assert client.stats().delivered == SPANS
    client.shutdown()
    sys.stderr.write(f"{spent / SPANS * 1e6:.2f}\n")


CONTENDERS: dict[str, Callable[[str], None]] = {"noop": noop, "ours": ours, "otlp": otlp, "tracked": tracked}


def metadata(_: str) -> None:
    """What one call takes its caller, by what it is given; nothing is sent."""
    client = AnalyticsClient("http://127.0.0.1:9", app_name="shop", max_queue_size=100, debug=False)
    shared: list[Any] = [1.5] * 4
    for _depth in range(10):
        shared = [shared] * 4
    given: dict[str, tuple[dict[str, Any], int]] = {
        "none": ({}, 5_000),
        "10 texts": ({f"key{number}": "value" for number in range(10)}, 5_000),
        "1,000,000 floats": ({"floats": [0.1] * 1_000_000}, 5),
        "4^11 shared leaves": ({"shared": shared}, 5),
        "1,000 texts of 100,000": ({"texts": ["x" * 100_000] * 1_000}, 5),
    }
    micros = {}
    for name, (value, repeats) in given.items():
        started = time.thread_time()
        for _call in range(repeats):
            client.track_view("page", "article", metadata=value)
        micros[name] = (time.thread_time() - started) / repeats * 1e6
    client.shutdown(0)
    sys.stderr.write(f"{json.dumps(micros)}\n")


IMPORTS = {
    "the mapping": "import otel_analytics.mapping.spans",
    "the exporter": "from otel_analytics import AnalyticsSpanExporter",
    "otlp's exporter": "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter",
}


def import_millis(statement: str) -> float:
    """Return CPU milliseconds of an import in a fresh process."""
    program = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1e3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(name: str, url: str) -> tuple[float, float]:
    """Return a run's CPU microseconds for each event and, where it says so, those of the calling thread."""
    done = subprocess.run(
        [sys.executable, __file__, name, url], capture_output=True, text=True, check=True, timeout=300
    )
    return float(done.stdout), float(done.stderr or "nan")


class Sink(BaseHTTPRequestHandler):
    """Answers 200 to everything, and acknowledges arrays."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        events = json.loads(body) if self.path.startswith("/analytics") else {}
        answer = json.dumps({"received": len(events)}).encode() if isinstance(events, list) else b"{}"
        self.send_response(200)
        self.send_header("X-Analytics-Batch", "max=512; bytes=1000000")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def serve() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        server.shutdown()


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "serve":
        serve()
        return
    if len(sys.argv) > 1:
        started = time.process_time()
        {**CONTENDERS, "metadata": metadata}[sys.argv[1]](sys.argv[2])
        sys.stdout.write(f"{(time.process_time() - started) / SPANS * 1e6}\n")
        return
    costs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    calls: list[float] = []
    for _ in range(ROUNDS):
        for name, cost in costs.items():
            with subprocess.Popen(
                [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as sink:
                assert sink.stdout is not None
                cpu, call = measure(name, sink.stdout.readline().strip())
                cost.append(cpu)
                if name == "tracked":
                    calls.append(call)
                sink.communicate("\n", timeout=30)
    median = {name: statistics.median(cost) for name, cost in costs.items()}
    above = {name: median[name] - median["noop"] for name in ("ours", "otlp")}
    print(f"noop: {median['noop']:.1f} us a span")
    print(f"ours: {above['ours']:.1f} us a SERVER span above noop")
    print(
        f"otlp: {above['otlp']:.1f} us a SERVER span above noop, {above['otlp'] / above['ours']:.1f} x ours"
    )
    print(
        f"tracked directly: {median['tracked']:.1f} us an event delivered, of which its caller "
        f"{statistics.median(calls):.1f} us"
    )
    done = subprocess.run(
        [sys.executable, __file__, "metadata", ""], capture_output=True, text=True, check=True, timeout=300
    )
    for name, micros in json.loads(done.stderr.splitlines()[-1]).items():
        print(f"a call with metadata of {name}: {micros:,.1f} us")
    for name, statement in IMPORTS.items():
        millis = statistics.median(import_millis(statement) for _ in range(ROUNDS))
        print(f"importing {name}: {millis:.0f} ms")


if __name__ == "__main__":
    main()
