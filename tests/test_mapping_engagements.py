from __future__ import annotations

import uuid
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from span_making import START, engagement_of, make_event, make_span, mapper

from otel_analytics.contract import Kind
from otel_analytics.events import BusinessEvent, EngagementEvent
from otel_analytics.mapping.ids import NAMESPACE

CALL = {"http.method": "POST", "http.route": "/orders", "user.id": "u1"}
TRACE = {"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7"}


def test_an_engagement_is_the_contracts_engagement() -> None:
    event = make_event("payment_processed", {"user.id": "u7", "target.id": "o1", "amount": 12.5})
    name = f"engagement/{TRACE['traceId']}/{TRACE['spanId']}/{START + 1_000_000}/0/payment_processed"
    assert engagement_of(event).body() == {
        "userId": "u7",
        "metricType": "purchase",
        "targetId": "o1",
        "targetType": "content",
        "metadata": {
            "amount": 12.5,
            "businessEventType": "payment_processed",
            **TRACE,
            "eventId": str(uuid.uuid5(NAMESPACE, name)),
            "timestamp": "2023-11-14T22:13:20.124Z",
        },
    }


@pytest.mark.parametrize(
    ("name", "metric_type"),
    [
        ("message_sent", "comment"),
        ("message_received", "comment"),
        ("stream_started", "subscribe"),
        ("stream_ended", "subscribe"),
        ("payment_processed", "purchase"),
    ],
)
def test_the_contracts_table(name: str, metric_type: str) -> None:
    assert engagement_of(make_event(name)).metric_type == metric_type


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("payment.processed", "payment_processed"),
        ("PaymentProcessed", "payment_processed"),
        ("Payment Processed", "payment_processed"),
        ("payment-processed", "payment_processed"),
        ("PAYMENT_PROCESSED", "payment_processed"),
        ("Message sent", "message_sent"),
        ("message.received", "message_received"),
        ("streamStarted", "stream_started"),
        ("stream:ended", "stream_ended"),
        ("Invoice paid", "invoice.paid"),
    ],
)
def test_names_as_people_write_them(written: str, name: str) -> None:
    options = {"business_events": {"invoice.paid": "purchase"}}
    assert engagement_of(make_event(written), options=options).metadata["businessEventType"] == name


def test_a_name_of_the_options_wins_over_one_that_is_written_like_it() -> None:
    options = {"business_events": {"PaymentProcessed": "donation"}}
    made = [
        engagement_of(make_event(name), options=options) for name in ("PaymentProcessed", "payment_processed")
    ]
    assert [each.metric_type for each in made] == ["donation", "purchase"]


@pytest.mark.parametrize(
    ("name", "resembled"),
    [
        ("payment_process", "payment_processed"),
        ("payments.processed", "payment_processed"),
        ("app.payment.processed", "payment_processed"),
        ("processed payment", "payment_processed"),
        ("payment_succeeded", "payment_processed"),
        ("mesage_sent", "message_sent"),
        ("stream stopped", "stream_ended"),
        ("invoice_payed", "invoice_paid"),
        ("payment_processed o-4711", "payment_processed"),
    ],
)
def test_near_misses_are_counted_and_named(name: str, resembled: str) -> None:
    shared = mapper(business_events={"invoice_paid": "purchase"})
    span = make_span({}, kind=SpanKind.INTERNAL, events=[make_event(name), make_event(name)])
    assert shared.map(span).events == []
    counts, names = shared.noticed.take()
    assert (counts, [each.near for each in names]) == ({"near_misses": 2}, [resembled])
    assert "4711" not in str(names)
    assert shared.noticed.take() == ({}, [])
    shared.map(span)
    assert shared.noticed.take() == ({"near_misses": 2}, []), "a name is told once"


@pytest.mark.parametrize(
    "name",
    ["exception", "payment_failed", "message", "stream_chunk", "cache_hit", "", "_", "retry", "x" * 999],
)
def test_other_names_are_no_near_misses(name: str) -> None:
    shared = mapper()
    shared.map(make_span({}, kind=SpanKind.INTERNAL, events=[make_event(name)]))
    is_expected = name in {"exception", "message", ""}
    assert shared.noticed.take()[0] == ({} if is_expected else {"not_business_events": 1})


