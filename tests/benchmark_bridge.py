"""What a span costs a bridge's process beside the exporter's, and how many a machine's bridges take together.

Run by hand: ``python tests/benchmark_bridge.py``; ``--plot FILE`` draws the growth, by matplotlib.
Each request holds whole traces as instrumentations make them: a server span, three client spans, two inner
spans of ASGI, and in every tenth a payment. Both ways end in the client's queue; delivery, the same after
either, is left out.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind
from otlp_making import otlp

from otel_analytics import AnalyticsClient
from otel_analytics.bridge.intake import Intake, Signal
from otel_analytics.bridge.otlp import Encoding
from otel_analytics.sdk.intake import SpanIntake

START = 1_795_000_000_000_000_000
TRACES, REQUESTS, ROUNDS, SECONDS = 80, 20, 3, 5.0
RESOURCE = Resource(
    {"service.name": "shop", "service.instance.id": "i-1", "telemetry.sdk.language": "python"}
)
ASGI, SQL, SHOP = (
    InstrumentationScope(name)
    for name in ("opentelemetry.instrumentation.asgi", "opentelemetry.instrumentation.sqlalchemy", "shop")
)
QUERY = {
    "db.system": "postgresql", "db.statement": "SELECT * FROM orders WHERE id = %s", "db.name": "shop",
    "net.peer.name": "db", "net.peer.port": 5432, "db.user": "shop",
}  # fmt: skip
CALL_OUT = {
    "http.request.method": "GET", "url.full": "http://inventory:8080/items/5", "server.address": "inventory",
    "server.port": 8080, "http.response.status_code": 200, "network.protocol.version": "1.1",
}  # fmt: skip
CALL = {
    "http.request.method": "GET", "http.route": "/orders/{id}", "url.path": "/orders/7", "url.scheme": "http",
    "http.response.status_code": 200, "server.address": "shop.local", "server.port": 8000,
    "client.address": "203.0.113.9", "network.protocol.version": "1.1", "user_agent.original": "Mozilla/5.0",
}  # fmt: skip
DRAW = random.Random(1)  # noqa: S311 - ids of a benchmark


def trace(number: int) -> list[ReadableSpan]:
    trace_id, server_id, start = DRAW.getrandbits(128), DRAW.getrandbits(64), START + number * 1_000_000

    def span(
        name: str, kind: SpanKind, attributes: dict[str, Any], scope: Any, **fields: Any
    ) -> ReadableSpan:
        place = {
            "context": SpanContext(trace_id, DRAW.getrandbits(64), is_remote=False),
            "parent": SpanContext(trace_id, server_id, is_remote=False),
        }
        times = {"start_time": start + 1_000, "end_time": start + 5_000_000}
        return ReadableSpan(
            name,
            kind=kind,
            attributes=attributes,
            resource=RESOURCE,
            instrumentation_scope=scope,
            **{**place, **times, **fields},
        )

    spans = [span("SELECT shop", SpanKind.CLIENT, QUERY, SQL) for _ in range(2)]
    spans.append(span("GET", SpanKind.CLIENT, CALL_OUT, SHOP))
    sent = ({"asgi.event.type": f"http.response.{part}"} for part in ("start", "body"))
    spans += [span("GET /orders/{id} http send", SpanKind.INTERNAL, each, ASGI) for each in sent]
    if number % 10 == 0:
        paid = Event("payment_processed", {"order_id": f"o-{number}", "amount": 9.5}, start + 2_000)
        user = {"user.id": f"u-{number % 50}"}
        spans.append(span("charge", SpanKind.INTERNAL, user, SHOP, events=[paid]))
    own = {"context": SpanContext(trace_id, server_id, is_remote=False), "parent": None, "start_time": start}
    return [*spans, span("GET /orders/{id}", SpanKind.SERVER, CALL, ASGI, **own)]


def batches() -> list[list[ReadableSpan]]:
    return [
        [span for number in range(TRACES) for span in trace(batch * TRACES + number)]
        for batch in range(REQUESTS)
    ]


def client() -> AnalyticsClient:
    made = AnalyticsClient("http://127.0.0.1:9", max_queue_size=1_000_000)
    made._delivery()._sender.wake = lambda: None  # type: ignore[method-assign] # nothing is delivered
    return made


def exporter(spans: Sequence[Sequence[ReadableSpan]]) -> Callable[[], None]:
    intake = SpanIntake(client())

    def run() -> None:
        for batch in spans:
            intake.take(batch)

    return run


def bridge(requests: Sequence[bytes]) -> Callable[[], None]:
    intake = Intake(client())

    def run() -> None:
        for each in requests:
            intake.take(each, Signal.TRACES, Encoding.PROTO)

    return run


def compare() -> None:
    """Print microseconds of CPU a span, in turn."""
    spans = batches()
    requests, count = [otlp(batch) for batch in spans], sum(map(len, spans))
    print(f"{sum(map(len, requests)) / count:.0f} bytes a span")
    for _ in range(ROUNDS):
        for name, run in (("bridge", bridge(requests)), ("exporter", exporter(spans))):
            began = time.process_time()
            run()
            print(f"{name}: {(time.process_time() - began) / count * 1e6:.1f} us of CPU a span")


def work() -> None:
    """Take requests for some seconds, once told to; say how many spans a second that was."""
    spans = batches()
    requests, count = [otlp(batch) for batch in spans], sum(map(len, spans))
    bridge(requests)()
    print("ready", flush=True)
    sys.stdin.readline()
    began, taken = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        bridge(requests)()
        taken += count
    print(taken / (time.perf_counter() - began), flush=True)
    os._exit(0)  # what was taken is for nobody


def grow(counts: Sequence[int]) -> list[float]:
    """Return the spans a second of so many bridges at a time, each a process."""
    found = []
    for count in counts:
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(count)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found.append(sum(float(worker.communicate(timeout=60)[0]) for worker in workers))
        print(f"{count} bridges on {os.cpu_count()} cores: {found[-1]:,.0f} spans a second")
    return found


def plot(counts: Sequence[int], found: Sequence[float], path: str) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only where it is asked for

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.plot(counts, [each / 1000 for each in found], marker="o", label="taken")
    ideal = [found[0] * min(count, os.cpu_count() or 1) / 1000 for count in counts]
    axes.plot(counts, ideal, linestyle=":", label=f"one bridge times cores ({os.cpu_count()})")
    axes.set(xlabel="bridges", ylabel="thousand spans a second", ylim=(0, None), xticks=counts)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    if options.work:
        work()
    compare()
    grown = grow((1, 2, 4))
    if options.plot:
        plot((1, 2, 4), grown, options.plot)
