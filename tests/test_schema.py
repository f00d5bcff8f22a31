"""The JSON Schema that collector authors get says what the dev collector's own checks say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from otel_analytics.cli.docs import page
from otel_analytics.collector.rules import problems
from otel_analytics.contract import BODIES, REJECTED, RETRY, Failure, Kind, acknowledgement, parse_rfc3339

SCHEMA: Mapping[str, Any] = json.loads(page("schema"))
TYPES = {str: "#/$defs/text", float: "number", dict: "object"}
BODY: Mapping[Kind, Mapping[str, Any]] = {
    Kind.VIEW: {
        "contentId": "GET:/",
        "contentType": "post",
        "userId": "u",
        "sessionId": "s",
        "duration": 1.5,
        "ipAddress": "192.0.2.1",
        "deviceType": "desktop",
        "app": "shop",
        "metadata": {
            "eventId": "e",
            "timestamp": "2026-01-31T12:00:00Z",
            "traceId": "a" * 32,
            "spanId": "b" * 16,
        },
    },
    Kind.ENGAGEMENT: {
        "userId": "u",
        "metricType": "purchase",
        "targetId": "t",
        "targetType": "content",
        "metadata": {"eventId": "e", "amount": 9.99},
    },
}
VALUES: tuple[Any, ...] = (
    *("", "text", "\ud800", "a\ud800b", "line\nline\n", "\U0001f600", None, True, False),
    *(0, -1, 7, 1.5, -0.5, 1.7976931348623157e308, 10**400, [], ["text"], {}, {"k": None}),
    *("2026-01-31T12:00:00Z", "2026-02-30T12:00:00Z", "2026-01-31T12:00:00.123+01:00", "2026-01-31"),
    *("a" * 32, "A" * 32, "a" * 33, "a" * 32 + "\n", "a" * 31 + "\n", "b" * 16, "g" * 16),
)
formats = FormatChecker(formats=())


def is_date_time(text: object) -> bool:
    return not isinstance(text, str) or parse_rfc3339(text) > 0


formats.checks("date-time", raises=ValueError)(is_date_time)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{name}"}]}, format_checker=formats)


def variants(body: Mapping[str, Any]) -> Iterator[Any]:
    """Yield bodies that differ in one place: a key less, a key more, another value."""
    yield from (body, *VALUES)
    for key in (*body, "more", "userID"):
        yield {name: value for name, value in body.items() if name != key}
        yield from ({**body, key: value} for value in VALUES)
    for key in ("eventId", "timestamp", "traceId", "spanId", "amount", "statusCode"):
        yield from ({**body, "metadata": {**body["metadata"], key: value}} for value in VALUES)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("kind", Kind)
def test_its_keys_are_the_contracts(kind: Kind) -> None:
    said = SCHEMA["$defs"][kind.value]
    assert list(said["properties"]) == list(BODIES[kind])
    assert said["required"] == [name for name, key in BODIES[kind].items() if key.required]
    for name, key in BODIES[kind].items():
        of_key = said["properties"][name]
        ref = of_key.get("$ref", "")
        type_of_ref = SCHEMA["$defs"]["viewMetadata"]["type"] if ref.endswith("viewMetadata") else ref
        assert (type_of_ref or of_key["type"]) == TYPES[key.type], name


@pytest.mark.parametrize("kind", Kind)
def test_it_takes_and_refuses_what_the_collector_does(kind: Kind) -> None:
    schema = validator(kind.value)
    verdicts = set()
    for body in variants(BODY[kind]):
        complaints = problems(kind, body)
        assert schema.is_valid(body) is (not complaints), (body, complaints)
        verdicts.add(not complaints)
    assert verdicts == {True, False}


def test_acknowledgements_keep_it() -> None:
    schema = validator("acknowledgement")
    failures = [Failure(0, REJECTED, "why"), Failure(2, RETRY)]
    assert schema.is_valid(acknowledgement(3, failures))
    assert not schema.is_valid({"received": 3, "failures": [{"index": 0, "status": "lost"}]})
    assert not schema.is_valid({})
