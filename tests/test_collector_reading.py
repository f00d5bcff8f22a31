"""What the dev collector shows of what it stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from otel_analytics.collector import DevCollector
from otel_analytics.collector.summary import Calls, Engagements
from otel_analytics.contract import parse_rfc3339, rfc3339

NOON = "2026-01-31T12:00:00.000Z"
ONE = "2026-01-31T13:00:00+00:00"
ATTACK = "<script>alert(1)</script>\"'&"


def view(content_id: str, event_id: str, **values: Any) -> dict[str, Any]:
    metadata = {"eventId": event_id, "timestamp": NOON, **values.pop("metadata", {})}
    body = {"contentId": content_id, "contentType": "post", "sessionId": "s", "deviceType": "desktop"}
    return {**body, "app": "shop", "userId": "u1", **values, "metadata": metadata}


def engagement(metric_type: str, user_id: str, **metadata: Any) -> dict[str, Any]:
    body = {"userId": user_id, "metricType": metric_type, "targetId": "t1", "targetType": "content"}
    return {**body, "metadata": metadata}


VIEWS = [
    view("GET:/a", "v1"),
    view("GET:/a", "v2", userId="u2", metadata={"timestamp": ONE}),
    view("GET:/b", "v3", metadata={"timestamp": "2026-01-31T16:00:00.000+02:00"}),
]
ENGAGEMENTS = [
    engagement("purchase", "u1", timestamp="2026-01-31T15:00:00Z"),
    engagement("comment", "u2", eventId="e2", timestamp=1),
]


@pytest.fixture
def collector() -> Iterator[DevCollector]:
    with DevCollector() as running:
        yield running


@pytest.fixture
def http(collector: DevCollector) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=collector.url) as client:
        yield client


@pytest.fixture
def filled(http: httpx.Client) -> httpx.Client:
    return fill(http)


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    """A filled collector for the tests that only read."""
    with DevCollector() as running, httpx.Client(base_url=running.url) as client:
        yield fill(client)


def fill(http: httpx.Client) -> httpx.Client:
    http.post("/analytics/track/view", json=VIEWS).raise_for_status()
    http.post("/analytics/track/engagement", json=ENGAGEMENTS).raise_for_status()
    return http


ALL = [*VIEWS, *ENGAGEMENTS]


@pytest.mark.parametrize(
    ("query", "total", "found"),
    [
        ({}, 5, ALL),
        ({"kind": "view"}, 3, VIEWS),
        ({"kind": "engagement"}, 2, ENGAGEMENTS),
        ({"content_id": "GET:/a"}, 2, VIEWS[:2]),
        ({"metric_type": "purchase"}, 1, ENGAGEMENTS[:1]),
        ({"user_id": "u2"}, 2, [VIEWS[1], ENGAGEMENTS[1]]),
        ({"user_id": "u2", "kind": "view"}, 1, VIEWS[1:2]),
        ({"event_id": "e2"}, 1, ENGAGEMENTS[1:]),
        ({"event_id": "none"}, 0, []),
        ({"since": ONE, "until": "2026-01-31T15:00:00Z"}, 2, VIEWS[1:]),
        ({"until": parse_rfc3339(ONE)}, 1, VIEWS[:1]),
        ({"limit": 2}, 5, ALL[:2]),
        ({"limit": 2, "offset": 3}, 5, ALL[3:]),
        ({"limit": 0}, 5, []),
    ],
    ids=str,
)
def test_filters(shared: httpx.Client, query: dict[str, Any], total: int, found: list[Any]) -> None:
    answer = shared.get("/events", params=query).json()
    assert answer["total"] == total
    assert [event["body"] for event in answer["events"]] == found


def test_an_event_says_its_kind_and_when_it_came(shared: httpx.Client) -> None:
    first = shared.get("/events").json()["events"][0]
    assert first["kind"] == "view"
    assert parse_rfc3339(first["receivedAt"]) > parse_rfc3339(NOON)


def test_an_event_without_a_time_counts_as_of_its_receipt(shared: httpx.Client) -> None:
    last = shared.get("/events").json()["events"][-1]
    found = shared.get("/events", params={"since": last["receivedAt"]}).json()
    assert [event["body"] for event in found["events"]] == ENGAGEMENTS[1:]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("kind=views", "kind: must be one of view, engagement"),
        ("since=yesterday", "since: must be an RFC 3339 date-time"),
        ("since=" + "9" * 30, "since: must be an RFC 3339 date-time"),
        ("limit=10001", "limit: must be a whole number from 0 to 10000"),
        ("limit=-1", "limit: must be a whole number from 0 to 10000"),
        ("offset=x", "offset: must be a whole number from 0 to"),
        ("order=desc", "order: is no filter; the filters are kind, content_id,"),
    ],
)
def test_a_bad_query_is_explained(shared: httpx.Client, query: str, error: str) -> None:
    response = shared.get(f"/events?{query}")
    assert response.status_code == 400
    assert response.json()["errors"][0].startswith(error)


def test_events_by_keyword(collector: DevCollector, filled: httpx.Client) -> None:
    assert filled.base_url == collector.url
    assert collector.events("view", user_id="u2") == VIEWS[1:2]
    assert collector.events(event_id="e2") == ENGAGEMENTS[1:]
    with pytest.raises(ValueError, match="user: is no filter"):
        collector.events(user="u2")


def test_the_counts_agree(http: httpx.Client) -> None:
    http.post("/analytics/track/view", json=[*VIEWS, VIEWS[0], {}])
    http.post("/analytics/track/engagement", json=ENGAGEMENTS)
    counts = {"received": 5, "stored": 3, "duplicates": 1, "rejected": 1}
    engagements = {"received": 2, "stored": 2, "duplicates": 0, "rejected": 0}
    stats = http.get("/stats").json()
    assert stats["kinds"] == {"view": counts, "engagement": engagements}
    assert {name: stats[name] for name in counts} == {
        "received": 7,
        "stored": 5,
        "duplicates": 1,
        "rejected": 1,
    }


def test_calls_are_summed_up_by_nearest_rank(collector: DevCollector, http: httpx.Client) -> None:
    durations = [view("GET:/a", f"a{n}", duration=n, metadata={"statusCode": 200}) for n in range(1, 21)]
    failures = [view("GET:/a", f"f{s}", metadata={"statusCode": s}) for s in (399, 400, 404, 500)]
    http.post("/analytics/track/view", json=[*reversed(durations), *failures, view("GET:/b", "b1")])
    assert collector.calls() == [Calls("GET:/a", 24, 3, 10.0, 19.0), Calls("GET:/b", 1, 0, None, None)]
    assert collector.calls()[0].error_share == 0.125


@pytest.mark.parametrize(("status", "failed"), [(0, 0), ("OK", 0), (2, 1), ("NOT_FOUND", 1), (True, 0)])
def test_an_rpc_fails_by_its_own_codes(
    collector: DevCollector, http: httpx.Client, status: Any, failed: int
) -> None:
    metadata = {"method": "RPC", "statusCode": status}
    http.post("/analytics/track/view", json=view("RPC:shop.Cart/Add", "r1", metadata=metadata))
    assert collector.calls()[0].errors == failed


def test_engagements_are_summed_up_by_type(collector: DevCollector, http: httpx.Client) -> None:
    who = ["u1", "u1", "u2"]
    http.post("/analytics/track/engagement", json=[engagement("purchase", user) for user in who])
    http.post("/analytics/track/engagement", json=engagement("comment", "u1"))
    assert collector.engagements() == [Engagements("purchase", 3, 2), Engagements("comment", 1, 1)]


class Page(HTMLParser):
    """The tags and the cells' texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_shows_calls_engagements_and_events(http: httpx.Client) -> None:
    http.post(
        "/analytics/track/view", json=view("GET:/a", "v1", duration=1234.5, metadata={"statusCode": 500})
    )
    http.post("/analytics/track/engagement", json=engagement("purchase", "u1"))
    texts = Page(http.get("/").text).texts
    for text in ("GET:/a", "100.0%", "1,234.5 ms", "purchase", "purchase → t1", "500"):
        assert text in texts