@pytest.mark.parametrize("kind", list(SpanKind))
def test_events_of_any_kind_of_span(kind: SpanKind) -> None:
    assert engagement_of(make_event("message_sent"), kind=kind)


def test_other_events_are_not_business() -> None:
    events = [make_event("exception"), make_event("cache_hit", {"analytics.metric_type": ""})]
    assert mapper().map(make_span({}, kind=SpanKind.INTERNAL, events=events)) == ([], [])


def test_an_event_may_carry_its_metric_type() -> None:
    engagement = engagement_of(make_event("signed_up", {"analytics.metric_type": "signup"}))
    assert (engagement.metric_type, engagement.metadata["businessEventType"]) == ("signup", "signed_up")
    assert "analytics.metric_type" not in engagement.metadata


def test_its_own_metric_type_wins_over_the_table() -> None:
    business = {"invoice_paid": BusinessEvent("purchase", "invoice", "invoice.id")}
    event = make_event("invoice_paid", {"analytics.metric_type": "renewal", "invoice.id": 17})
    engagement = engagement_of(event, options={"business_events": business})
    assert (engagement.metric_type, engagement.target_type) == ("renewal", "invoice")
    assert (engagement.target_id, engagement.metadata["invoice.id"]) == ("17", 17)


@pytest.mark.parametrize(
    ("on_event", "on_span", "user_id"),
    [
        ({"user.id": "e"}, {"user.id": "s"}, "e"),
        ({"enduser.id": "e"}, {"user.id": "s"}, "e"),
        ({"user_id": "e", "customer.id": "c"}, {}, "e"),
        ({"app.user.id": "e"}, {"user.id": "s"}, "e"),
        ({"customer_id": 17}, {"user.id": "s"}, "17"),
        ({"user.id": "None", "customer.id": "c"}, {"user.id": "s"}, "c"),
        ({"user.email": "e@h.example", "user.name": "Jane"}, {}, "anonymous-e929d0e0e4736"),
        ({}, {"app.user.id": "s"}, "s"),
        ({}, {"customer.id": "c", "user_id": "s"}, "s"),
        ({}, {"customer.id": "c"}, "c"),
        ({}, {"user.id": "s"}, "s"),
        ({}, {}, "anonymous-e929d0e0e4736"),
    ],
)
def test_user(on_event: dict[str, Any], on_span: dict[str, Any], user_id: str) -> None:
    assert engagement_of(make_event("message_sent", on_event), on_span).user_id == user_id


def test_without_an_anonymous_user_such_events_are_dropped_and_named() -> None:
    span = make_span({}, kind=SpanKind.INTERNAL, events=[make_event("message_sent")])
    mapped = mapper(anonymous_user_id="").map(span)
    assert (mapped.events, mapped.dropped) == ([], [(Kind.ENGAGEMENT, "anonymous")])


def test_an_ignored_event_is_dropped_and_named() -> None:
    event = make_event("message_sent", {"analytics.ignore": True})
    mapped = mapper().map(make_span(CALL, events=[event]))
    assert [event.kind for event in mapped.events] == [Kind.VIEW]
    assert mapped.dropped == [(Kind.ENGAGEMENT, "ignored")]


@pytest.mark.parametrize(
    ("extra", "target_id"),
    [
        ({}, "POST:/orders"),
        ({"analytics.content_id": "c1"}, "c1"),
        ({"analytics.ignore": True}, "POST:/orders"),
    ],
)
def test_on_a_server_span_the_target_is_what_was_viewed(extra: dict[str, Any], target_id: str) -> None:
    mapped = mapper().map(make_span({**CALL, **extra}, events=[make_event("payment_processed")]))
    (engagement,) = (event for event in mapped.events if isinstance(event, EngagementEvent))
    assert (engagement.target_id, engagement.user_id) == (target_id, "u1")


@pytest.mark.parametrize(
    ("name", "target_id"),
    [
        ("charge", "charge"),
        ("GET https://u:p@h/a?token=s", "GET https://h/a"),
        ("", "message_sent"),
        ("run/tasks.charge[9ea43cd7-bd77-494d-8fac-209c0dc7a438]", "run/tasks.charge[{id}]"),
        ("charge order 4711", "charge order {id}"),
        ("mail jane@h.example", "mail {id}"),
    ],
)
def test_elsewhere_the_target_is_the_span(name: str, target_id: str) -> None:
    assert engagement_of(make_event("message_sent"), name=name).target_id == target_id


