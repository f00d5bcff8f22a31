"""Spans of the world, made from public bug reports and recordings: each case says what an analyst expects.

`cases.jsonl` holds a case a line. `spans`: as they would end, one trace each unless `trace` says so; `at` and
`ms` are milliseconds after the case's start. `options`: of the exporter. `source`: where it was seen. `want`:
`views` and `engagements` (as many, in any order, with these fields; `null`: the key is absent, `x*`: begins
with x), `distinct` (most distinct values of a field; of `userId` exactly so many), `absent` (text that no
request may hold).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from otlp_making import otlp
from span_making import START

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter
from otel_analytics.bridge.intake import Intake, Signal
from otel_analytics.bridge.otlp import Encoding
from otel_analytics.testing import FaultyCollector

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").open(encoding="utf-8")]
NANOS = 1_000_000
BODIES = {"views": "view", "engagements": "engagement"}
PARAMETERS = [pytest.param(case, id=case["case"]) for case in CASES]


def spans_of(case: dict[str, Any]) -> Iterator[ReadableSpan]:
    for number, span in enumerate(case["spans"]):
        trace_id = span.get("trace", 1000 + number) + 1
        start = START + int(span.get("at", 0) * NANOS)
        yield ReadableSpan(
            span["name"],
            kind=SpanKind[span["kind"]],
            context=SpanContext(trace_id, span.get("id", 5000 + number), is_remote=False),
            parent=SpanContext(trace_id, span["parent"], is_remote=False) if span.get("parent") else None,
            resource=Resource(span["resource"]),
            attributes=tupled(span["attributes"]),
            events=[Event(name, tupled(attributes), start) for name, attributes in span.get("events") or ()],
            status=Status(StatusCode[span.get("status", "UNSET")]),
            start_time=start,
            end_time=start + int(span["ms"] * NANOS),
            instrumentation_scope=InstrumentationScope(span["scope"]),
        )


def tupled(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


def said(body: dict[str, Any], key: str) -> Any:
    metadata = body.get("metadata", {})
    return metadata.get("statusCode") if key == "status" else body.get(key, metadata.get(key))


def is_as_wanted(body: dict[str, Any], wanted: dict[str, Any]) -> bool:
    for key, value in wanted.items():
        got = said(body, key)
        begins = isinstance(value, str) and value.endswith("*")
        if not (got is not None and str(got).startswith(value[:-1]) if begins else got == value):
            return False
    return True


def unlike(bodies: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is wanted and not there; each body is what one wants."""
    left, missing = list(bodies), []
    for each in wanted:
        found = next((body for body in left if is_as_wanted(body, each)), None)
        if found is None:
            missing.append(each)
        else:
            left.remove(found)
    return missing


def by_exporter(case: dict[str, Any], client: AnalyticsClient) -> None:
    exporter = AnalyticsSpanExporter(client=client)
    for span in spans_of(case):
        exporter.export([span])
    assert exporter.force_flush(10_000)


def by_bridge(case: dict[str, Any], client: AnalyticsClient) -> None:
    intake = Intake(client)
    for number, span in enumerate(spans_of(case)):
        encoding = list(Encoding)[number % 2]
        intake.take(otlp([span], encoding), Signal.TRACES, encoding)
    assert client.flush(10_000)


@pytest.mark.parametrize("send", [by_exporter, by_bridge])
@pytest.mark.parametrize("case", PARAMETERS)
def test_a_case_of_the_world(
    case: dict[str, Any], send: Callable[[dict[str, Any], AnalyticsClient], None]
) -> None:
    want = case["want"]
    with FaultyCollector() as collector, AnalyticsClient(collector.url, **case.get("options", {})) as client:
        send(case, client)
        got = {name: collector.bodies(kind) for name, kind in BODIES.items()}
    for name in BODIES.keys() & want:
        assert unlike(got[name], want[name]) == [], got[name]
        assert len(got[name]) == len(want[name])
    every = [body for bodies in got.values() for body in bodies]
    for key, most in want.get("distinct", {}).items():
        distinct = {said(body, key) for body in every} - {None}
        assert len(distinct) == most if key == "userId" else len(distinct) <= most
    text = json.dumps(every)
    for absent in want.get("absent", ()):
        assert absent not in text
        assert json.dumps(absent)[1:-1] not in text
