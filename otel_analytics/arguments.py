"""Arguments of ``track_*`` that are plainly in each other's places, which no type can tell: texts all.

What is taken for a mistake is a word that means one thing only, in a field that is for another, while its
own field has no such word: an HTTP method, a path, a metric type, a device type, an event's name. Nothing
is put right, and no value is shown but such a word: others may be somebody's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from otel_analytics.events import MetricType

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
_METRIC_TYPES: Final = frozenset(each.value for each in MetricType)
_DEVICES: Final = frozenset({"desktop", "mobile", "tablet"})


def mistake_in_view(fields: Mapping[str, Any], device_type: Any, duration: Any) -> str:
    """Return what is wrong with `track_view`'s arguments, or an empty text.

    Args:
        fields: What else may hold the device type by mistake, by name.
        device_type: As it was given.
        duration: The same.
    """
    return _misplaced("a device type", fields, device_type, _DEVICES) or _no_number("duration", duration)


def mistake_in_engagement(fields: Mapping[str, Any], metric_type: Any) -> str:
    """Return what is wrong with `track_engagement`'s arguments, or an empty text."""
    return _misplaced("a metric type", fields, metric_type, _METRIC_TYPES)


def mistake_in_api_call(endpoint: Any, method: Any, status_code: Any) -> str:
    """Return what is wrong with `track_api_call`'s arguments, or an empty text."""
    if type(method) is str and method.startswith("/"):
        said = f"endpoint={endpoint!r} is a method, " if _is_in(endpoint, _METHODS) else ""
        return f"{said}method is a path"
    return _no_number("status_code", status_code)


def mistake_in_business_event(fields: Mapping[str, Any], event_type: Any, known: Collection[str]) -> str:
    """Return what is wrong with `track_business_event`'s arguments, or an empty text."""
    return _misplaced("the name of a business event", fields, event_type, known)


def _misplaced(what: str, fields: Mapping[str, Any], own: Any, words: Collection[str]) -> str:
    if _is_in(own, words):
        return ""
    for name, value in fields.items():
        if _is_in(value, words):
            return f"{name}={value!r} is {what}"
    return ""


def _is_in(value: Any, words: Collection[str]) -> bool:
    return type(value) is str and value in words


def _no_number(name: str, value: Any) -> str:
    is_text = type(value) is str and not value.replace(".", "", 1).isdigit()
    return f"{name} is a text, no number" if is_text else ""
