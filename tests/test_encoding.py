"""Any value becomes JSON, in bounded time: what a body may hold, and what is done with the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_analytics import EngagementEvent, MetricType, ViewEvent
from otel_analytics.contract import CallView
from otel_analytics.encoding import MAX_BODY_BYTES, encode_json, readable_items
from otel_analytics.errors import EventError
from otel_analytics.events import OBJECTS, encode, encode_call

TIME = "2026-01-01T00:00:00.000Z"
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    # lone surrogates are the walk's
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=50,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), PLAIN))
def test_plain_json_is_said_as_it_is(value: dict[str, Any]) -> None:
    assert encode_json(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Counted(list[Any]):
    """A list that counts how often it was read."""

    read = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            type(self).read += 1
            yield item


def shared_lists(depth: int) -> list[Any]:
    value: list[Any] = Counted([1.5] * 4)
    for _ in range(depth):
        value = Counted([value] * 4)
    return value


class LongText:
    """A value whose text is long; counts how often it was asked for."""

    asked = 0

    def __str__(self) -> str:
        type(self).asked += 1
        return "x" * 100_000


class Endless(Mapping[str, int]):
    """A mapping that says it has one item and never ends."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, count())

    def __len__(self) -> int:
        return 1


def test_what_takes_long_is_asked_for_only_as_long_as_there_is_room() -> None:
    LongText.asked = 0
    body = encode_json({"texts": [LongText() for _ in range(4_000)]})
    assert 0 < LongText.asked < 100
    assert len(body) <= MAX_BODY_BYTES


@pytest.mark.parametrize(
    "value",
    [
        [{"k" * 1_000_000: 1}] * 3_000,
        [memoryview(b"x" * 5_000_000)] * 3_000,
        [memoryview(b"x" * 100_000)[::2]] * 3_000,
        [10**4_200] * 4_000,
        Endless(),
        {"endless": Endless()},
    ],
    ids=["keys", "views", "parted views", "integers", "endless", "endless within"],
)
def test_nothing_large_goes_uncounted(value: Any) -> None:
    assert len(encode_json({"value": value})) <= MAX_BODY_BYTES
    assert len(encode_json(readable_items({"value": value}))) <= MAX_BODY_BYTES
    event = EngagementEvent("id", TIME, "u", "m", "t", metadata=value if isinstance(value, Mapping) else {})
    assert len(encode(event).body) <= MAX_BODY_BYTES


@pytest.mark.parametrize(
    "make",
    [
        lambda: Counted([0.1] * 1_000_000),
        lambda: shared_lists(10),
        lambda: Counted([Counted([1] * 1_000) for _ in range(1_000)]),
        lambda: Counted(["x" * 100_000] * 1_000),
        lambda: Counted([b"\xff" * 100_000] * 1_000),
    ],
    ids=["floats", "shared", "nested", "texts", "bytes"],
)
def test_what_is_large_is_not_read_to_its_end(make: Callable[[], Any]) -> None:
    value, Counted.read = make(), 0
    body = encode_json({"first": 1, "large": value, "last": 2})
    assert len(body) <= MAX_BODY_BYTES
    assert Counted.read <= 60_000, "a few thousand for each time that it is shortened"
    assert json.loads(body)["first"] == 1
    assert json.loads(body)["large"]


def test_a_cycle_and_great_depth_are_marked() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert json.loads(encode_json({"cycle": cycle})) == {"cycle": [1, "[circular]"]}
    assert b"[too deep]" in encode_json({"deep": deep})
    while deep:  # CPython's own end of such a list is no part of this
        deep = deep.pop()


class Partly(Mapping[str, Any]):
    """A mapping of which one item cannot be read, and which ends by raising."""

    def __getitem__(self, key: str) -> Any:
        if key == "bad":
            raise RuntimeError(key)
        return key.upper()

    def __iter__(self) -> Iterator[str]:
        yield "good"
        yield "bad"
        yield "later"
        raise SystemExit

    def __len__(self) -> int:
        raise ValueError


def test_what_raises_is_replaced_item_by_item() -> None:
    read = {"good": "GOOD", "bad": "[unreadable]", "later": "LATER"}
    assert json.loads(encode_json({"a": Partly(), "b": [Partly(), 1]})) == {"a": read, "b": [read, 1]}
    event = EngagementEvent("id", TIME, "u", "m", "t", metadata=Partly())
    assert json.loads(encode(event).body)["metadata"] == {**read, "eventId": "id", "timestamp": TIME}


def view(**fields: Any) -> dict[str, Any]:
    values = {
        "content_id": "c",
        "content_type": "t",
        "session_id": "s",
        "device_type": "d",
        "app": "a",
        **fields,
    }
    body: dict[str, Any] = json.loads(encode(ViewEvent("id", TIME, **values)).body)
    return body


@pytest.mark.parametrize(
    "duration",
    [float("nan"), float("inf"), -1, -0.5, Decimal(3), "3", True, 10**400, [], {}, object()],
    ids=lambda value: f"{type(value).__name__} {str(value)[:5]}",
)
def test_a_duration_that_is_none_is_left_out(duration: Any) -> None:
    assert "duration" not in view(duration=duration)