def test_the_page_escapes_what_came(http: httpx.Client) -> None:
    long = ATTACK * 50
    http.post("/analytics/track/view", json=view(ATTACK, "v1", userId=long, metadata={"statusCode": ATTACK}))
    http.post("/analytics/track/engagement", json={**engagement(ATTACK, ATTACK), "targetId": ATTACK})
    response = http.get("/")
    page = Page(response.text)
    assert "script" not in page.tags
    assert page.texts.count(ATTACK) >= 4
    assert max(map(len, page.texts[2:])) <= 160
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("status", ["\ud800", {"\udfff": ["\ud800"]}], ids=ascii)
def test_a_lone_surrogate_is_kept_and_shown_escaped(http: httpx.Client, status: Any) -> None:
    body = view("GET:/a", "v1", metadata={"statusCode": status, "\udc00": "\ud800"})
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    http.post("/analytics/track/view", content=content, headers=headers).raise_for_status()
    http.post("/analytics/track/view", content=content.replace("v1", "v2"), headers=headers)
    assert "\\ud800" in http.get("/").raise_for_status().text
    assert http.get("/events").json()["events"][0]["body"] == body


def test_the_page_shows_no_control_and_no_direction_characters(http: httpx.Client) -> None:
    hostile = "a\x00\x1b[2J\x7f\x9b\u202e\u2066z"
    http.post("/analytics/track/view", json=view(hostile, "v1", metadata={"statusCode": hostile}))
    http.post("/analytics/track/engagement", json=engagement(hostile, "u1"))
    text = http.get("/").text
    assert not set(hostile) - set("a[2Jz") & set(text)
    shown = "a\\u0000\\u001b[2J\\u007f\\u009b\\u202e\\u2066z"
    assert (
        text.count(shown) == 5
    )  # in the calls, the engagements and twice in a view's row, once in an engagement's


