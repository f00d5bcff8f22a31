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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind, Tracer

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter, AnalyticsSpanProcessor, count_unsampled

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


def processor(url: str) -> None:
    """The same spans straight from the SDK, without `BatchSpanProcessor`."""
    analytics = AnalyticsSpanProcessor(url, max_queue_size=SPANS)
    end_requests(analytics)
    assert analytics.force_flush(60_000)
    assert analytics.client.stats().delivered == SPANS, analytics.client.stats()
    analytics.shutdown()


def bare(_: str) -> None:
    """What `processor` is measured above: the same spans, and nobody sees them."""
    end_requests(SpanProcessor())


def end_requests(processor: SpanProcessor) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    for _ in range(SPANS):
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=REQUEST):
            pass


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


CONTENDERS: dict[str, Callable[[str], None]] = {
    "noop": noop,
    "ours": ours,
    "otlp": otlp,
    "bare": bare,
    "processor": processor,
    "tracked": tracked,
}


def unsampled(_: str) -> None:
    """What a request costs that tracing samples out, with its children, before and after it is recorded."""
    micros = {}
    for name, is_counted in (("dropped", False), ("recorded", True)):
        provider = TracerProvider(sampler=TraceIdRatioBased(0), shutdown_on_exit=False)
        analytics = AnalyticsSpanProcessor("http://127.0.0.1:9", max_queue_size=100)
        provider.add_span_processor(analytics)
        if is_counted:
            count_unsampled(provider)
        tracer = provider.get_tracer("benchmark")
        micros[name] = [
            _micros(partial(_request, tracer, inner, client)) for inner, client in ((0, 0), (5, 0), (0, 5))
        ]
        analytics.shutdown(0)
    sys.stderr.write(f"{json.dumps(micros)}\n")


def nothing(_: str) -> None:
    """What the processor takes for the start and the end of a span that yields nothing."""
    provider = TracerProvider(shutdown_on_exit=False)
    analytics = AnalyticsSpanProcessor("http://127.0.0.1:9")
    tracer = provider.get_tracer("benchmark")
    micros = {}
    with tracer.start_as_current_span("request", kind=SpanKind.SERVER):
        for name, attributes in (
            ("without attributes", {}),
            ("with 5 attributes", dict.fromkeys("abcde", "x")),
        ):
            spans: list[Any] = [tracer.start_span("query", attributes=attributes) for _ in range(2_000)]
            started = time.thread_time()
            for span in spans:
                analytics.on_start(span)
            between = time.thread_time()
            for span in spans:
                analytics.on_end(span)
            ended = time.thread_time()
            micros[name] = [(between - started) / len(spans) * 1e6, (ended - between) / len(spans) * 1e6]
    analytics.shutdown(0)
    sys.stderr.write(f"{json.dumps(micros)}\n")


def _micros(work: Callable[[], None]) -> float:
    repeats = 2_000
    started = time.thread_time()
    for _ in range(repeats):
        work()
    return (time.thread_time() - started) / repeats * 1e6


def _request(tracer: Tracer, inner: int, client: int) -> None:
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=REQUEST):
        for _ in range(inner):
            with tracer.start_as_current_span("work"):
                pass
        for _ in range(client):
            with tracer.start_as_current_span("query", kind=SpanKind.CLIENT):
                pass


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


CALLERS: dict[str, Callable[[str], None]] = {"metadata": metadata, "nothing": nothing, "unsampled": unsampled}


def caller_micros(name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, name, ""], capture_output=True, text=True, check=True, timeout=300
    )
    micros: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return micros


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
        {**CONTENDERS, **CALLERS}[sys.argv[1]](sys.argv[2])
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
    print(f"processor: {median['processor'] - median['bare']:.1f} us a SERVER span above nobody")
    print(
        f"tracked directly: {median['tracked']:.1f} us an event delivered, of which its caller "
        f"{statistics.median(calls):.1f} us"
    )
    for name, micros in caller_micros("metadata").items():
        print(f"a call with metadata of {name}: {micros:,.1f} us")
    for name, (start, end) in caller_micros("nothing").items():
        print(f"a span that yields nothing, {name}: {start:.2f} us at its start, {end:.2f} us at its end")
    dropped, recorded = caller_micros("unsampled").values()
    for what, before, after in zip(
        ("alone", "with 5 inner", "with 5 CLIENT"), dropped, recorded, strict=True
    ):
        print(f"a request sampled out, {what}: {before:.1f} us dropped, {after:.1f} us counted")
    for name, statement in IMPORTS.items():
        millis = statistics.median(import_millis(statement) for _ in range(ROUNDS))
        print(f"importing {name}: {millis:.0f} ms")


if __name__ == "__main__":
    main()
