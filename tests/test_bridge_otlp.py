"""A span gives the same bytes through OTLP as through the exporter, in either encoding."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from corpus_spans import FRAMEWORKS, MODES, load
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceState
from otlp_making import otlp, with_hex_ids
from span_making import END, SPAN_ID, START, TRACE_ID, make_span

from otel_analytics.bridge.otlp import Encoding, OtlpError, logs_of, spans_of
from otel_analytics.config import Config
from otel_analytics.events import EncodedEvent, encoded_form
from otel_analytics.mapping import semconv
from otel_analytics.mapping.options import options_from_config
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.reading import link_of
from otel_analytics.mapping.spans import SpanMapper

ENCODINGS = list(Encoding)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=6)
)
VALUES = st.one_of(
    SCALARS, st.lists(TEXTS, max_size=3).map(tuple), st.dictionaries(TEXTS, SCALARS, max_size=2)
)
KEYS = st.sampled_from(
    [
        *semconv.OF_CALLS,
        *semconv.PATH,
        *semconv.USER_ID,
        *semconv.SESSION_ID,
        *semconv.TARGET_ID,
        *semconv.METRIC_TYPE,
        "client.address",
        "amount",
    ]
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=8)
NAMES = st.sampled_from(["GET /orders/{id}", "payment_processed", "MessageSent", "exception", ""])
EVENTS = st.lists(st.builds(Event, NAMES, ATTRIBUTES, st.integers(START, END)), max_size=3)
SPANS = st.builds(
    ReadableSpan,
    NAMES,
    kind=st.sampled_from(SpanKind),
    context=st.builds(
        SpanContext,
        st.integers(1, 2**128 - 1),
        st.integers(1, 2**64 - 1),
        st.just(value=False),
        trace_state=st.sampled_from([TraceState(), TraceState([("ot", "th:c"), ("x", "1")])]),
    ),
    parent=st.none()
    | st.builds(SpanContext, st.just(TRACE_ID), st.integers(1, 2**64 - 1), is_remote=st.booleans()),
    resource=st.builds(Resource, st.dictionaries(st.just("service.name"), TEXTS)),
    attributes=ATTRIBUTES,
    events=EVENTS,
    status=st.builds(Status, st.sampled_from(StatusCode)),
    start_time=st.integers(START, END),
    end_time=st.integers(START, END + 1),
    instrumentation_scope=st.builds(InstrumentationScope, st.sampled_from(["asgi", "fastapi", "otelhttp"])),
)


def made_of(spans: list[Any]) -> list[bytes]:
    """Return the bodies that a mapper of its own makes."""
    mapper = SpanMapper(options_from_config(Config()), encoded_form(view_metadata=True))
    return [body_of(each) for span in spans for each in mapper.map(span).events]


def is_sayable(span: ReadableSpan) -> bool:
    """Whether OTLP has values for all that a span holds: integers of 64 bits, text that is UTF-8."""
    values = [*(span.attributes or {}).values()]
    values += [value for event in span.events for value in (event.attributes or {}).values()]
    return all(
        not (isinstance(value, int) and value.bit_length() > 63) and str(value).isprintable()
        for value in values
    )


def body_of(event: Any) -> bytes:
    assert isinstance(event, EncodedEvent)
    return event.body


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_recorded_spans_give_the_same_bytes(framework: str, encoding: Encoding) -> None:
    recorded = [span for each in load(framework) for span in each.spans if each.mode == MODES[0]]
    spans = [span for span in recorded if is_sayable(span)]
    assert len(spans) > len(recorded) * 0.9
    # One by one: a request groups spans by their scopes, and the mapping remembers what came first.
    decoded = [each for span in spans for each in spans_of(otlp([span], encoding), encoding)]
    assert made_of(decoded) == made_of(spans) != []


@settings(deadline=None, max_examples=150)
@given(SPANS)
@example(make_span({"http.request.method": "GET", "url.path": "/", "nan": float("nan")}))
def test_any_span_gives_the_same_bytes(span: ReadableSpan) -> None:
    for encoding in ENCODINGS:
        (decoded,) = spans_of(otlp([span], encoding), encoding)
        assert link_of(decoded) == link_of(span)
        assert made_of([decoded]) == made_of([span])


def test_an_old_sdk_does_not_say_which_parents_are_remote() -> None:
    server = {"traceId": "0a", "spanId": "0b", "parentSpanId": "0c", "kind": 2}
    handler = {"traceId": "0a", "spanId": "0d", "parentSpanId": "0b", "kind": 1}
    inner = {"traceId": "0a", "spanId": "0e", "parentSpanId": "0d", "kind": 2}
    client = {"traceId": "0a", "spanId": "0f", "parentSpanId": "0b", "kind": 3}
    itself = {"traceId": "0a", "spanId": "1f", "parentSpanId": "0f", "kind": 2}
    spans = decoded_both_ways([server, handler, inner, client, itself])
    for each in spans:
        remote = [span.parent is not None and span.parent.is_remote for span in each]
        assert remote == [True, False, False, False, True]


def decoded_both_ways(spans: list[dict[str, Any]]) -> list[list[Span]]:
    """Return spans as decoded from JSON, and from protobuf."""
    message = ExportTraceServiceRequest()
    scope_spans = message.resource_spans.add().scope_spans.add()
    for span in spans:
        raw = scope_spans.spans.add(kind=span["kind"], name=span.get("name", ""))
        raw.trace_id = bytes.fromhex(span["traceId"].zfill(32))
        raw.span_id, raw.parent_span_id = (
            bytes.fromhex(span[key].zfill(16)) if key in span else b"" for key in ("spanId", "parentSpanId")
        )
    written = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    return [
        spans_of(written, Encoding.JSON),
        spans_of(message.SerializeToString(), Encoding.PROTO),
    ]


def test_spans_of_two_processes_are_of_two_requests_though_they_share_the_trace() -> None:
    def of(name: str) -> ReadableSpan:
        return make_span({"http.request.method": "GET"}, resource=Resource({"service.name": name}))

    for encoding in ENCODINGS:
        contexts = [span.context for span in spans_of(otlp([of("a"), of("b"), of("a")], encoding), encoding)]
        requests = [getattr(context, "request", None) for context in contexts]
        assert len(set(requests)) == 2
        assert {context.trace_id for context in contexts if context} == {TRACE_ID}


JUNK = [
    b"",
    b"{}",
    b"\x00\x01\x02",
    b"[]",
    b"null",
    b'"text"',
    b"{",
    b'{"resourceSpans": 3}',
    b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}',
    b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [3]}]}]}]}',
    b'{"resourceSpans": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b"\xff" * 64,
]


@pytest.mark.parametrize("read", [spans_of, logs_of])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_what_is_no_otlp_is_said_to_be_none(read: Any, encoding: Encoding, junk: bytes) -> None:
    try:
        assert read(junk, encoding) == []
    except OtlpError as error:
        assert len(str(error)) < 200  # noqa: PT017 - either is right


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_no_bytes_do_harm(junk: bytes) -> None:
    for encoding in ENCODINGS:
        for cut in (junk, otlp([make_span({"a": 1})], encoding)[: len(junk)] + junk):
            with suppress(OtlpError):
                made_of(spans_of(cut, encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_only_log_records_that_name_an_event_are_decoded(encoding: Encoding) -> None:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for number, (name, attribute) in enumerate([("payment_processed", ""), ("", "message_sent"), ("", "")]):
        record = records.add(time_unix_nano=START + number, event_name=name)
        record.trace_id, record.span_id = TRACE_ID.to_bytes(16, "big"), SPAN_ID.to_bytes(8, "big")
        record.body.string_value = "said"
        if attribute:
            record.attributes.add(key="event.name").value.string_value = attribute
    in_the_body = records.add(observed_time_unix_nano=START)
    in_the_body.body.kvlist_value.values.add(key="event.name").value.string_value = "stream_started"

    written = message.SerializeToString()
    if encoding is Encoding.JSON:
        from google.protobuf import json_format  # noqa: PLC0415

        written = json.dumps(with_hex_ids(json_format.MessageToDict(message))).encode()
    found = logs_of(written, encoding)
    assert [each.timestamp for each in found] == [START, START + 1, None]
    assert [each.trace_id for each in found] == [TRACE_ID, TRACE_ID, 0]
    assert found[2].observed_timestamp == START