def test_an_empty_page_says_how_to_begin_and_escapes_the_host(collector: DevCollector) -> None:
    page = httpx.get(collector.url).text
    assert f"OTEL_EXPORTER_ANALYTICS_ENDPOINT={collector.url}" in page
    with DevCollector(host="0.0.0.0") as everywhere:  # noqa: S104 - there any host is served
        url = f"http://127.0.0.1:{everywhere.port}"
        page = httpx.get(url, headers={"Host": "x<b>"}).raise_for_status().text
        assert "ENDPOINT=http://" in page
        assert "<b>" not in page


def test_the_page_names_refused_requests() -> None:
    with DevCollector(write_key="secret!") as collector:
        httpx.post(collector.url + "/analytics/track/view", json=VIEWS)
        page = httpx.get(collector.url).text
        assert "1 requests refused with 401: the exporter's write key is not this collector's" in page
        assert "secret!" not in page


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01.5z", 1500),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1970-01-01T01:00:00.001+01:00", 1),
        ("1969-12-31T23:59:59.250Z", -750),
    ],
)
def test_timestamps_are_read_to_the_millisecond(text: str, millis: int) -> None:
    assert parse_rfc3339(text) == millis


def test_timestamps_are_written_as_they_are_read() -> None:
    assert rfc3339((parse_rfc3339(NOON) + 7) * 1_000_000) == "2026-01-31T12:00:00.007Z"


@pytest.mark.parametrize("text", ["", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T25:00:00Z", "١٩٧٠"])
def test_other_texts_are_no_timestamps(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_rfc3339(text)
