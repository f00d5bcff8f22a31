"""Reading attribute values: any object may stand where a text or a number is expected.

Lookups take plain dicts: `Mapping.get` of the SDK's own attribute class costs ten times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from otel_analytics.mapping.protocol import Attributed

Attributes = dict[str, Any]

_WORDS_FOR_TRUE = frozenset({"true", "1", "yes"})


def attributes_of(owner: Attributed) -> Attributes:
    """Return the attributes of a span, event or resource as a plain dict; none at all is an empty one."""
    attributes = owner.attributes
    if attributes is None:
        return {}
    try:
        copy: Attributes = attributes.copy()  # type: ignore[attr-defined]
    except AttributeError:  # a mapping of somebody's own
        return dict(attributes)
    return copy


def attributes_for_a_look(owner: Attributed) -> Attributes:
    """Return the same without a copy where that can be had; not to be kept or changed."""
    own = getattr(getattr(owner, "_attributes", None), "_dict", None)  # the SDK's
    return own if isinstance(own, dict) else attributes_of(owner)


def has_any(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether one of a few ``keys`` is there; a frozenset's `isdisjoint` looks at all attributes instead."""
    for key in keys:  # noqa: SIM110 - a generator costs five times as much
        if key in attributes:
            return True
    return False


def names_of(owner: Attributed) -> Iterable[str]:
    """Return the names of attributes, without a copy or their values where that can be had."""
    named: Iterable[str] | None = getattr(owner, "attribute_names", None)
    return attributes_for_a_look(owner) if named is None else named


def first_text(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first non-empty text under ``keys``, else an empty string."""
    for key in keys:
        value = attributes.get(key)
        if value is not None:
            text = value if type(value) is str else as_text(value)
            if text:
                return text
    return ""


def first_int(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """Return the first whole number under ``keys``, be it written as text."""
    for key in keys:
        value = attributes.get(key)
        if type(value) is int:
            return value
        if type(value) is float and value.is_integer():  # as JSON may write it
            return int(value)
        if value is not None and (text := as_text(value)).isascii() and text.isdigit():
            return int(text[:9])
    return None


def as_text(value: Any) -> str:
    """Say a scalar as text; an empty string where there is nothing to say.

    One-element sequences are unwrapped, numbers and UUIDs are ids as good as text. Booleans, mappings and
    longer sequences are no text.
    """
    if type(value) is str:
        return value
    for _ in range(2):
        if isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (int, float, Decimal, UUID)) and not isinstance(value, bool):
        return _number_text(value)
    return ""


def is_true(value: Any) -> bool:
    """Whether a flag is set: `True`, or a word for it, as attributes set from configuration are."""
    return value is True or as_text(value).lower() in _WORDS_FOR_TRUE


def _number_text(value: float | Decimal | UUID) -> str:
    try:
        text = str(value)
    except ValueError:  # an int of more digits than CPython converts
        return ""
    return "" if "nan" in text.lower() else text  # NaN, and a Decimal's sNaN, name nobody
