"""Any value becomes JSON: an event is never lost for what somebody put into an attribute.

Encoding is optimistic. Almost every body is plain JSON already, so it is encoded straight away; only where
that fails, or gives too much, is the value walked and cleaned. Text is what the contract's own client sends
(ECMAScript's ``JSON.stringify``): compact, UTF-8 not escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

MAX_BODY_BYTES = 256_000
"""Largest body of one event; beyond it, values are shortened until it fits."""

_MAX_TEXT = 8_192
_MAX_ITEMS = 256
_MAX_DEPTH = 12
_LARGEST_INT = 2**63
_CUT = "…[truncated]"
_CYCLE = "[circular]"
_TOO_DEEP = "[too deep]"


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Encode a body as UTF-8 JSON of at most `MAX_BODY_BYTES` where it can be shortened to that.

    Args:
        value: A body; its values may be anything at all.

    Returns:
        The JSON, in which values that JSON has no form for are replaced (see `json_safe`).
    """
    try:
        body = _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        body = _ENCODER.encode(json_safe(value)).encode()
    if len(body) <= MAX_BODY_BYTES:
        return body
    return _shortened(value)


def json_safe(value: Any, *, max_text: int = _MAX_TEXT, max_items: int = _MAX_ITEMS) -> Any:
    """Return a copy of ``value`` that JSON can say.

    Decimals and dates become text (ISO 8601), bytes UTF-8 text or hex, NaN and the infinities `None`, lone
    surrogates U+FFFD, cycles and great depth a mark, long texts and long lists their beginning.

    Args:
        value: Anything.
        max_text: Most characters of one text.
        max_items: Most items of one collection.
    """
    return _Cleaner(max_text, max_items).clean(value, ())


def _shortened(value: Mapping[str, Any]) -> bytes:
    """Halve what a text and a collection may hold until the body fits; what is left of it is still true."""
    max_text, max_items = _MAX_TEXT, _MAX_ITEMS
    while True:
        body = _ENCODER.encode(json_safe(value, max_text=max_text, max_items=max_items)).encode()
        if len(body) <= MAX_BODY_BYTES or max_text <= 16:  # noqa: PLR2004 - nothing left to halve
            return body
        max_text, max_items = max_text // 2, max(max_items // 2, 16)


class _Cleaner:
    """Walks a value once; ``parents`` are the ids of the collections it stands in."""

    def __init__(self, max_text: int, max_items: int) -> None:
        self._max_text = max_text
        self._max_items = max_items

    def clean(self, value: Any, parents: tuple[int, ...]) -> Any:
        if isinstance(value, (str, bytes, bytearray, memoryview)):
            return self._text(_as_text(value))
        if value is None or isinstance(value, (bool, int, float)):
            return _number(value)
        if isinstance(value, Mapping) or _is_collection(value):
            return self._collection(value, parents)
        return self._text(_as_text(_or_text(value)))

    def _collection(self, value: Any, parents: tuple[int, ...]) -> Any:
        if id(value) in parents:
            return _CYCLE
        if len(parents) >= _MAX_DEPTH:
            return _TOO_DEEP
        inside = (*parents, id(value))
        try:
            if isinstance(value, Mapping):
                pairs = _first(value.items(), self._max_items)
                return {self._text(_as_text(_or_text(k))): self.clean(v, inside) for k, v in pairs}
            return [self.clean(item, inside) for item in _first(value, self._max_items)]
        except Exception:  # noqa: BLE001 - a collection of somebody's own may raise anything
            return _unrepresentable(value)

    def _text(self, text: str) -> str:
        if len(text) <= self._max_text:
            return text
        return text[: self._max_text] + _CUT


def _first(items: Iterable[Any], count: int) -> list[Any]:
    return [item for _, item in zip(range(count), items, strict=False)]


def _is_collection(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _number(value: float | None) -> float | str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -_LARGEST_INT <= value < _LARGEST_INT:
        return hex(value)[:64]  # decimal text of a huge int raises
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.hex()
    # UTF-16 joins the surrogates that make a pair, and replaces those that stand alone.
    return str.__str__(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _or_text(value: Any) -> str:
    """Say a value that is no JSON type as text; also the encoder's ``default`` hook."""
    try:
        if isinstance(value, Enum):
            return str(value.value)
        if isinstance(value, (datetime, date, time)):
            return value.isoformat()
        if isinstance(value, timedelta):
            return f"{value.total_seconds()}s"
        if isinstance(value, Decimal):
            return str(value)
        return str(value)
    except Exception:  # noqa: BLE001 - a `__str__` of somebody's own may raise anything
        return _unrepresentable(value)


def _unrepresentable(value: Any) -> str:
    return f"<{type(value).__name__}>"


def _default(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _as_text(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    return _or_text(value)


_ENCODER = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=_default
)
