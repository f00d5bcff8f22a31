"""Whatever stands in a span, nothing raises, nothing is lost, and every event is valid JSON."""

from __future__ import annotations

import ast
import json
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode
from span_making import START, make_event, make_span, mapper

import otel_analytics.mapping
from otel_analytics.events import encode
from otel_analytics.mapping import semconv


class Hostile:
    """Raises where one asks for its text."""

    def __str__(self) -> str:
        raise RuntimeError


class Colour(Enum):
    RED = "red"


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    return value


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.text(st.characters(categories=["Cs", "Cc", "Lu"])),  # lone surrogates, control characters
    st.binary(),
    st.decimals(),
    st.datetimes(),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses().map(str),
    st.just(Colour.RED),
    st.just(2**70),
    st.builds(Hostile),
    st.builds(cyclic),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=8,
)
TABLES = [table for name, table in vars(semconv).items() if name.isupper()]
KEYS = sorted({key for table in TABLES for key in ((table,) if isinstance(table, str) else table)})
ATTRIBUTES = st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text()), VALUES, max_size=8)
OPTIONS: dict[str, Any] = {"trusted_proxy_hops": 1, "device_type": "auto", "excluded_endpoints": ["/never"]}


def reject_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def assert_json(event: Any) -> None:
    body = json.loads(encode(event).body, parse_constant=reject_constant)
    assert body["metadata"]["eventId"] == event.event_id
    assert UUID(event.event_id).version == 5


def without_flags(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key != semconv.IGNORE}


FEW_VALUES = st.sampled_from(
    ["", "GET", "/things/{id}", "/things/7", "/a/things/7/8", "grpc", "GET /", "1", 1, 200, 404, 500, 0]
)
CALLS = st.dictionaries(st.sampled_from(KEYS), FEW_VALUES, max_size=4).map(
    lambda drawn: {"http.method": "GET", "http.route": "/things/{id}", **drawn}
)
SCOPES = st.sampled_from(
    ["opentelemetry.instrumentation.asgi", "litestar", "opentelemetry_instrumentation_aws_lambda"]
)
EVENTS = st.sampled_from([[], [make_event("exception", {"exception.type": "HTTPException"})]])
NAMES = st.sampled_from(["GET", "GET /things/{id}", "GET /x"])
SPANS = st.builds(
    lambda attributes, scope, events, name, code: make_span(
        attributes,
        instrumentation_scope=InstrumentationScope(scope),
        events=events,
        name=name,
        status=Status(code),
    ),
    CALLS,
    SCOPES,
    EVENTS,
    NAMES,
    st.sampled_from(list(StatusCode)),
)


@settings(max_examples=300, deadline=None)
@given(SPANS, st.sampled_from(KEYS), FEW_VALUES, SCOPES, EVENTS, NAMES, st.sampled_from(list(StatusCode)))
@example(
    make_span(
        {"http.method": "GET", "http.route": "/things/{id}", "http.target": "/a", "http.status_code": 404}
    ),
    *("http.target", "/things/{id}", "litestar", [], "GET", StatusCode.UNSET),
)
def test_what_calls_share_is_remembered_only_for_calls_that_share_it(
    span: Any, added: str, value: Any, scope: str, events: Any, name: str, code: StatusCode
) -> None:
    others = [
        *(make_span({**span.attributes, key: value}) for key in (*span.attributes, added)),
        make_span(span.attributes, instrumentation_scope=InstrumentationScope(scope)),
        make_span(span.attributes, events=events, status=Status(code)),
        make_span(span.attributes, name=name),
    ]
    seasoned, forgetful = mapper(**OPTIONS), mapper(**OPTIONS)
    seasoned.map(span)
    forgetful.map(span)
    for other in others:
        forgetful._shared.clear()
        expected = forgetful.map(other)
        assert seasoned.map(other) == expected
        whole = seasoned.read_whole(other)
        assert whole is None or [whole.view] == [*expected.events, *expected.dropped]


@settings(max_examples=300, deadline=None)
@given(ATTRIBUTES, st.sampled_from(list(StatusCode)))
@example({"user.id": "\ud800", "url.path": "/\udfff"}, StatusCode.UNSET)
@example({"user.id": Decimal("sNaN")}, StatusCode.UNSET)
@example({"http.status_code": "\u00b2", "http.route": ("(?P<", "(")}, StatusCode.ERROR)
def test_any_server_span_gives_its_view(attributes: dict[str, Any], code: StatusCode) -> None:
    span = make_span({"http.method": "GET", **without_flags(attributes)}, status=Status(code))
    (view,) = mapper(**OPTIONS).map(span).events
    assert_json(view)


