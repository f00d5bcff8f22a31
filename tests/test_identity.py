"""Who did it: the spans of a request joined, through each way in, on real providers and a real collector."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, TraceState

from otel_analytics import (
    AnalyticsClient,
    AnalyticsLogRecordExporter,
    AnalyticsSpanExporter,
    AnalyticsSpanProcessor,
    identify,
    track,
)
from otel_analytics.testing import FaultyCollector

ROUTE: dict[str, str | int] = {
    "http.request.method": "POST",
    "http.route": "/pay",
    "http.response.status_code": 200,
}
REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


@dataclass
class Shop:
    """A provider whose spans reach a collector."""

    provider: TracerProvider
    client: AnalyticsClient
    collector: FaultyCollector

    def start(self, name: str, parent: Span | None = None, *, server: bool = False, **fields: Any) -> Span:
        """Return a started span below another one."""
        above = otel_context.Context() if parent is None else trace.set_span_in_context(parent)
        kind = SpanKind.SERVER if server else SpanKind.INTERNAL
        attributes = {**(ROUTE if server else {}), **fields.pop("attributes", {})}
        return self.provider.get_tracer("shop").start_span(
            name, above, kind=kind, attributes=attributes, **fields
        )

    def settle(self) -> None:
        """Have all spans that ended delivered."""
        assert self.provider.force_flush()
        assert self.client.flush(10_000)

    def views(self) -> list[dict[str, Any]]:
        self.settle()
        return self.collector.bodies("view")

    def engagements(self) -> list[dict[str, Any]]:
        self.settle()
        return self.collector.bodies("engagement")


WAYS: dict[str, Callable[[AnalyticsClient], Any]] = {
    "processor": lambda client: AnalyticsSpanProcessor(client=client),
    "simple": lambda client: SimpleSpanProcessor(AnalyticsSpanExporter(client=client)),
    "batch": lambda client: BatchSpanProcessor(AnalyticsSpanExporter(client=client)),
}


@pytest.fixture
def collector() -> Iterator[FaultyCollector]:
    with FaultyCollector() as running:
        yield running


def open_shop(way: str, collector: FaultyCollector, **options: Any) -> Shop:
    client = AnalyticsClient(collector.url, flush_interval_millis=10, **options)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(WAYS[way](client))
    return Shop(provider, client, collector)


@pytest.fixture(params=WAYS)
def shop(request: pytest.FixtureRequest, collector: FaultyCollector) -> Iterator[Shop]:
    opened = open_shop(request.param, collector)
    yield opened
    opened.provider.shutdown()
    opened.client.shutdown(0)


def test_a_payment_on_a_child_has_the_user_of_the_server_span(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True)
    child = shop.start("charge", server)
    child.add_event("payment_processed", {"amount": 1})
    child.end()
    server.set_attributes({"user.id": "u-1", "session.id": "s-1", "client.address": "192.0.2.7"})
    server.end()
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["targetId"]) == ("u-1", "POST:/pay")
    metadata = payment["metadata"]
    said = {key: metadata[key] for key in ("sessionId", "route", "ipAddress", "amount", "businessEventType")}
    assert said == {
        "sessionId": "s-1",
        "route": "/pay",
        "ipAddress": "192.0.2.7",
        "amount": 1,
        "businessEventType": "payment_processed",
    }
    (view,) = shop.views()
    assert (view["userId"], view["sessionId"], view["ipAddress"]) == ("u-1", "s-1", "192.0.2.7")


def test_a_view_has_the_user_that_a_descendant_names(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True)
    handler = shop.start("handler", server)
    deep = shop.start("repository", handler, attributes={"enduser.id": "u-1"})
    deep.end()
    handler.end()
    server.end()
    assert [view["userId"] for view in shop.views()] == ["u-1"]


def test_a_view_has_the_user_that_an_event_names(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True)
    child = shop.start("charge", server)
    child.add_event("payment_processed", {"user.id": "u-1"})
    child.end()
    server.end()
    assert [view["userId"] for view in shop.views()] == ["u-1"]


def test_a_payment_has_the_user_that_its_sibling_names(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True)
    shop.start("auth", server, attributes={"user.id": "u-1"}).end()
    charge = shop.start("charge", server)
    charge.add_event("payment_processed")
    charge.end()
    server.end()
    assert [payment["userId"] for payment in shop.engagements()] == ["u-1"]


def test_the_nearest_wins(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True, attributes={"user.id": "of the request"})
    middle = shop.start("on behalf", server, attributes={"user.id": "nearest above"})
    below = shop.start("charge", middle)
    below.add_event("payment_processed", {"n": 1})
    below.add_event("payment_processed", {"n": 2, "user.id": "its own"})
    below.end()
    middle.end()
    server.end()
    users = {payment["metadata"]["n"]: payment["userId"] for payment in shop.engagements()}
    assert users == {1: "nearest above", 2: "its own"}
    assert [view["userId"] for view in shop.views()] == ["of the request"]


def test_two_users_below_one_request_are_nobody(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True)
    for user in ("u-1", "u-2"):
        shop.start("work", server, attributes={"user.id": user}).end()
    charge = shop.start("charge", server)
    charge.add_event("payment_processed")
    charge.end()
    server.end()
    (payment,) = shop.engagements()
    assert payment["userId"].startswith("anonymous-")
    assert "userId" not in shop.views()[0]


def test_a_placeholder_is_nobody_and_counted(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True, attributes={"user.id": "[Filtered]"})
    server.add_event("payment_processed", {"user_id": "None"})
    server.end()
    assert "userId" not in shop.views()[0]
    assert shop.engagements()[0]["userId"].startswith("anonymous-")
    assert shop.client.stats().noted["ids_redacted"] == 2


def test_strangers_are_told_apart_and_one_request_is_one_stranger(shop: Shop) -> None:
    for _ in range(3):
        server = shop.start("POST /pay", server=True)
        for _ in range(2):
            child = shop.start("charge", server)
            child.add_event("payment_processed")
            child.end()
        server.end()
    users = [payment["userId"] for payment in shop.engagements()]
    assert sorted(users.count(user) for user in set(users)) == [2, 2, 2]


def test_one_session_is_one_stranger(shop: Shop) -> None:
    for session in ("s-1", "s-1", "s-2"):
        server = shop.start("POST /pay", server=True, attributes={"session.id": session})
        server.add_event("payment_processed")
        server.end()
    users = [payment["userId"] for payment in shop.engagements()]
    assert sorted(users.count(user) for user in set(users)) == [1, 2]
    assert not any("s-1" in user for user in users)


def test_a_child_that_ends_last_takes_the_request_it_was_in(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True, attributes={"user.id": "u-1"})
    child = shop.start("background", server)
    server.end()
    child.add_event("payment_processed")
    child.end()
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["targetId"]) == ("u-1", "POST:/pay")


def test_two_server_spans_of_a_trace_each_have_their_own_events(shop: Shop) -> None:
    """A service that calls itself: the second request's parent is remote."""
    outer = shop.start("POST /pay", server=True, attributes={"user.id": "caller"})
    calling = shop.start("httpx", outer)
    seen = calling.get_span_context()
    remote = NonRecordingSpan(
        SpanContext(seen.trace_id, seen.span_id, is_remote=True, trace_flags=seen.trace_flags)
    )
    inner = shop.start("POST /pay", remote, server=True, attributes={"user.id": "called"})
    for parent, number in ((inner, 1), (outer, 2)):
        child = shop.start("charge", parent)
        child.add_event("payment_processed", {"n": number})
        child.end()
    inner.end()
    calling.end()
    outer.end()
    users = {payment["metadata"]["n"]: payment["userId"] for payment in shop.engagements()}
    assert users == {1: "called", 2: "caller"}
    assert sorted(view["userId"] for view in shop.views()) == ["called", "caller"]


