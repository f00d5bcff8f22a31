"""What single frameworks' instrumentations do in their own way, where no recording shows it."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Status, StatusCode
from span_making import END, START, make_event, make_span, mapper, view_of

AIOHTTP = InstrumentationScope("opentelemetry.instrumentation.aiohttp_server")
FAILED = Status(StatusCode.ERROR)
MILLI = 1_000_000


@pytest.mark.parametrize(
    ("name", "target", "endpoint"),
    [
        ("GET /items/{item_id}", "/items/blue?token=secret", "/items/{item_id}"),
        ("GET /ws/%s", "/ws/blue", "/ws/{var}"),
        ("GET /posts/:id(.:format)", "/posts/blue", "/posts/:id"),
        ("GET /posts/[slug]", "/posts/blue", "/posts/[slug]"),
        ("GET /items/{item_id}", "/other/blue", "/other/blue"),
        ("GET /items/{item_id}", "/items/blue/9", "/items/blue/{id}"),
        ("GET /items/{x}", "/items/{x}", "/items/{x}"),
        ("GET /items/{x}", "/items/%7Bx%7D", "/items/{x}"),
        ("GET /items/blue", "/items/blue", "/items/blue"),
        ("GET", "/items/7", "/items/{id}"),
    ],
)
def test_a_spans_name_is_its_route_where_the_path_matches(name: str, target: str, endpoint: str) -> None:
    assert view_of({"http.method": "GET", "http.target": target}, name=name).content_id == f"GET:{endpoint}"


def test_names_do_not_get_around_the_cap() -> None:
    capped = mapper(max_endpoints=2)
    endpoints = set()
    for number in range(9):
        span = make_span({"http.method": "GET", "http.target": "/a/b"}, name=f"GET /a/{{x{number}}}")
        endpoints.add(capped.map(span).events[0].content_id)
    assert len(endpoints) == 3


@pytest.mark.parametrize(
    ("exception", "attributes", "status"),
    [
        ("aiohttp.client_exceptions.ClientConnectionResetError", {}, None),
        ("tornado.iostream.StreamClosedError", {"http.status_code": 500}, None),
        ("BrokenPipeError", {"http.status_code": 200}, 200),
        ("RuntimeError", {}, 500),
        ("RuntimeError", {"http.status_code": 500}, 500),
    ],
)
def test_a_client_that_left_is_no_crash(
    exception: str, attributes: dict[str, Any], status: int | None
) -> None:
    events = [make_event("exception", {"exception.type": exception})]
    seen = view_of({"http.method": "GET", "http.target": "/slow", **attributes}, status=FAILED, events=events)
    assert seen.metadata.get("statusCode") == status


def request(start: int, end: int, target: str = "/v2/things/7") -> Any:
    attributes = {"http.method": "GET", "http.target": target, "http.route": target, "http.status_code": 200}
    return make_span(attributes, instrumentation_scope=AIOHTTP, start_time=start, end_time=end)


def views(spans: list[Any]) -> int:
    shared = mapper()
    return sum(len(shared.map(span).events) for span in spans)


def test_a_sub_applications_pairs_are_one_view_each() -> None:
    pairs = [
        (request(at + 1, at + MILLI - 1), request(at, at + MILLI))
        for at in range(START, START + 20 * MILLI, MILLI)
    ]
    assert views([span for pair in pairs for span in pair]) == 20


def test_a_sub_applications_sub_application_too() -> None:
    assert views([request(START + 2, END - 2), request(START + 1, END - 1), request(START, END)]) == 1


def test_requests_one_after_the_other_and_overlapping_ones_are_all_views() -> None:
    alone = [request(START + n * 2 * MILLI, START + n * 2 * MILLI + MILLI) for n in range(20)]
    assert views(alone) == 20
    enclosing = [request(START + n, END - n) for n in range(10, 0, -1)]
    assert views([*alone, *enclosing]) == 30


def test_an_unpaired_endpoint_says_nothing_of_another() -> None:
    other = [request(START, END, "/items/1"), request(START, END, "/items/2")]
    assert views([*other, request(START + 1, END - 1), request(START, END)]) == 3