@settings(max_examples=300, deadline=None)
@given(ATTRIBUTES, ATTRIBUTES, st.text())
@example({"order": cyclic()}, {}, "charge")
@example({"a": Decimal("1.10"), "b": datetime.now(timezone.utc), "c": UUID(int=1), "d": b"\xff"}, {}, "")
def test_any_business_event_gives_its_engagement(
    on_event: dict[str, Any], on_span: dict[str, Any], name: str
) -> None:
    # Not through the SDK's Event, which cleans some values: whatever hands spans over may hold anything.
    event = Event("payment_processed", None, START)
    event._attributes = without_flags(on_event)
    span = make_span(on_span, kind=SpanKind.INTERNAL, name=name, events=[event])
    (engagement,) = mapper(**OPTIONS).map(span).events
    assert_json(engagement)


HUGE = {"deep": deep(), "text": "x" * 10_000_000, "list": ["y" * 1000] * 10_000, "int": 10**5000}


@pytest.mark.parametrize("value", [*HUGE.values(), Hostile()], ids=[*HUGE, "hostile"])
def test_huge_and_hostile_values(value: Any) -> None:
    event = Event("payment_processed", None, START)
    event._attributes = {"value": value, "amount": 12}
    span = make_span({"http.method": "GET", "http.status_code": value, "url.path": value}, events=[event])
    view, engagement = mapper(**OPTIONS).map(span).events
    assert_json(view)
    assert_json(engagement)
    assert json.loads(encode(engagement).body)["metadata"]["amount"] == 12


@pytest.mark.parametrize("route", ["(" * 5000, "(?P<" * 5000, "(a" * 2000 + ")" * 2000, "{" * 5000])
def test_hostile_routes_and_paths(route: str) -> None:
    assert_json(
        mapper().map(make_span({"http.method": "GET", "http.route": route, "url.path": "/" * 9000})).events[0]
    )


@given(st.text(st.characters()), st.integers(min_value=0, max_value=2**64), st.integers(0, 5))
def test_any_name_and_time_gives_distinct_ids(name: str, time: int, repeats: int) -> None:
    events = [Event(name, {"analytics.metric_type": "m"}, time) for _ in range(repeats)]
    mapped = mapper().map(make_span({}, kind=SpanKind.INTERNAL, events=events))
    assert len({event.event_id for event in mapped.events}) == repeats


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(min_size=1))
def test_no_query_string_in_any_endpoint(path: str, query: str) -> None:
    marked = f"{path}?{query}TOKEN"
    for key in semconv.PATH:
        span = make_span({"http.method": "GET", key: marked})
        assert b"TOKEN" not in encode(mapper().map(span).events[0]).body


@pytest.mark.parametrize("attributes", [None, {}, MappingProxyType({})])
def test_a_span_without_attributes(attributes: Any) -> None:
    span = make_span(attributes, events=[make_event("message_sent")])
    assert len(mapper().map(span).events) == 1


@pytest.mark.parametrize("wrap", [dict, MappingProxyType])
def test_attributes_of_any_mapping(wrap: Any) -> None:
    assert len(mapper().map(make_span(wrap({"http.method": "GET", "url.path": "/"}))).events) == 1


def test_several_threads_at_once() -> None:
    shared = mapper(max_endpoints=10)
    made: list[int] = []

    def work(thread: int) -> None:
        spans = [
            make_span({"http.method": "GET", "url.path": f"/{thread}x{'/y' * n}"}) for n in range(1, 200)
        ]
        made.append(sum(len(shared.map(span).events) for span in spans))

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == [199] * 4
    assert shared.take_folded_endpoints() > 700


def imports_of(source: Path) -> set[str]:
    """Return what a module imports at run time, imports under TYPE_CHECKING left out."""
    tree = ast.parse(source.read_text())
    nodes = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_mapping_is_pure() -> None:
    (folder,) = otel_analytics.mapping.__path__
    impure = {"time", "random", "threading", "os", "secrets", "socket", "logging"}
    imported = set().union(*(imports_of(source) for source in Path(folder).glob("*.py")))
    assert len(imported) > 10
    assert {
        name for name in imported if name.partition(".")[0] in impure | {"opentelemetry", "httpx"}
    } == set()
