"""A bridge's servers: what they take, when they answer, and what they turn away."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from conftest import QuickClient
from driving import eventually
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext
from otlp_making import otlp
from serving import environment
from span_making import make_event
from test_bridge_intake import payment, server

from otel_analytics import AnalyticsClient
from otel_analytics.bridge.otlp import Encoding
from otel_analytics.bridge.reception import Limits
from otel_analytics.bridge.server import Address, Bridge, serve
from otel_analytics.cli import main
from otel_analytics.cli.bridge import TOKEN_VARIABLE
from otel_analytics.testing import FaultyCollector, Hang, Unavailable

PROTO = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
GZIP = {"Content-Encoding": "gzip"}
VIEW_URL, ENGAGEMENT_URL = "/analytics/track/view", "/analytics/track/engagement"
LIKE = {"userId": "user-7", "metricType": "like", "targetId": "product-1", "targetType": "product"}
LOCAL = Address("127.0.0.1", 0)
SMALL = 100_000


@contextmanager
def bridging(client: AnalyticsClient, **options: Any) -> Iterator[httpx.Client]:
    """Run a bridge; return a client of its HTTP, whose `grpc` is the other address."""
    with (
        Bridge(client, otlp=LOCAL, **options) as bridge,
        httpx.Client(base_url=f"http://{bridge.otlp}", timeout=10) as http,
    ):
        http.headers["X-Grpc"] = str(bridge.otlp_grpc)
        yield http


def status_of(answer: httpx.Response) -> str:
    """Return the message of an error's ``google.rpc.Status``, in the request's encoding."""
    if answer.headers["Content-Type"] == "application/json":
        message: str = answer.json()["message"]
        return message
    field, length = answer.content[:2]
    assert field == 0x12
    assert length == len(answer.content) - 2 < 0x80
    return answer.content[2:].decode()


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("compressed", [False, True])
def test_spans_are_taken_in_each_encoding_and_answered_in_the_same(
    encoding: Encoding, compressed: bool, bridge: httpx.Client, collector: FaultyCollector
) -> None:
    sent = otlp([server(context=SpanContext(time.time_ns(), 1, is_remote=False))], encoding)
    headers = {**(PROTO if encoding is Encoding.PROTO else JSON), **(GZIP if compressed else {})}
    before = len(collector.stored)
    answer = bridge.post("/v1/traces", content=gzip.compress(sent) if compressed else sent, headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, headers["Content-Type"])
    assert answer.content == (b"{}" if encoding is Encoding.JSON else b""), "nothing was rejected"
    assert eventually(lambda: len(collector.stored) == before + 1)


@pytest.fixture(scope="module")
def collector() -> Iterator[FaultyCollector]:
    with FaultyCollector() as collector:
        yield collector


@pytest.fixture(scope="module")
def bridge(collector: FaultyCollector) -> Iterator[httpx.Client]:
    limits = Limits(body_bytes=SMALL)
    with (
        AnalyticsClient(collector.url, flush_interval_millis=20) as client,
        bridging(client, limits=limits) as http,
    ):
        yield http


def zeros(count: int) -> bytes:
    return gzip.compress(b"\0" * count)


WRONG: Mapping[str, tuple[str, Mapping[str, str], bytes, int, str]] = {
    "no protobuf": ("/v1/traces", PROTO, b"\xff", 400, "no protobuf of OTLP's trace"),
    "no logs": ("/v1/logs", PROTO, b"\xff", 400, "no protobuf of OTLP's logs"),
    "no JSON": ("/v1/traces", JSON, b"{", 400, "no JSON"),
    "not OTLP's": ("/v1/traces", JSON, b'{"resourceSpans": 7}', 400, "no JSON of OTLP"),
    "no gzip": ("/v1/traces", {**PROTO, **GZIP}, b"plain", 400, "must be valid gzip"),
    "half a gzip": ("/v1/traces", {**PROTO, **GZIP}, zeros(1_000)[:-9], 400, "a whole gzip stream"),
    "a type": ("/v1/traces", {"Content-Type": "text/plain"}, b"", 415, "x-protobuf or application/json"),
    "no type": ("/v1/traces", {}, b"", 415, "Content-Type"),
    "an encoding": ("/v1/traces", {**PROTO, "Content-Encoding": "br"}, b"", 415, "must be gzip"),
    "too large": ("/v1/traces", PROTO, b"\0" * (SMALL + 1), 413, f"at most {SMALL} bytes"),
    "a bomb": ("/v1/traces", {**PROTO, **GZIP}, zeros(50_000_000), 413, f"at most {SMALL} bytes"),
    "a bomb of empty members": ("/v1/traces", {**JSON, **GZIP}, gzip.compress(b"") * 4_000, 400, "no JSON"),
    "metrics": ("/v1/metrics", PROTO, b"", 404, "takes traces and logs"),
    "a slash": ("/v1/traces/", JSON, b"{}", 404, "takes traces and logs"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_taken_is_named_in_a_status(name: str, bridge: httpx.Client) -> None:
    path, headers, body, status, message = WRONG[name]
    answer = bridge.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert message in status_of(answer)
    wanted = headers.get("Content-Type")
    assert answer.headers["Content-Type"] == (wanted if wanted in {*PROTO.values()} else JSON["Content-Type"])
    assert "Retry-After" not in answer.headers, "it would be the same again"


def test_another_method_is_named(bridge: httpx.Client) -> None:
    assert bridge.get("/v1/traces").status_code == 405
    assert bridge.get("/v1/traces").headers["Allow"] == "POST"


def test_other_sites_pages_write_nothing(bridge: httpx.Client) -> None:
    """A page can have its own name resolve to this machine."""
    assert bridge.post("/v1/traces", json={}, headers={"Host": "evil.example"}).status_code == 421
    assert bridge.post("/v1/traces", json={}, headers={"Origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("encoding", Encoding)
def test_spans_without_ids_are_a_partial_success(encoding: Encoding, bridge: httpx.Client) -> None:
    if encoding is Encoding.JSON:
        body = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}, {"traceId": "0a"}]}]}]}'
        answer = bridge.post("/v1/traces", content=body, headers=JSON).json()
        assert answer["partialSuccess"]["rejectedSpans"] == "2"
        return
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="x")
    sent = bridge.post("/v1/traces", content=request.SerializeToString(), headers=PROTO)
    partly = ExportTraceServiceResponse.FromString(sent.content).partial_success
    assert partly.rejected_spans == 1
    assert "trace id" in partly.error_message


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_sdks_own_exporter_is_served(quick_client: QuickClient, compression: Compression) -> None:
    with FaultyCollector() as collector, bridging(quick_client(collector.url), token="s3cret") as http:  # noqa: S106
        url = f"{http.base_url}/v1/traces"
        headers = {"Authorization": "Bearer s3cret"}
        exporter = OTLPSpanExporter(url, headers=headers, compression=compression)
        assert exporter.export([payment(), server()]) is SpanExportResult.SUCCESS
        exporter.shutdown()  # type: ignore[no-untyped-call]
        collector.wait_for_events(2)
        assert {body["userId"] for body in collector.bodies()} == {"user-7"}


def test_an_answer_waits_until_its_events_are_accepted(quick_client: QuickClient) -> None:
    """A child has ended before its server span: the answer to it comes with that of the other."""
    with (
        FaultyCollector() as collector,
        bridging(quick_client(collector.url)) as http,
        ThreadPoolExecutor() as pool,
    ):
        child = pool.submit(http.post, "/v1/traces", content=otlp([payment()]), headers=PROTO)
        other = http.post(
            "/v1/traces",
            content=otlp([server(context=SpanContext(9, 9, is_remote=False))]),
            headers=PROTO,
        )
        assert other.status_code == 200, "others are served meanwhile"
        time.sleep(0.1)
        assert not child.done()
        assert http.get("/health").status_code == 200
        assert http.post("/v1/traces", content=otlp([server()]), headers=PROTO).status_code == 200
        assert child.result(2).status_code == 200
        collector.wait_for_events(3)
        (engagement,) = collector.bodies("engagement")
        assert engagement["userId"] == "user-7"


def test_an_answer_may_come_earlier(quick_client: QuickClient) -> None:
    """For a sender that would hold back the server span until then."""
    with FaultyCollector() as collector:
        client = quick_client(collector.url, identity_wait_millis=800)
        with bridging(client, limits=Limits(answer_seconds=0)) as http:
            other = payment(
                context=SpanContext(8, 9, is_remote=False), parent=SpanContext(8, 8, is_remote=False)
            )
            for spans in ([payment()], [other], [server()]):
                assert http.post("/v1/traces", content=otlp(spans), headers=PROTO).status_code == 200
            collector.wait_for_events(2)
            assert [body["userId"] for body in collector.bodies("engagement")] == ["user-7"]
            collector.wait_for_events(3)
            assert eventually(lambda: client.stats().noted.get("scattered") == 1)


def test_at_the_end_what_waits_is_let_go_and_answered(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector, ThreadPoolExecutor() as pool:
        client = quick_client(collector.url)
        with bridging(client, limits=Limits(held=1, grace_seconds=0.05)) as http:
            child = pool.submit(
                httpx.post, f"{http.base_url}/v1/traces", content=otlp([payment()]), headers=PROTO
            )
            assert eventually(lambda: http.get("/health").status_code == 503)
        assert child.result(2).status_code == 200
        assert client.flush(2_000)
        assert len(collector.bodies("engagement")) == 1


def export_to(channel: Any) -> Any:
    """Return the method that SDKs call."""
    return TraceServiceStub(channel).Export  # type: ignore[no-untyped-call]


def test_without_room_nothing_is_taken_and_asked_for_later(quick_client: QuickClient) -> None:
    with FaultyCollector(then=Hang()) as collector:
        client = quick_client(collector.url, max_queue_size=2)
        with bridging(client, otlp_grpc=LOCAL) as http:
            call = otlp([server(context=SpanContext(number, 1, is_remote=False)) for number in (1, 2)])
            assert http.post("/v1/traces", content=call, headers=PROTO).status_code == 200
            full = http.post("/v1/traces", content=call, headers=PROTO)
            assert (full.status_code, full.headers["Retry-After"]) == (503, "1")
            assert "full" in status_of(full)
            relayed = http.post(ENGAGEMENT_URL, json=[LIKE, LIKE, LIKE])
            assert relayed.status_code == 413, "more than it advertises"
            view = {"contentId": "a", "contentType": "b", "sessionId": "c", "deviceType": "d", "app": "e"}
            relayed = http.post(VIEW_URL, json=view)
            assert (relayed.status_code, relayed.headers["Retry-After"]) == (503, "1")
            assert (http.get("/health").status_code, http.get("/health").json()) == (503, {"status": "full"})
            with pytest.raises(grpc.RpcError) as raised, grpc.insecure_channel(http.headers["X-Grpc"]) as to:
                export_to(to)(ExportTraceServiceRequest.FromString(call), timeout=5)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert client.stats().accepted == 2


def test_held_requests_and_their_bytes_are_bounded(quick_client: QuickClient) -> None:
    limits = Limits(held=1, held_bytes=2_000, grace_seconds=0.05)
    with (
        FaultyCollector() as collector,
        ThreadPoolExecutor() as pool,
        bridging(quick_client(collector.url), limits=limits) as http,
    ):
        large = http.post("/v1/traces", content=b"\0" * 2_001, headers=PROTO)
        assert (large.status_code, large.headers["Retry-After"]) == (503, "1")
        assert "bytes" in status_of(large)
        held = pool.submit(httpx.post, f"{http.base_url}/v1/traces", content=otlp([payment()]), headers=PROTO)
        assert eventually(lambda: http.get("/health").status_code == 503)
        turned_away = http.post("/v1/traces", content=otlp([server()]), headers=PROTO)
        assert (turned_away.status_code, turned_away.headers["Retry-After"]) == (503, "1")
        assert not held.done()


def test_a_slow_body_is_cut_off(quick_client: QuickClient) -> None:
    limits = Limits(request_seconds=0.2)
    with (
        FaultyCollector() as collector,
        bridging(quick_client(collector.url, identity_wait_millis=0), limits=limits) as http,
        socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=5) as slow,
    ):
        slow.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        started = time.monotonic()
        with suppress(ConnectionError):
            assert slow.recv(100) == b""
        assert time.monotonic() - started < 2


def test_a_token_guards_all_but_health(quick_client: QuickClient, caplog: pytest.LogCaptureFixture) -> None:
    with (
        FaultyCollector() as collector,
        bridging(quick_client(collector.url), otlp_grpc=LOCAL, token="s3cret") as http,  # noqa: S106
    ):
        for shown in ("", "Bearer other", "Bearer s3cret2", "Basic s3cret", b"Bearer s3cr\xe9t"):
            headers: Any = {**PROTO, "Authorization": shown}
            answer = http.post("/v1/traces", content=b"", headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "s3cret" not in answer.text
        for path in (VIEW_URL, ENGAGEMENT_URL):
            assert http.post(path, json=LIKE, headers={"X-Write-Key": "other"}).status_code == 401
        assert http.post(
            "/v1/traces", content=b"", headers={**PROTO, "Authorization": "Bearer s3cret"}
        ).is_success
        assert http.post(ENGAGEMENT_URL, json=LIKE, headers={"X-Write-Key": "s3cret"}).is_success
        assert http.get("/health").is_success
        with grpc.insecure_channel(http.headers["X-Grpc"]) as channel:
            export = export_to(channel)
            with pytest.raises(grpc.RpcError) as raised:
                export(ExportTraceServiceRequest(), timeout=5)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            metadata = (("authorization", "Bearer s3cret"),)
            assert export(ExportTraceServiceRequest(), timeout=5, metadata=metadata).ByteSize() == 0
    assert "s3cret" not in caplog.text


def test_grpc_takes_what_http_takes(quick_client: QuickClient) -> None:
    with (
        FaultyCollector() as collector,
        bridging(quick_client(collector.url), otlp_grpc=LOCAL, limits=Limits(body_bytes=SMALL)) as http,
        grpc.insecure_channel(http.headers["X-Grpc"]) as channel,
    ):
        export = export_to(channel)
        whole = ExportTraceServiceRequest.FromString(otlp([payment(), server()]))
        assert export(whole, timeout=5).ByteSize() == 0
        assert export(whole, timeout=5, compression=grpc.Compression.Gzip).ByteSize() == 0
        collector.wait_for_events(2)

        nameless = ExportTraceServiceRequest()
        nameless.resource_spans.add().scope_spans.add().spans.add(name="x")
        assert export(nameless, timeout=5).partial_success.rejected_spans == 1
        logs: Any = LogsServiceStub(channel)  # type: ignore[no-untyped-call]
        assert logs.Export(ExportLogsServiceRequest(), timeout=5).ByteSize() == 0

        bomb = ExportTraceServiceRequest()
        bomb.resource_spans.add(schema_url="x" * 2_000_000)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            assert _code(lambda: export(bomb, timeout=5, compression=compression)) == "RESOURCE_EXHAUSTED"  # noqa: B023
        raw = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        assert _code(lambda: raw(b"\xff", timeout=5)) == "INVALID_ARGUMENT"
        metrics = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        assert _code(lambda: metrics(b"", timeout=5)) == "UNIMPLEMENTED"


def _code(call: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    name: str = raised.value.code().name
    return name


def test_a_relay_takes_batches_and_sends_singles(quick_client: QuickClient) -> None:
    """The same bytes, with the same ids, though the collector is unwell for a while."""
    with FaultyCollector(Unavailable(), Unavailable()) as collector:
        with bridging(quick_client(collector.url)) as http:
            url = str(http.base_url).rstrip("/")
            client = quick_client(url, flush_interval_millis=50)
            client.track_api_call("/first", "GET", 200)
            assert client.flush(5_000), "which learns that batches are taken"
            for number in range(40):
                client.track_engagement(f"user-{number}", "like", "söme \u2603", "product", {"n": 1.50})
            assert client.flush(5_000)
            collector.wait_for_events(41)
        assert max(collector.event_ids().values()) == 1
        assert all(not isinstance(request.json, list) for request in collector.requests)
        ids = {body["metadata"]["eventId"] for body in collector.bodies()}
        assert ids == {*collector.event_ids()}


def test_relayed_bytes_are_as_they_came(quick_client: QuickClient) -> None:
    one = (
        b'{"userId" : "\\u00e9","metricType":"like",\n"targetId":"t","targetType":"p","metadata":{"x":1.5e0}}'
    )
    with FaultyCollector() as collector, bridging(quick_client(collector.url)) as http:
        for key, body in (
            ("k-1", b" [ %b ,%b\n] " % (one, one)),
            ("k-1", b"[%b,%b]" % (one, one)),
            ("k-2", one),
        ):
            answer = http.post(ENGAGEMENT_URL, content=body, headers={**JSON, "Idempotency-Key": key})
            assert answer.json() == {"received": 1 if body == one else 2, "failures": []}
            assert answer.headers["X-Analytics-Batch"] == "max=512; bytes=1000000; encoding=gzip"
        assert eventually(lambda: len(collector.requests) == 5)
        assert {request.body for request in collector.requests} == {one}
        ids = [request.headers["idempotency-key"] for request in collector.requests]
        assert sorted(ids.count(each) for each in {*ids}) == [1, 2, 2], "sent again, it is the same"
        assert "k-2" in ids


def test_equal_events_that_nothing_tells_apart_are_two(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector, bridging(quick_client(collector.url)) as http:
        for _ in range(2):
            assert http.post(ENGAGEMENT_URL, json=LIKE).json() == {"received": 1, "failures": []}
        collector.wait_for_events(2)


BROKEN: Mapping[str, tuple[Any, int, str]] = {
    "an event": ({**LIKE, "userId": ""}, 400, "$.userId: must be a non-empty string"),
    "JSON": (b"[{},", 400, "must be valid JSON"),
    "more JSON": (b"[] []", 400, "Extra data"),
    "a comma": (b'["" ""]', 400, "',' delimiter"),
    "depth": (b"[" * 90 + b"]" * 90, 400, "nested too deeply"),
    "NaN": (b"[NaN]", 400, "a number JSON does not have"),
    "many": ([LIKE] * 513, 413, "at most 512 events"),
    "a split id": ({**LIKE, "metadata": {"eventId": "a\r\nX-Write-Key: b"}}, 200, ""),
    "a long id": ({**LIKE, "metadata": {"eventId": "a" * 9_000}}, 200, ""),
    "no object": ({**LIKE, "metadata": []}, 400, "$.metadata: must be an object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_contract_is_not_relayed(
    name: str, bridge: httpx.Client, collector: FaultyCollector
) -> None:
    sent, status, message = BROKEN[name]
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    before = len(collector.stored)
    answer = bridge.post(ENGAGEMENT_URL, content=body, headers=JSON)
    assert answer.status_code == status
    if status != 200:
        assert message in " ".join(answer.json()["errors"])
        assert answer.headers["X-Analytics-Batch"]
        return
    assert eventually(lambda: len(collector.stored) > before)
    assert len(collector.requests[-1].headers["idempotency-key"]) <= 256
    assert "x-write-key" not in collector.requests[-1].headers


def test_one_bad_event_leaves_the_others_of_its_batch(bridge: httpx.Client) -> None:
    answer = bridge.post(ENGAGEMENT_URL, json=[LIKE, {}, LIKE]).json()
    assert answer["received"] == 3
    (failure,) = answer["failures"]
    assert (failure["index"], failure["status"]) == (1, "rejected")


# The command


def test_a_killed_bridge_leaves_its_events_to_the_next_one(tmp_path: Path) -> None:
    """Answered 200 while the collector is down, killed, and delivered by another one on the same spool."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        arguments = ["--otlp", "127.0.0.1:0", "--spool", str(tmp_path / "spool")]
        with bridge_process(collector, *arguments) as (process, url):
            spans = [
                server(
                    context=SpanContext(number, 1, is_remote=False), events=[make_event("message_sent", {})]
                )
                for number in range(1, 51)
            ]
            assert httpx.post(f"{url}/v1/traces", content=otlp(spans), headers=PROTO).status_code == 200
            assert httpx.post(url + ENGAGEMENT_URL, json=[LIKE]).status_code == 200
            process.kill()
            process.wait(10)
        collector.resume()
        with bridge_process(collector, *arguments) as (process, _):
            collector.wait_for_events(101, 20_000)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
            assert process.returncode == 0, output
            assert "Stopped: " in output
        assert max(collector.event_ids().values()) == 1