@pytest.mark.parametrize("wait", [600_000, 0])
def test_an_event_below_a_span_that_is_not_recorded_has_its_request(
    wait: int, collector: FaultyCollector
) -> None:
    """Below a CLIENT span that tracing drops; a processor knows that it will never be seen."""
    shop = open_shop("processor", collector, identity_wait_millis=wait)
    server = shop.start("POST /pay", server=True, attributes={"user.id": "u-1"})
    seen = server.get_span_context()
    dropped = NonRecordingSpan(
        SpanContext(seen.trace_id, 0xD0, is_remote=False, trace_flags=seen.trace_flags)
    )
    charge = shop.start("charge", dropped)
    charge.add_event("payment_processed")
    charge.end()
    server.end()
    assert shop.client.stats().accepted == 2
    (payment,) = shop.engagements()
    assert (payment["userId"] == "u-1") == (wait > 0)
    shop.client.shutdown(0)


def test_a_request_of_many_spans_is_joined_all_the_same(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector)
    server = shop.start("POST /pay", server=True, attributes={"user.id": "u-1"})
    for _ in range(6_000):
        shop.start("query", server).end()
    charge = shop.start("charge", server)
    charge.add_event("payment_processed")
    charge.end()
    server.end()
    assert [payment["userId"] for payment in shop.engagements()] == ["u-1"]
    shop.client.shutdown(0)


