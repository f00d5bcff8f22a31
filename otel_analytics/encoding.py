"""Any value becomes JSON: an event is never lost for what somebody put into an attribute.

Encoding is optimistic. Almost every body is plain JSON already, so it is encoded straight away; only where
that fails, or gives too much, is the value walked and cleaned. Text is what the contract's own client sends
(ECMAScript's ``JSON.stringify``): compact, UTF-8 not escaped.

The caller waits for this, so it has a bound: what has too many items or too much text is not even tried, and
a walk ends when it has seen as much as one body may hold.
"""

from __future__ import annotations

import json
import math
from codecs import utf_8_decode as _utf_8
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from json import encoder as json_encoder
from typing import Any
from uuid import UUID

from otel_analytics.errors import FOREIGN_ERRORS

MAX_BODY_BYTES = 256_000
"""Largest body of one event; beyond it, values are shortened until it fits."""

_MAX_NODES = 4_096
MAX_TEXT = 8_192
_MAX_ITEMS = 256
_MAX_DEPTH = 12
_LARGEST_INT = 2**63
CUT = "…[truncated]"
_CYCLE = "[circular]"
_TOO_DEEP = "[too deep]"
_UNREADABLE = "[unreadable]"
_PLAIN = frozenset({bool, float, type(None), Decimal, UUID, datetime, date, time, timedelta})
_SIZE: Mapping[type, Callable[[Any], int]] = {str: len, bytes: len, int: int.bit_length}
_PLAIN_COLLECTIONS = frozenset({dict, list, tuple, set, frozenset})
_COLLECTIONS = (dict, list, tuple, Mapping, set, frozenset)


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Encode a body as UTF-8 JSON of at most `MAX_BODY_BYTES` where it can be shortened to that.

    Args:
        value: A body; its values may be anything at all.

    Returns:
        The JSON, in which values that JSON has no form for are replaced (see `json_safe`).
    """
    try:
        body = plain_json(value).encode()
    except FOREIGN_ERRORS:
        return _shortened(value)
    return body if len(body) <= MAX_BODY_BYTES else _shortened(value)


def plain_json(value: Mapping[str, Any]) -> str:
    """Encode what is small and plain.

    Raises:
        ValueError: It is too large for the caller to wait for.
        Exception: It holds what JSON has no form for.
    """
    if not _is_small(value):
        raise ValueError("too many items, or too much text")
    return _encode(value)


def json_safe(value: Any, *, max_text: int = MAX_TEXT, max_items: int = _MAX_ITEMS) -> Any:
    """Return a copy of ``value`` that JSON can say.

    Decimals and dates become text (ISO 8601), bytes UTF-8 text or hex, NaN and the infinities `None`, lone
    surrogates U+FFFD, cycles and great depth a mark, long texts and long lists their beginning.

    Args:
        value: Anything.
        max_text: Most characters of one text.
        max_items: Most items of one collection.
    """
    return _Cleaner(max_text, max_items).clean(value, ())


def field_text(value: Any) -> str:
    """Return the text of an event's own field; empty where it has none, or raises."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, (str, bytes)):
        return _as_text(value) if isinstance(value, bytes) else str.__str__(value)
    try:
        return str(value.value if isinstance(value, Enum) else value)
    except FOREIGN_ERRORS:
        return ""


def readable_items(mapping: Any) -> dict[Any, Any]:
    """Return what can be read of a mapping, item by item; nothing where it is none."""
    if type(mapping) is dict:
        return mapping.copy()
    if not isinstance(mapping, Mapping):
        return {}
    return {key: _item(mapping, key) for key in islice(readable(mapping), _MAX_NODES)}


def _is_small(value: Mapping[str, Any]) -> bool:
    """Whether encoding a body is sure to take no time: it has few items and little text, however deep.

    That can be told of plain types alone; what holds others is walked, with bounds at each step.
    """
    nodes, characters = _MAX_NODES, MAX_BODY_BYTES
    waiting: list[Any] = [value]
    while waiting:
        collection = waiting.pop()
        nodes -= len(collection)
        if nodes < 0:
            return False
        items = collection
        if type(collection) is dict:
            characters -= len("".join(collection))
            items = collection.values()
        for item in items:
            kind = type(item)
            if kind in _SIZE:
                characters -= _SIZE[kind](item)
            elif kind in _PLAIN_COLLECTIONS:
                waiting.append(item)
            elif kind not in _PLAIN:
                return False
        if characters < 0:
            return False
    return True