def test_a_bridge_that_ends_delivers_first() -> None:
    with FaultyCollector() as collector:
        secret = {TOKEN_VARIABLE: "s3cret"}
        with bridge_process(collector, "--otlp", "127.0.0.1:0", **secret) as (process, url):
            headers = {**PROTO, "Authorization": "Bearer s3cret"}
            assert (
                httpx.post(f"{url}/v1/traces", content=otlp([server()]), headers=headers).status_code == 200
            )
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
            assert (process.returncode, output) == (0, "Stopped: 1 events accepted, 1 delivered\n")
            assert len(collector.bodies("view")) == 1


def test_what_is_lost_at_the_end_is_a_failure() -> None:
    with FaultyCollector(then=Hang()) as collector:
        short = {"OTEL_EXPORTER_ANALYTICS_SHUTDOWN_TIMEOUT": "200"}
        with bridge_process(collector, "--otlp", "127.0.0.1:0", **short) as (process, url):
            assert httpx.post(f"{url}/v1/traces", content=otlp([server()]), headers=PROTO).status_code == 200
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
            assert process.returncode == 1, output


@contextmanager
def bridge_process(
    collector: FaultyCollector, *arguments: str, **environ: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_analytics", "bridge", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(collector.url, environ),
    )
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("Bridge: "), said + process.stdout.read()
            yield process, "http://" + said.partition("http://")[2].partition(",")[0]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("host", "token", "warned"),
    [("127.0.0.1", None, False), ("0.0.0.0", "s3cret", False), ("0.0.0.0", None, True)],  # noqa: S104
)
def test_other_machines_are_warned_about(
    host: str, token: str | None, warned: bool, quick_client: QuickClient
) -> None:
    said: list[str] = []

    def announce(line: str) -> None:
        said.append(line)
        if line.startswith("Bridge: "):
            signal.raise_signal(signal.SIGTERM)

    client = quick_client("http://127.0.0.1:9")
    assert serve(client, announce=announce, otlp_grpc=Address(host, 0), token=token)
    assert [line.startswith("WARNING: other machines can send") for line in said] == [True, False][
        not warned :
    ]
    assert "s3cret" not in "".join(said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a source"),
        (["--otlp", "localhost:0", "--kafka", "localhost:9"], "run one for each"),
        (["--kafka", "localhost:9", "--topic", "t", "--token", "s3cret"], "--token: only with --otlp"),
        (["--otlp", "localhost:0", "--logs-topic", "t"], "--logs-topic: only with --kafka"),
        (["--kafka", "localhost:9"], "--kafka needs --topic NAME"),
        (["--kafka", "localhost:9", "--topic", "t", "--spool", "spool"], "Kafka keeps what is not delivered"),
        (["--otlp", "localhost:0", "--token", "s\necret"], "token=<hidden>: must be visible ASCII"),
        (["--otlp", "localhost:0", "--endpoint", "nowhere"], "endpoint="),
    ],
)
def test_what_makes_no_bridge_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "ecret" not in error


@pytest.mark.parametrize("option", ["--otlp", "--otlp-grpc"])
def test_a_taken_port_is_one_clear_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["bridge", option, address]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"otel-analytics: cannot listen on {address}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["4318", ":4318", "localhost", "localhost:", "localhost:99999", "::1", "[::1]"]
)
def test_what_is_no_address_is_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bridge", "--otlp", text])
    assert f"invalid address value: '{text}'" in capsys.readouterr().err
