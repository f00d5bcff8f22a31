"""An accepted body becomes a row: what can be searched and counted, and the body itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from otel_analytics.collector.rules import is_text
from otel_analytics.contract import Kind, parse_rfc3339

_FIRST_ERROR_STATUS = 400
_RPC_OK = frozenset({0, "0", "OK"})


class Record(NamedTuple):
    """One row of the table `events`, in its columns' order; times are milliseconds since the epoch."""

    kind: str
    event_id: str | None
    content_id: str | None
    metric_type: str | None
    user_id: str | None
    duration: float | None
    failed: bool | None
    time_millis: int
    received_millis: int
    body: str


def record(kind: Kind, body: Mapping[str, Any], idempotency_key: str | None, received_millis: int) -> Record:
    """Build the row of a body that keeps the contract.

    Args:
        kind: Its kind.
        body: The decoded JSON object.
        idempotency_key: Its id where the body's metadata has none.
        received_millis: When it came; also its time of occurrence where it says none.
    """
    metadata = body.get("metadata", {})
    duration = body.get("duration")
    return Record(
        kind=kind.value,
        event_id=_event_id(metadata, idempotency_key),
        content_id=body.get("contentId"),
        metric_type=body.get("metricType"),
        user_id=body.get("userId"),
        duration=None if duration is None else float(duration),
        failed=_failed(metadata) if kind is Kind.VIEW else None,
        time_millis=_time(metadata, received_millis),
        received_millis=received_millis,
        body=json.dumps(body, separators=(",", ":")),  # escaped: a lone surrogate in metadata is no UTF-8
    )


def _event_id(metadata: Mapping[str, Any], idempotency_key: str | None) -> str | None:
    event_id = metadata.get("eventId")
    return event_id if is_text(event_id) else idempotency_key


def _failed(metadata: Mapping[str, Any]) -> bool | None:
    status = metadata.get("statusCode")
    if isinstance(status, bool) or not isinstance(status, (int, str)):
        return None
    if metadata.get("method") == "RPC":
        return status not in _RPC_OK
    return isinstance(status, int) and status >= _FIRST_ERROR_STATUS


def _time(metadata: Mapping[str, Any], received_millis: int) -> int:
    try:
        return parse_rfc3339(metadata["timestamp"])
    except (KeyError, TypeError, ValueError):
        return received_millis