def test_what_ends_after_the_shutdown_is_counted(collector: FaultyCollector) -> None:
    processor = AnalyticsSpanProcessor(collector.url)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    span = provider.get_tracer("shop").start_span("GET", kind=SpanKind.SERVER, attributes=ROUTE)
    processor.shutdown()
    span.end()
    assert processor.client.stats().dropped == {"after_shutdown": 1}


def test_a_remote_parent_is_nobodys_request(shop: Shop) -> None:
    job = shop.start("job", NonRecordingSpan(REMOTE))
    job.add_event("payment_processed")
    job.end()
    (payment,) = shop.engagements()
    assert (payment["targetId"], payment["userId"]) == ("job", "anonymous-0000000000abc")


def test_a_job_without_a_request_waits_for_nobody(shop: Shop) -> None:
    job = shop.start("job", attributes={"user.id": "u-1"})
    job.add_event("payment_processed")
    job.end()
    shop.provider.force_flush()
    assert shop.client.stats().accepted == 1


def test_two_server_spans_of_one_request_are_one_view(shop: Shop) -> None:
    raw = {
        "http.request.method": "GET",
        "url.path": "/items/7",
        "client.address": "192.0.2.7",
        "http.route": "",
    }
    outer = shop.start("GET", server=True, attributes=raw)
    inner = shop.start("GET /items/{id}", outer, server=True)
    inner.set_attributes({"http.request.method": "GET", "http.route": "/items/{id}"})
    charge = shop.start("charge", inner)
    charge.add_event("payment_processed")
    charge.end()
    inner.end()
    outer.end()
    (view,) = shop.views()
    assert (view["contentId"], view["ipAddress"]) == ("GET:/items/{id}", "192.0.2.7")
    assert view["metadata"]["spanId"] == f"{outer.get_span_context().span_id:016x}"
    assert [payment["targetId"] for payment in shop.engagements()] == ["GET:/items/{id}"]


@pytest.mark.parametrize("is_child", [True, False], ids=["child", "root"])
def test_a_frameworks_own_tracing_beside_its_instrumentation_is_one_view(is_child: bool, shop: Shop) -> None:
    request: dict[str, str | int] = {
        "http.request.method": "GET",
        "url.path": "/items/7",
        "http.response.status_code": 200,
    }
    official = shop.provider.get_tracer("opentelemetry.instrumentation.starlette")
    own = shop.provider.get_tracer("starlette")
    outer = official.start_span("GET", otel_context.Context(), kind=SpanKind.SERVER, attributes=request)
    below = trace.set_span_in_context(outer) if is_child else otel_context.Context()
    inner = own.start_span("GET /items/{id}", below, kind=SpanKind.SERVER, attributes=request)
    inner.set_attribute("http.route", "/items/{id}")
    inner.end()
    outer.end()
    assert [view["contentId"] for view in shop.views()] == ["GET:/items/{id}"]


