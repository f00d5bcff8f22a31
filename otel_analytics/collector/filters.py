"""Which events are meant: the filters of `GET /events` and of `DevCollector.events`, in one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from otel_analytics.contract import Kind, parse_rfc3339

_MILLIS = re.compile(r"[0-9]{1,15}")


class _Filter(NamedTuple):
    condition: str
    read: Callable[[Any], Any]


def _kind(value: Any) -> str:
    try:
        return Kind(value).value
    except ValueError:
        raise ValueError(f"must be one of {', '.join(kind.value for kind in Kind)}") from None


def _time(value: Any) -> int:
    text = str(value)
    return int(text) if _MILLIS.fullmatch(text) else parse_rfc3339(text)


_FILTERS: Mapping[str, _Filter] = {
    "kind": _Filter("kind = ?", _kind),
    "content_id": _Filter("content_id = ?", str),
    "metric_type": _Filter("metric_type = ?", str),
    "user_id": _Filter("user_id = ?", str),
    "event_id": _Filter("event_id = ?", str),
    "since": _Filter("time_millis >= ?", _time),
    "until": _Filter("time_millis < ?", _time),
}


class Selection(NamedTuple):
    """A part of an SQL statement and its parameters."""

    where: str
    parameters: tuple[Any, ...]


def selection(filters: Mapping[str, Any]) -> Selection:
    """Turn filters into a WHERE clause.

    Args:
        filters: By name: `kind` (``view``, ``engagement``), `content_id`, `metric_type`, `user_id`,
            `event_id`; `since` (inclusive) and `until` (exclusive) are times of occurrence, RFC 3339 or
            milliseconds since the epoch. An event that names no time has the time it was received.

    Raises:
        ValueError: A filter is unknown or cannot have its value.
    """
    conditions, parameters = ["1"], []
    for name, value in filters.items():
        if name not in _FILTERS:
            raise ValueError(f"{name}: is no filter; the filters are {', '.join(_FILTERS)}")
        try:
            parameters.append(_FILTERS[name].read(value))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        conditions.append(_FILTERS[name].condition)
    return Selection(" AND ".join(conditions), tuple(parameters))