def _shortened(value: Mapping[str, Any]) -> bytes:
    """Clean, and halve what a text and a collection may hold until it fits: what is left is still true."""
    max_text, max_items = MAX_TEXT, _MAX_ITEMS
    while True:
        body = _encode(json_safe(value, max_text=max_text, max_items=max_items)).encode()
        if len(body) <= MAX_BODY_BYTES or max_text <= 16:  # noqa: PLR2004 - nothing left to halve
            return body
        max_text, max_items = max_text // 2, max(max_items // 2, 16)


class _Cleaner:
    """Walks a value once; ``parents`` are the ids of the collections it stands in.

    After `_MAX_NODES` items, or as much text as no body can hold, collections end where they are.
    """

    def __init__(self, max_text: int, max_items: int) -> None:
        self._max_text = max_text
        self._max_items = max_items
        self._nodes = _MAX_NODES
        self._characters = 2 * MAX_BODY_BYTES

    def clean(self, value: Any, parents: tuple[int, ...]) -> Any:
        self._nodes -= 1
        if isinstance(value, (str, bytes, bytearray, memoryview)):
            return self._text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return _number(value)
        if isinstance(value, _COLLECTIONS):
            return self._collection(value, parents)
        text = _or_text(value)
        self._characters -= len(text)  # whole: it may have taken its time
        return self._text(text)

    def _collection(self, value: Any, parents: tuple[int, ...]) -> Any:
        if id(value) in parents:
            return _CYCLE
        if len(parents) >= _MAX_DEPTH:
            return _TOO_DEEP
        inside = (*parents, id(value))
        items = self._within_bounds(readable(value))
        if isinstance(value, Mapping):
            return {self._text(_or_text(key)): self.clean(_item(value, key), inside) for key in items}
        return [self.clean(item, inside) for item in items]

    def _within_bounds(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in islice(items, self._max_items):
            if self._nodes <= 0 or self._characters <= 0:
                return
            yield item

    def _text(self, value: Any) -> str:
        text = _as_text(value, self._max_text + 1)
        if len(text) > self._max_text:
            text = text[: self._max_text] + CUT
        self._characters -= len(text)
        return text


def readable(items: Iterable[Any]) -> Iterator[Any]:
    """Yield what comes before the end or an exception: a collection may be somebody's own."""
    try:
        yield from items
    except FOREIGN_ERRORS:
        return


def _item(mapping: Mapping[Any, Any], key: Any) -> Any:
    try:
        return mapping[key]
    except FOREIGN_ERRORS:
        return _UNREADABLE


def _number(value: float | None) -> float | str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -_LARGEST_INT <= value < _LARGEST_INT:
        return hex(value)[:64]  # decimal text of a huge int raises
    return value


def _as_text(value: Any, longest: int = 2**31) -> str:
    """Return at least ``longest`` characters of a text where it has so many, without reading much further."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = _first_bytes(value, 4 * longest)
        try:
            return (
                _utf_8(raw)[0] if len(raw) == 4 * longest else raw.decode()
            )  # the last character may be cut
        except UnicodeDecodeError:
            return raw[:longest].hex()
    # UTF-16 joins the surrogates that make a pair, and replaces those that stand alone.
    text = str.__str__(value)[: 2 * longest]
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _first_bytes(value: bytes | bytearray | memoryview, count: int) -> bytes:
    try:
        return bytes(memoryview(value).cast("B")[:count])
    except TypeError:  # a view of every other item
        return bytes(value)[:count]


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
    except FOREIGN_ERRORS:
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


def _encoder_of(make: Any) -> Callable[[Any], str]:
    """Return the encoder's work without its preparations, which cost as much again for a small body."""
    if make is None:  # without CPython's accelerator
        return _ENCODER.encode
    sort_keys = skip_keys = allow_nan = False
    separators = (":", ",")
    quote = json_encoder.encode_basestring
    chunks = make(None, _default, quote, None, *separators, sort_keys, skip_keys, allow_nan)
    return lambda value: "".join(chunks(value, 0))


_encode = _encoder_of(getattr(json_encoder, "c_make_encoder", None))
