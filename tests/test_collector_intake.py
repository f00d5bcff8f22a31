"""What the dev collector takes and refuses, over real HTTP."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from otel_analytics.collector import BatchLimits, DevCollector
from otel_analytics.collector.bodies import decoded
from otel_analytics.collector.refusal import Refusal
from otel_analytics.collector.rules import problems
from otel_analytics.contract import Kind
from otel_analytics.events import EngagementEvent, ViewEvent

VIEW_URL = "/analytics/track/view"
ENGAGEMENT_URL = "/analytics/track/engagement"
JSON = {"Content-Type": "application/json"}
GZIP = {**JSON, "Content-Encoding": "gzip"}
ADVERTISEMENT = "max=512; bytes=1000000; encoding=gzip"

VIEW: dict[str, Any] = {
    "contentId": "GET:/items/{id}",
    "contentType": "post",
    "userId": "u1",
    "sessionId": "backend-1-a",
    "duration": 12.5,
    "ipAddress": "192.0.2.1",
    "deviceType": "desktop",
    "app": "shop",
}
ENGAGEMENT: dict[str, Any] = {
    "userId": "u1",
    "metricType": "purchase",
    "targetId": "order-1",
    "targetType": "content",
    "metadata": {"amount": 42, "businessEventType": "payment_processed"},
}


def without(body: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != key}


def with_id(body: dict[str, Any], event_id: str) -> dict[str, Any]:
    return {**body, "metadata": {"eventId": event_id}}


def errors_of(response: httpx.Response) -> list[str]:
    errors: list[str] = response.json()["errors"]
    return errors


@pytest.fixture
def collector() -> Iterator[DevCollector]:
    with DevCollector() as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    """A collector for the tests that need no empty one."""
    with DevCollector() as running, httpx.Client(base_url=running.url) as client:
        yield client


@pytest.fixture
def http(collector: DevCollector) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=collector.url) as client:
        yield client


@pytest.mark.parametrize(("url", "body"), [(VIEW_URL, VIEW), (ENGAGEMENT_URL, ENGAGEMENT)])
def test_a_contract_body_is_acknowledged_and_kept_as_sent(
    collector: DevCollector, http: httpx.Client, url: str, body: dict[str, Any]
) -> None:
    response = http.post(url, json=body)
    assert (response.status_code, response.json()) == (200, {"received": 1, "failures": []})
    assert collector.events() == [body]


@pytest.mark.parametrize("key", ["userId", "duration", "ipAddress"])
def test_optional_keys_may_be_absent(shared: httpx.Client, key: str) -> None:
    assert shared.post(VIEW_URL, json=without(VIEW, key)).status_code == 200


def test_the_packages_own_bodies_keep_the_contract() -> None:
    moment = "2026-01-31T12:00:00.000Z"
    view = ViewEvent("id", moment, "GET:/", "post", "s", "desktop", "shop", metadata={"traceId": "a" * 32})
    engagement = EngagementEvent("id", moment, "u", "purchase", "order-1")
    assert problems(Kind.VIEW, view.body()) == []
    assert problems(Kind.ENGAGEMENT, engagement.body()) == []


VIEW_ERRORS = [
    *((without(VIEW, key), f"$.{key}: is missing") for key in ("contentId", "contentType", "sessionId")),
    *((without(VIEW, key), f"$.{key}: is missing") for key in ("deviceType", "app")),
    ({**VIEW, "contentId": ""}, "$.contentId: must be a non-empty string"),
    ({**VIEW, "contentId": 7}, "$.contentId: must be a non-empty string"),
    ({**VIEW, "contentId": "\ud800"}, "$.contentId: must be a non-empty string"),
    ({**VIEW, "userId": None}, "$.userId: must be a non-empty string"),
    ({**VIEW, "ipAddress": None}, "$.ipAddress: must be a non-empty string"),
    ({**VIEW, "duration": -1}, "$.duration: must be a number >= 0"),
    ({**VIEW, "duration": None}, "$.duration: must be a number >= 0"),
    ({**VIEW, "duration": True}, "$.duration: must be a number >= 0"),
    ({**VIEW, "duration": "12"}, "$.duration: must be a number >= 0"),
    ({**VIEW, "duration": 10**400}, "$.duration: must be a number >= 0"),
    ({**VIEW, "metadata": []}, "$.metadata: must be an object"),
    ({**VIEW, "metadata": {"eventId": ""}}, "$.metadata.eventId: must be a non-empty string"),
    ({**VIEW, "metadata": {"timestamp": 1}}, "$.metadata.timestamp: must be an RFC 3339 date-time"),
    (
        {**VIEW, "metadata": {"timestamp": "2026-02-30T00:00:00Z"}},
        "$.metadata.timestamp: must be an RFC 3339 date-time",
    ),
    ({**VIEW, "metadata": {"traceId": "A" * 32}}, "$.metadata.traceId: must be 32 lower-case hex digits"),
    ({**VIEW, "metadata": {"spanId": "a"}}, "$.metadata.spanId: must be 16 lower-case hex digits"),
    ({**VIEW, "statusCode": 200}, "$.statusCode: is no key of the contract"),
    ({**VIEW, "a key": 1}, '$["a key"]: is no key of the contract'),
    ({**VIEW, "k" * 999: 1}, f'$["{"k" * 64}"]: is no key of the contract'),
    ("text", "$: must be an object"),
    (None, "$: must be an object"),
]
ENGAGEMENT_ERRORS = [
    *((without(ENGAGEMENT, key), f"$.{key}: is missing") for key in ("userId", "metricType")),
    *((without(ENGAGEMENT, key), f"$.{key}: is missing") for key in ("targetId", "targetType")),
    ({**ENGAGEMENT, "userId": ""}, "$.userId: must be a non-empty string"),
    ({**ENGAGEMENT, "metadata": None}, "$.metadata: must be an object"),
    ({**ENGAGEMENT, "duration": 1}, "$.duration: is no key of the contract"),
]


@pytest.mark.parametrize(
    ("url", "body", "error"),
    [(VIEW_URL, *case) for case in VIEW_ERRORS] + [(ENGAGEMENT_URL, *case) for case in ENGAGEMENT_ERRORS],
)
def test_each_broken_rule_is_named_by_its_path(shared: httpx.Client, url: str, body: Any, error: str) -> None:
    stored = shared.get("/stats").json()["stored"]
    response = shared.post(url, content=json.dumps(body), headers=JSON)
    assert (response.status_code, errors_of(response)) == (400, [error])
    assert shared.get("/stats").json()["stored"] == stored


def test_all_complaints_come_at_once(http: httpx.Client) -> None:
    response = http.post(VIEW_URL, json={"duration": -1, "extra": 1})
    assert len(errors_of(response)) == 7
    stats = http.get("/stats").json()
    assert (stats["received"], stats["rejected"], stats["refused"]) == (1, 1, {})


def test_an_engagements_metadata_is_its_senders_own(http: httpx.Client) -> None:
    body = {**ENGAGEMENT, "metadata": {"timestamp": 5, "eventId": 7, "traceId": None, "note": "\ud800"}}
    assert http.post(ENGAGEMENT_URL, content=json.dumps(body), headers=JSON).status_code == 200
    assert http.get("/events").json()["events"][0]["body"] == body


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b'{"duration": NaN}', b'{"a": "\xff"}', b"[" * 100_000, b"9" * 5_000),
        *(b'{"a": [1e999]}', b"-1E999", b'{"a": Infinity}', b"[-Infinity]"),
    ],
    ids=["empty", "cut", "nan", "not-utf-8", "deep", "digits", "large", "small", "infinity", "-infinity"],
)
def test_what_is_no_json_is_refused(shared: httpx.Client, content: bytes) -> None:
    refused = shared.get("/stats").json()["refused"].get("400", 0)
    response = shared.post(VIEW_URL, content=content, headers=JSON)
    assert response.status_code == 400
    assert errors_of(response)[0].startswith("$: must be valid JSON: ")
    assert shared.get("/stats").json()["refused"]["400"] == refused + 1


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k":', "}")], ids=["arrays", "objects"])
@pytest.mark.parametrize("levels", [62, 63, 983, 984, 988, 2_000])
def test_nesting_is_bounded_where_all_that_reads_it_can_follow(
    collector: DevCollector, http: httpx.Client, levels: int, opening: str, closing: str
) -> None:
    """The body and its metadata are two levels; the deepest that is taken is 64."""
    nested = opening * levels + "1" + closing * levels
    content = json.dumps({**VIEW, "metadata": {"statusCode": 0}}).replace(": 0", f": {nested}")
    response = http.post(VIEW_URL, content=content, headers=JSON)
    if levels + 2 <= 64:
        assert response.status_code == 200
    else:
        message = "$: must be valid JSON: nested too deeply, more than 64 levels"
        assert (response.status_code, errors_of(response)) == (400, [message])
    assert http.get("/").status_code == 200
    assert http.get("/events").json()["total"] == len(collector.events()) == int(levels + 2 <= 64)


def test_what_is_listed_is_json_without_extensions(http: httpx.Client) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(name)

    for value in ("1e999", "[-1e999]", "NaN", "Infinity", "1e308"):
        content = json.dumps({**ENGAGEMENT, "metadata": {"v": 0}}).replace('"v": 0', f'"v": {value}')
        http.post(ENGAGEMENT_URL, content=content, headers=JSON)
    events = json.loads(http.get("/events").text, parse_constant=no_constant)["events"]
    assert [event["body"]["metadata"] for event in events] == [{"v": 1e308}]


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "br"}], ids=str
)
def test_other_content_types_and_encodings_are_refused(shared: httpx.Client, headers: dict[str, str]) -> None:
    assert shared.post(VIEW_URL, content=json.dumps(VIEW), headers=headers).status_code == 415


def test_a_charset_does_not_matter(shared: httpx.Client) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert shared.post(VIEW_URL, content=json.dumps(VIEW), headers=headers).status_code == 200


@pytest.mark.parametrize("sent", [None, "", "secre", "secret!!", "SECRET", "sécret"])
def test_another_write_key_is_refused(sent: str | None) -> None:
    headers = [] if sent is None else [(b"X-Write-Key", sent.encode())]
    with DevCollector(write_key="secret!") as collector:
        response = httpx.post(collector.url + VIEW_URL, json=VIEW, headers=headers)
        assert response.status_code == 401
        assert "secret!" not in response.text
        assert collector.events() == []
        assert collector.stats().refused == {401: 1}


def test_the_right_write_key_is_let_in() -> None:
    with DevCollector(write_key="secret!") as collector:
        headers = {"X-Write-Key": "secret!"}
        assert httpx.post(collector.url + VIEW_URL, json=VIEW, headers=headers).status_code == 200
        assert "secret!" not in repr(collector)


def test_an_array_is_stored_but_for_its_failures(collector: DevCollector, http: httpx.Client) -> None:
    bodies = [VIEW, without(VIEW, "app"), {**VIEW, "userId": "u2"}, "text"]
    response = http.post(VIEW_URL, json=bodies)
    assert response.status_code == 200
    assert response.json() == {
        "received": 4,
        "failures": [
            {"index": 1, "status": "rejected", "reason": "$[1].app: is missing"},
            {"index": 3, "status": "rejected", "reason": "$[3]: must be an object"},
        ],
    }
    assert collector.events() == [bodies[0], bodies[2]]
    assert collector.stats().kinds["view"] == (4, 2, 0, 2)


def test_an_empty_array_is_acknowledged(shared: httpx.Client) -> None:
    assert shared.post(VIEW_URL, json=[]).json() == {"received": 0, "failures": []}


def test_an_array_beyond_the_advertised_limits_is_too_large() -> None:
    with DevCollector(batch=BatchLimits(max_events=2, max_bytes=900)) as collector:
        url = collector.url + VIEW_URL
        assert httpx.post(url, json=[VIEW] * 2).status_code == 200
        assert httpx.post(url, json=[VIEW] * 3).status_code == 413
        assert httpx.post(url, json=[{**VIEW, "userId": "u" * 900}]).status_code == 413
        assert collector.stats().stored == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/stats", 200),
        ("GET", "/healthz", 204),
        ("GET", VIEW_URL, 405),
        ("POST", VIEW_URL, 415),
        ("POST", VIEW_URL + "/", 404),
    ],
)
def test_every_response_advertises_batches(shared: httpx.Client, method: str, path: str, status: int) -> None:
    response = shared.request(method, path)
    assert response.status_code == status
    assert response.headers.get_list("X-Analytics-Batch") == [ADVERTISEMENT]


def test_the_advertisement_says_what_was_configured() -> None:
    with DevCollector(batch=BatchLimits(max_events=7, max_bytes=800, gzip=False)) as collector:
        assert httpx.get(collector.url).headers["X-Analytics-Batch"] == "max=7; bytes=800"


def test_without_batches_arrays_are_refused() -> None:
    with DevCollector(batch=None) as collector:
        response = httpx.post(collector.url + VIEW_URL, json=[VIEW])
        assert response.status_code == 415
        assert "X-Analytics-Batch" not in response.headers
        assert httpx.post(collector.url + VIEW_URL, json=VIEW).status_code == 200


def test_gzip_bodies_are_read(collector: DevCollector, http: httpx.Client) -> None:
    whole = json.dumps([VIEW, VIEW]).encode()
    assert http.post(VIEW_URL, content=gzip.compress(whole), headers=GZIP).json()["received"] == 2
    members = gzip.compress(whole[:50]) + gzip.compress(whole[50:])
    assert http.post(VIEW_URL, content=members, headers=GZIP).json()["received"] == 2
    assert collector.stats().stored == 4


def test_gzip_of_very_many_members_is_read_in_linear_time() -> None:
    def seconds(members: int) -> float:
        raw = gzip.compress(b"[") + gzip.compress(b"") * members + gzip.compress(b"]")
        began = time.process_time()
        assert decoded(raw, "gzip", 100) == b"[]"
        return time.process_time() - began

    seconds(1_000)
    assert seconds(99_500) < 30 * max(seconds(9_950), 0.01)


@pytest.mark.parametrize("size", [1, 4_095, 4_096, 4_097, 100_000])
@pytest.mark.parametrize("level", [0, 9])
def test_gzip_is_read_whatever_its_members_sizes(size: int, level: int) -> None:
    part = bytes(range(256)) * (size // 256 + 1)
    members = [part[:size], b"", part[:7], part[: size // 2]]
    raw, whole = b"".join(gzip.compress(one, level) for one in members), b"".join(members)
    assert decoded(raw, "gzip", len(whole)) == whole
    with pytest.raises(Refusal) as refused:
        decoded(raw, "gzip", len(whole) - 1)
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "content",
    [b"plain", gzip.compress(b"[]")[:-4], gzip.compress(b"[]") + b"tail", zlib.compress(b"[]")],
    ids=["plain", "cut", "tail", "zlib"],
)
def test_broken_gzip_is_refused(shared: httpx.Client, content: bytes) -> None:
    response = shared.post(VIEW_URL, content=content, headers=GZIP)
    assert response.status_code == 400
    assert "gzip" in errors_of(response)[0]


def test_a_gzip_bomb_is_too_large() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with DevCollector(max_body_bytes=100_000) as collector:
        assert len(bomb) < 100_000
        assert httpx.post(collector.url + VIEW_URL, content=bomb, headers=GZIP).status_code == 413


def test_a_large_body_is_refused_whether_its_length_is_said_or_not() -> None:
    def in_pieces() -> Iterator[bytes]:
        yield from [b" " * 600] * 2

    with DevCollector(max_body_bytes=1000) as collector, httpx.Client(base_url=collector.url) as http:
        assert http.post(VIEW_URL, content=b" " * 1001, headers=JSON).status_code == 413
        assert http.post(VIEW_URL, content=in_pieces(), headers=JSON).status_code == 413
        assert http.post(VIEW_URL, json=VIEW).status_code == 200
        assert collector.stats().refused == {413: 2}


def test_a_known_event_id_is_a_duplicate(collector: DevCollector, http: httpx.Client) -> None:
    for _ in range(2):
        assert http.post(VIEW_URL, json=with_id(VIEW, "e1")).json() == {"received": 1, "failures": []}
    both = [with_id(VIEW, "e1"), with_id(VIEW, "e2"), with_id(VIEW, "e2")]
    assert http.post(VIEW_URL, json=both).json() == {"received": 3, "failures": []}
    assert collector.events() == [with_id(VIEW, "e1"), with_id(VIEW, "e2")]
    assert collector.stats().kinds["view"] == (5, 2, 3, 0)


def test_the_idempotency_key_stands_in_for_an_event_id(collector: DevCollector, http: httpx.Client) -> None:
    for body in (VIEW, VIEW, with_id(VIEW, "e1")):
        http.post(VIEW_URL, json=body, headers={"Idempotency-Key": "k1"})
    assert collector.events() == [VIEW, with_id(VIEW, "e1")]


def test_a_batchs_idempotency_key_is_no_event_id(collector: DevCollector, http: httpx.Client) -> None:
    http.post(VIEW_URL, json=[VIEW, VIEW], headers={"Idempotency-Key": "k1"})
    assert collector.stats().stored == 2


def test_events_without_an_id_are_all_kept(collector: DevCollector, http: httpx.Client) -> None:
    for _ in range(2):
        http.post(VIEW_URL, json=VIEW)
    assert collector.stats().stored == 2