def test_server_spans_of_different_methods_are_two_calls(shop: Shop) -> None:
    outer = shop.start("POST /pay", server=True)
    inner = shop.start("rpc", outer, server=True, attributes={"http.request.method": "GET"})
    inner.end()
    outer.end()
    assert sorted(view["contentId"] for view in shop.views()) == ["GET:/pay", "POST:/pay"]


@pytest.mark.parametrize("way", WAYS)
def test_an_event_leaves_after_the_wait_with_what_is_known(way: str, collector: FaultyCollector) -> None:
    shop = open_shop(way, collector, identity_wait_millis=100)
    server = shop.start("POST /pay", server=True)
    child = shop.start("charge", server, attributes={"session.id": "s-1"})
    child.add_event("payment_processed")
    child.end()
    if way == "batch":
        shop.provider.force_flush()
    deadline = time.monotonic() + 10
    while not collector.bodies("engagement"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert collector.bodies("engagement")[0]["metadata"]["sessionId"] == "s-1"
    shop.client.shutdown(0)


def test_an_event_does_not_wait_once_its_server_span_has_ended(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector, identity_wait_millis=600_000)
    server = shop.start("POST /pay", server=True, attributes={"user.id": "u-1"})
    child = shop.start("charge", server)
    child.add_event("payment_processed")
    child.end()
    assert shop.client.stats().accepted == 0
    server.end()
    assert shop.client.stats().accepted == 2
    shop.client.shutdown(0)


def test_a_view_waits_for_a_child_that_is_seen_to_be_open(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector, identity_wait_millis=600_000)
    server = shop.start("POST /pay", server=True)
    child = shop.start("streaming", server)
    server.end()
    child.set_attribute("user.id", "u-1")
    child.end()
    assert shop.client.stats().accepted == 1
    assert [view["userId"] for view in shop.views()] == ["u-1"]
    shop.client.shutdown(0)


def test_a_shutdown_sends_what_waits(shop: Shop) -> None:
    server = shop.start("POST /pay", server=True)
    child = shop.start("charge", server)
    child.add_event("payment_processed")
    child.end()
    shop.provider.force_flush()
    assert shop.client.shutdown()
    assert len(shop.collector.bodies("engagement")) == 1


def test_servers_that_never_end_are_bounded(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector, identity_wait_millis=600_000, max_queue_size=1_000_000)
    for _ in range(10_000):
        server = shop.start("POST /pay", server=True)
        child = shop.start("charge", server)
        child.add_event("payment_processed")
        child.end()
    assert shop.client.stats().accepted >= 10_000 - 4_096
    shop.client.shutdown(0)


@pytest.mark.parametrize("way", ["processor", "batch"])
def test_the_spans_of_many_threads_are_joined(way: str, collector: FaultyCollector) -> None:
    shop = open_shop(way, collector)

    def serve(thread: int) -> None:
        for number in range(50):
            user = f"u-{thread}-{number}"
            server = shop.start("POST /pay", server=True)
            child = shop.start("charge", server)
            child.add_event("payment_processed", {"of": user})
            child.end()
            server.set_attribute("user.id", user)
            server.end()

    threads = [threading.Thread(target=serve, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    payments = shop.engagements()
    assert len(payments) == 400
    assert all(payment["userId"] == payment["metadata"]["of"] for payment in payments)
    shop.client.shutdown(0)


def test_processor_and_exporter_beside_each_other_count_once(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector)
    beside = AnalyticsSpanExporter(collector.url)
    shop.provider.add_span_processor(SimpleSpanProcessor(beside))
    shop.start("POST /pay", server=True).end()
    assert len(shop.views()) == 1
    assert beside.force_flush()
    assert beside.client.stats().accepted == 0
    assert beside.client.stats().noted["taken_twice"] == 1
    assert len(collector.bodies("view")) == 1
    beside.shutdown()
    shop.client.shutdown(0)


@pytest.mark.parametrize(("trusted", "user"), [((), None), (("user.id",), "u-1")])
def test_baggage_tells_who_it_is_only_where_it_is_trusted(
    trusted: tuple[str, ...], user: str | None, collector: FaultyCollector
) -> None:
    shop = open_shop("processor", collector, trusted_baggage=trusted)
    sent = baggage.set_baggage("session.id", "s-1", baggage.set_baggage("user.id", "u-1"))
    server = shop.provider.get_tracer("shop").start_span("GET", sent, kind=SpanKind.SERVER, attributes=ROUTE)
    child = shop.start("charge", server)
    child.add_event("payment_processed")
    child.end()
    server.end()
    (view,) = shop.views()
    assert view.get("userId") == user
    assert view["sessionId"] != "s-1"
    assert (shop.engagements()[0]["userId"] == "u-1") == (user is not None)
    shop.client.shutdown(0)


def test_events_added_to_ended_spans_are_counted(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector)
    server = shop.start("POST /pay", server=True)
    server.end()
    server.add_event("payment_processed")
    server.set_attribute("user.id", "too late")
    assert shop.client.stats().noted["ended_spans"] == 1
    shop.client.shutdown(0)


def test_only_an_exporter_alone_weighs_what_it_sees(shop: Shop, request: pytest.FixtureRequest) -> None:
    state = TraceState([("ot", "th:c;rv:6e6d1a75832a2f")])
    context = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=REMOTE.trace_flags, trace_state=state)
    server = shop.start("POST /pay", NonRecordingSpan(context), server=True)
    server.add_event("payment_processed")
    server.end()
    is_alone = "processor" not in request.node.name
    for body in (*shop.views(), *shop.engagements()):
        assert body["metadata"].get("sampleWeight") == (4 if is_alone else None)


# identify and track


def test_identify_from_anywhere_inside_a_request(shop: Shop) -> None:
    tracer = shop.provider.get_tracer("shop")

    def in_thread() -> None:
        with tracer.start_as_current_span("work"):
            identify("u-thread", session_id="s-1")

    async def in_task() -> None:
        with tracer.start_as_current_span("await"):
            await asyncio.create_task(set_it())

    async def set_it() -> None:
        identify("u-task", session_id="s-1")

    def at_once() -> None:
        identify("u-once", session_id="s-1")

    def threaded() -> None:
        copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(in_thread,))
        thread.start()
        thread.join(10)

    for handler in (at_once, threaded, lambda: asyncio.run(in_task())):
        with tracer.start_as_current_span("POST /pay", kind=SpanKind.SERVER, attributes=ROUTE):
            handler()
    assert {view["userId"] for view in shop.views()} == {"u-once", "u-thread", "u-task"}


def test_the_processor_sets_identify_on_the_server_span(collector: FaultyCollector) -> None:
    shop = open_shop("processor", collector)
    tracer = shop.provider.get_tracer("shop")
    with tracer.start_as_current_span("POST /pay", kind=SpanKind.SERVER, attributes=ROUTE) as server:
        with tracer.start_as_current_span("handler"), tracer.start_as_current_span("auth"):
            identify("u-1", session_id="s-1")
        assert {"user.id": "u-1", "session.id": "s-1"}.items() <= dict(server.attributes).items()  # type: ignore[attr-defined]
    shop.client.shutdown(0)


def test_identify_outside_of_a_request_is_quiet() -> None:
    identify("u-1")
    identify(None)
    identify(object())


@pytest.mark.parametrize("nobody", [None, ""])
def test_identify_as_nobody_leaves_who_it_was(nobody: Any, shop: Shop) -> None:
    with shop.provider.get_tracer("shop").start_as_current_span("s", kind=SpanKind.SERVER, attributes=ROUTE):
        identify("u-1")
        identify(nobody)
    assert [view["userId"] for view in shop.views()] == ["u-1"]


def test_a_tracked_event_is_a_span_event_while_a_span_records(shop: Shop) -> None:
    tracer = shop.provider.get_tracer("shop")
    with tracer.start_as_current_span("POST /pay", kind=SpanKind.SERVER, attributes=ROUTE) as server:
        track("payment_processed", order_id="o-1", amount=12.5)
        assert [event.name for event in server.events] == ["payment_processed"]  # type: ignore[attr-defined]
        identify("u-1")
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["targetId"], payment["metadata"]["amount"]) == ("u-1", "o-1", 12.5)


