"""The recorded spans of `corpus/`, as the objects that an exporter receives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

FRAMEWORKS = ("django_wsgi", "fastapi", "flask", "grpc_sync", "starlette")
MODES = ("unset", "http", "http/dup")

_CORPUS = Path(__file__).parent / "corpus"
_RESOURCE = Resource({"service.name": "shop"})


class Recording(NamedTuple):
    """One request: how it was made, what the client saw, what the server's process recorded."""

    framework: str
    server: str
    variant: str
    mode: str
    request: dict[str, Any]
    saw: dict[str, Any]
    spans: list[ReadableSpan]

    def __str__(self) -> str:
        return f"{self.framework}/{self.server}/{self.variant}/{self.mode}/{self.request['id']}"


@cache
def load(framework: str) -> list[Recording]:
    """Return a framework's recordings."""
    return list(_recordings(framework))


def _recordings(framework: str) -> Iterator[Recording]:
    with gzip.open(_CORPUS / f"{framework}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield Recording(**{**row, "spans": [_span(span) for span in row["spans"]]})


def _span(row: dict[str, Any]) -> ReadableSpan:
    return ReadableSpan(
        name=row["name"],
        kind=SpanKind[row["kind"]],
        context=_context(row["trace"], row["span"], is_remote=False),
        parent=_context(row["trace"], row["parent"][0], is_remote=row["parent"][1])
        if row["parent"]
        else None,
        status=Status(StatusCode[row["status"]]),
        start_time=row["start"],
        end_time=row["end"],
        attributes={key: _tuples(value) for key, value in row["attributes"].items()},
        events=[Event(name, attributes, time) for name, time, attributes in row["events"]],
        resource=_RESOURCE,
        instrumentation_scope=InstrumentationScope(row["scope"]),
    )


def _context(trace_id: str, span_id: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=is_remote)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
