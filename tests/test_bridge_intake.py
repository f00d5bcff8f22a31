"""What a bridge takes is known by its receipt: when it is safe, and when it has arrived."""

from __future__ import annotations

import time

import pytest
from conftest import QuickClient
from driving import eventually
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind
from otlp_making import otlp
from span_making import SPAN_ID, START, TRACE_ID, make_event, make_span

from otel_analytics import AnalyticsClient
from otel_analytics.bridge.intake import Intake, NoRoomError, Receipt, Signal
from otel_analytics.bridge.otlp import Encoding, OtlpError
from otel_analytics.testing import FaultyCollector, Hang

CALL = {"http.request.method": "POST", "http.route": "/buy", "http.response.status_code": 200}
CHILD_ID = 0xC
NANOS = 1_000_000


def server(**fields: object) -> ReadableSpan:
    return make_span({**CALL, "user.id": "user-7"}, **fields)


def payment(**fields: object) -> ReadableSpan:
    return make_span(
        **{
            "name": "charge",
            "kind": SpanKind.INTERNAL,
            "context": SpanContext(TRACE_ID, CHILD_ID, is_remote=False),
            "parent": SpanContext(TRACE_ID, SPAN_ID, is_remote=False),
            "events": [make_event("payment_processed", {"order_id": "o-1"})],
            **fields,
        }
    )


def take(intake: Intake, *spans: ReadableSpan) -> Receipt:
    return intake.take(otlp(spans), Signal.TRACES, Encoding.PROTO)


def test_what_waits_for_its_server_span_is_not_accepted_before_that_has_come(
    quick_client: QuickClient,
) -> None:
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url))
        waits = take(intake, payment())
        assert not waits.is_accepted()
        assert not waits.is_settled()
        whole = take(intake, server())
        assert whole.is_accepted()
        assert waits.is_accepted()
        assert eventually(waits.is_settled)
        assert eventually(whole.is_settled)
        (engagement,) = collector.bodies("engagement")
        assert engagement["userId"] == "user-7"
        assert len(collector.bodies("view")) == 1
        assert "scattered" not in intake.client.stats().noted


def test_a_batch_that_holds_the_whole_request_is_accepted_at_once(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url))
        assert not take(intake, payment(context=SpanContext(9, 1, is_remote=False))).is_accepted()
        assert take(intake, payment(), server()).is_accepted(), "whatever else waits"


def test_an_event_of_a_scattered_trace_goes_after_the_wait_and_is_counted(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url, identity_wait_millis=60))
        started = time.monotonic()
        receipt = take(intake, payment())
        assert eventually(receipt.is_accepted)
        assert 0.05 < time.monotonic() - started < 1
        assert eventually(receipt.is_settled)
        assert intake.client.stats().noted["scattered"] == 1
        assert len(collector.bodies("engagement")) == 1


def test_what_there_is_no_room_for_is_not_taken(quick_client: QuickClient) -> None:
    with FaultyCollector(then=Hang()) as collector:
        intake = Intake(quick_client(collector.url, max_queue_size=3))

        def one(number: int) -> ReadableSpan:
            return server(context=SpanContext(number + 1, 1, is_remote=False))

        take(intake, one(1), one(2))
        with pytest.raises(NoRoomError):
            take(intake, one(3), one(4))
        assert intake.has_room()
        take(intake, one(3))
        assert not intake.has_room()
        assert intake.client.stats().accepted == 3
        assert not intake.client.stats().dropped


def test_more_than_the_queue_holds_is_taken_when_that_is_empty(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url, max_queue_size=3))
        events = [make_event("message_sent", {}, START + number) for number in range(5)]
        take(intake, server(events=events))
        assert intake.client.flush(5_000)
        assert intake.client.stats().accepted == 6


def test_spans_without_ids_are_rejected_and_counted(quick_client: QuickClient) -> None:
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url))
        body = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}, {"traceId": "0a"}]}]}]}'
        assert intake.take(body, Signal.TRACES, Encoding.JSON).rejected == 2
        assert intake.client.stats().dropped == {"invalid": 2}
        with pytest.raises(OtlpError):
            intake.take(b"\xff", Signal.TRACES, Encoding.PROTO)


def test_a_log_record_is_joined_to_its_request_and_counted_once(quick_client: QuickClient) -> None:
    message = ExportLogsServiceRequest()
    of_resource = message.resource_logs.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    record = of_resource.scope_logs.add().log_records.add(
        time_unix_nano=START, event_name="payment_processed"
    )
    record.trace_id, record.span_id = TRACE_ID.to_bytes(16, "big"), CHILD_ID.to_bytes(8, "big")
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url))
        receipt = intake.take(message.SerializeToString(), Signal.LOGS, Encoding.PROTO)
        assert not receipt.is_accepted()
        shop = Resource({"service.name": "shop"})
        take(intake, payment(resource=shop), server(resource=shop))
        assert eventually(receipt.is_settled)
        (engagement,) = collector.bodies("engagement")
        assert engagement["userId"] == "user-7"


def test_each_service_has_views_and_second_spans_of_its_own(quick_client: QuickClient) -> None:
    """A gateway's and a shop's spans of one trace overlap in time, and are two calls."""
    with FaultyCollector() as collector:
        intake = Intake(quick_client(collector.url))
        shop = server(
            context=SpanContext(TRACE_ID, 2, is_remote=False),
            parent=SpanContext(TRACE_ID, SPAN_ID, is_remote=True),
            resource=Resource({"service.name": "shop"}),
        )
        gateway = server(resource=Resource({"service.name": "gateway"}), end_time=START + 50 * NANOS)
        take(intake, shop, gateway)
        assert intake.client.flush(5_000)
        assert len(collector.bodies("view")) == 2


def test_views_are_of_their_own_services() -> None:
    with FaultyCollector() as collector, AnalyticsClient(collector.url) as client:
        intake = Intake(client)
        for number, name in enumerate(["shop", "gateway"]):
            context = SpanContext(TRACE_ID, number + 1, is_remote=False)
            take(intake, server(context=context, resource=Resource({"service.name": name})))
        assert client.flush(5_000)
        assert sorted(body["app"] for body in collector.bodies("view")) == ["gateway", "shop"]


@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
def test_a_receipt_is_settled_once_the_collector_has_it(
    quick_client: QuickClient, tmp_path: object, spooled: bool
) -> None:
    options = {"spool_path": f"{tmp_path}/spool"} if spooled else {}
    with FaultyCollector() as collector:
        collector.stop_listening()
        intake = Intake(quick_client(collector.url, **options))
        receipt = take(intake, server())
        assert receipt.is_accepted()
        assert not receipt.is_settled()
        collector.resume()
        assert eventually(receipt.is_settled)
        assert len(collector.bodies("view")) == 1