def test_a_tracked_event_after_its_span_has_the_requests_user(shop: Shop) -> None:
    """A background task after the response: the server span is still current, but has ended."""
    tracer = shop.provider.get_tracer("shop")
    server = tracer.start_span("POST /pay", kind=SpanKind.SERVER, attributes={**ROUTE, "user.id": "u-1"})
    with trace.use_span(server):
        server.end()
        shop.provider.force_flush()
        track("payment_processed", amount=1)
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["targetId"]) == ("u-1", "POST:/pay")


def test_a_tracked_event_without_any_span_arrives(shop: Shop) -> None:
    track("payment_processed", user_id="u-1", target_id="o-1")
    (payment,) = shop.engagements()
    assert (payment["userId"], payment["targetId"]) == ("u-1", "o-1")


def test_an_unknown_tracked_event_is_counted_and_named(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    track("nobody_knows_this")
    assert "track('nobody_knows_this') gives no business event: not among business events" in caplog.text
    stats = shop.client.stats()
    assert (stats.dropped, stats.noted["unknown_event"]) == ({"invalid": 1}, 1)


def test_so_is_one_that_a_span_has(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with shop.provider.get_tracer("shop").start_as_current_span(
        "POST /pay", kind=SpanKind.SERVER, attributes=ROUTE
    ):
        track("nobody_knows_this_either")
        track("signed_up", **{"analytics.metric_type": "signup"})
        track("payment_processed")
    assert "track('nobody_knows_this_either') gives no business event" in caplog.text
    assert len(shop.engagements()) == 2
    assert shop.client.stats().noted["unknown_event"] == 1


def test_where_no_spans_come_a_tracked_event_waits_for_none(collector: FaultyCollector) -> None:
    """Traces go elsewhere, and nobody here will ever see the server span."""
    elsewhere = TracerProvider(shutdown_on_exit=False).get_tracer("elsewhere")
    client = AnalyticsClient(collector.url, identity_wait_millis=600_000)
    logs = AnalyticsLogRecordExporter(client=client)
    with elsewhere.start_as_current_span("GET", kind=SpanKind.SERVER) as span:
        track("payment_processed", user_id="u-1")
        assert len(span.events) == 0  # type: ignore[attr-defined]
    assert client.stats().accepted == 1
    logs.shutdown()
    client.shutdown(0)


class Raising:
    def __str__(self) -> str:
        raise RuntimeError("somebody's own")


def test_track_raises_for_nothing(shop: Shop) -> None:
    track("payment_processed", amount=Raising(), user_id=Raising())
    track(Raising())  # type: ignore[arg-type]
    assert len(shop.engagements()) == 1
    assert shop.client.stats().dropped == {"invalid": 1}


def test_what_waits_in_a_child_of_multiprocessing_leaves_at_its_end(shop: Shop) -> None:
    """Such a child ends without ``atexit``, and nothing has been delivered in it before."""

    def work() -> None:
        child = shop.start("charge", shop.start("POST /pay", server=True))
        child.add_event("payment_processed", {"user.id": "u-1"})
        child.end()
        shop.provider.force_flush()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert [payment["userId"] for payment in shop.collector.bodies("engagement")] == ["u-1"]