@pytest.mark.parametrize(
    ("name", "on_event", "on_span", "target_id"),
    [
        ("payment_processed", {"target.id": "t", "order.id": "o"}, {}, "t"),
        ("payment_processed", {"transaction.id": "x", "payment_id": "p", "order_id": 7}, {}, "7"),
        ("payment_processed", {"transaction.id": "x", "app.payment.id": "p"}, {}, "p"),
        ("payment_processed", {"app.transaction_id": "x"}, {"target.id": "t"}, "x"),
        ("payment_processed", {"order.id": "None", "payment.id": "p"}, {}, "p"),
        ("payment_processed", {"message.id": "m"}, {"app.order.id": "o"}, "o"),
        ("payment_processed", {}, {"target.id": "t", "order.id": "o"}, "t"),
        ("message_sent", {"thread.id": "t", "message_id": "m"}, {}, "m"),
        ("message_received", {}, {"thread_id": "t"}, "t"),
        ("stream_started", {"app.stream.id": "s"}, {}, "s"),
        ("stream_ended", {"order.id": "o"}, {}, "charge"),
        ("invoice_paid", {"app.invoice_id": "i", "order.id": "o"}, {}, "i"),
    ],
)
def test_the_target_is_what_the_event_else_its_span_names(
    name: str, on_event: dict[str, Any], on_span: dict[str, Any], target_id: str
) -> None:
    business = {"invoice_paid": BusinessEvent("purchase", target_id_attribute="invoice.id")}
    engagement = engagement_of(make_event(name, on_event), on_span, options={"business_events": business})
    assert engagement.target_id == target_id


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"http.status_code": 503}, 503),
        ({"http.status_code": 404}, None),
        ({"http.status_code": 201}, None),
        ({"http.method": "", "rpc.system": "grpc", "rpc.grpc.status_code": 13}, 13),
        ({"http.method": "", "rpc.system": "grpc", "rpc.grpc.status_code": 5}, None),
    ],
)
def test_an_event_of_a_request_that_failed_says_so(attributes: dict[str, Any], status: int | None) -> None:
    mapped = mapper().map(make_span({**CALL, **attributes}, events=[make_event("payment_processed")]))
    (engagement,) = (event for event in mapped.events if isinstance(event, EngagementEvent))
    assert engagement.metadata.get("statusCode") == status


def test_target_type() -> None:
    assert engagement_of(make_event("message_sent", {"target.type": "room"})).target_type == "room"


def test_urls_in_attributes_are_bare() -> None:
    attributes = {"url.full": "https://u:p@h/a?token=s", "url.query": "token=s", "note": "a?b"}
    metadata = engagement_of(make_event("message_sent", attributes)).metadata
    assert metadata["url.full"] == "https://h/a"
    assert "url.query" not in metadata
    assert metadata["note"] == "a?b"


def test_the_mappings_names_win_over_attributes_of_the_same_name() -> None:
    attributes = {"businessEventType": "x", "traceId": "y", "eventId": "z"}
    engagement = engagement_of(make_event("message_sent", attributes))
    metadata = engagement.body()["metadata"]
    assert (metadata["businessEventType"], metadata["traceId"]) == ("message_sent", TRACE["traceId"])
    assert metadata["eventId"] == engagement.event_id


def test_equal_events_are_told_apart_by_their_ordinal() -> None:
    twice = [make_event("message_sent", {"n": number}) for number in range(2)]
    events = mapper().map(make_span({}, kind=SpanKind.INTERNAL, events=twice)).events
    assert len({event.event_id for event in events}) == 2


def test_an_events_id_does_not_depend_on_which_others_are_business() -> None:
    span = make_span(
        {}, kind=SpanKind.INTERNAL, events=[make_event("invoice_paid"), make_event("message_sent")]
    )
    (alone,) = mapper().map(span).events
    _, together = mapper(business_events={"invoice_paid": "purchase"}).map(span).events
    assert alone.event_id == together.event_id