@pytest.mark.parametrize("duration", [0, 0.0, 1, 1.5, 1e15, 2**53])
def test_a_duration_stays(duration: float) -> None:
    assert view(duration=duration)["duration"] == duration


class NoText:
    """A value whose text is an exception."""

    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize("field", ["user_id", "ip_address"])
@pytest.mark.parametrize("value", ["", None, NoText(), b""], ids=["empty", "none", "raising", "bytes"])
def test_an_optional_text_that_is_none_is_left_out(field: str, value: Any) -> None:
    assert set(view(**{field: value})) == {
        "contentId",
        "contentType",
        "sessionId",
        "deviceType",
        "app",
        "metadata",
    }


@pytest.mark.parametrize("metadata", [None, 3, [1], "text", NoText()], ids=lambda value: type(value).__name__)
def test_metadata_that_is_no_mapping_is_left_out(metadata: Any) -> None:
    assert view(metadata=metadata)["metadata"] == {"eventId": "id", "timestamp": TIME}


@pytest.mark.parametrize("field", ["content_id", "content_type", "session_id", "device_type", "app"])
@pytest.mark.parametrize("value", ["", None, NoText()], ids=["empty", "none", "raising"])
def test_an_event_without_a_required_field_is_none(field: str, value: Any) -> None:
    with pytest.raises(EventError, match="is missing"):
        view(**{field: value})


def test_a_field_is_text_whatever_its_type() -> None:
    event = EngagementEvent("id", TIME, 5, MetricType.PURCHASE, b"t")  # type: ignore[arg-type]
    body = json.loads(encode(event).body)
    assert (body["userId"], body["metricType"], body["targetId"]) == ("5", "purchase", "t")


ANY_TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "\ud800", "\ud83d\ude00", '"\\', "\u2028", "x" * 300_000]
)
ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.binary(max_size=9)
    | st.decimals()
    | st.datetimes()
    | st.sampled_from([10**4000, MetricType.PURCHASE, Partly()]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4) | st.tuples(inner)
    ),
    max_leaves=8,
)
ANY_METADATA = st.dictionaries(
    ANY_TEXT | st.sampled_from(["eventId", "timestamp"]) | st.integers(), ANY_VALUE, max_size=5
)
ANY_NUMBER = st.none() | st.floats() | st.integers() | st.sampled_from([10**400, -0.0, 1e300])


def as_an_object(event: ViewEvent | EngagementEvent, **options: Any) -> bytes | None:
    """Encode as it was always done: the contract's object, and that as JSON; `None` for no event."""
    body = event.body(**options)
    return None if "" in [value for value in body.values() if isinstance(value, str)] else encode_json(body)


def as_text(event: ViewEvent | EngagementEvent, **options: Any) -> bytes | None:
    try:
        return encode(event, **options).body
    except EventError:
        return None


@given(st.lists(ANY_TEXT, min_size=7, max_size=7), ANY_NUMBER, ANY_METADATA, st.booleans())
def test_a_view_is_the_same_bytes_whether_written_as_text_or_as_an_object(
    texts: list[str], duration: Any, metadata: dict[Any, Any], with_metadata: bool
) -> None:
    content_id, content_type, session_id, device_type, app, user_id, address = texts
    event = ViewEvent(
        "id",
        TIME,
        content_id,
        content_type,
        session_id,
        device_type,
        app,
        user_id,
        duration,
        address,
        metadata,
    )
    assert as_text(event, view_metadata=with_metadata) == as_an_object(event, view_metadata=with_metadata)


@given(st.lists(ANY_TEXT, min_size=4, max_size=4), ANY_METADATA)
def test_an_engagement_is_the_same_bytes_whether_written_as_text_or_as_an_object(
    texts: list[str], metadata: dict[Any, Any]
) -> None:
    event = EngagementEvent("id", TIME, texts[0], texts[1], texts[2], texts[3], metadata)
    assert as_text(event) == as_an_object(event)


CALLS = st.builds(
    CallView,
    ANY_TEXT.filter(bool),
    ANY_TEXT.filter(bool),
    ANY_TEXT.filter(bool),
    ANY_TEXT.filter(bool),
    ANY_TEXT.filter(bool),
    st.none() | st.integers(-(2**63), 2**63 - 1) | ANY_TEXT.filter(bool),
    ANY_TEXT,
    ANY_TEXT,
    st.booleans(),
    st.sampled_from(["", "healthCheck", "preflight"]),
)


@given(
    CALLS,
    st.sampled_from(["", "u-1", "\ud800"]),
    st.sampled_from([None, 0, 1.5]),
    st.sampled_from(["", "0" * 32]),
    st.sampled_from([None, 3, 2.5]),
    st.booleans(),
)
def test_a_calls_view_is_the_same_bytes_as_text_and_as_an_object(
    call: CallView, user: str, duration: float | None, trace: str, weight: float | None, metadata: bool
) -> None:
    fields = (call, "id", TIME, user, "s", duration, None, "a", trace, "0" * 16, weight)
    event = OBJECTS.call(*fields)
    assert isinstance(event, ViewEvent)
    assert encode_call(*fields, view_metadata=metadata) == encode(event, view_metadata=metadata)
