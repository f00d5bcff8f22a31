"""A request's bytes become JSON, within bounds: nothing larger than the limit is ever held."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from starlette.requests import Request

from otel_analytics.collector.refusal import Refusal

MOST_LEVELS = 64
"""Deepest nesting of arrays and objects; what encodes and shows a body later goes deeper by recursion."""
JSON: Final = "application/json"

_GZIP_WINDOW = 31  # zlib's largest window, in a gzip wrapper
_GZIP_STEP = 4_096  # bytes; each member's end copies what is left of its step, not of the whole body
_TOO_DEEP = f"nested too deeply, more than {MOST_LEVELS} levels"
_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*(?:(\])[ \t\n\r]*)?")
_SEPARATOR = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")
_T = TypeVar("_T")


async def read_body(request: Request, limit: int, types: Collection[str] = (JSON,)) -> bytes:
    """Read a request's body as it was sent.

    Args:
        request: A request whose body nobody has read.
        limit: Largest body in bytes.
        types: The content types that are taken.

    Raises:
        Refusal: 415 for another content type or encoding, 413 for too many bytes.
    """
    _check_headers(request.headers, limit, types)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """Undo the content encoding.

    Args:
        raw: The body as it was sent.
        encoding: `gzip`; anything else leaves it as it is.
        limit: Largest result in bytes; not one more is decompressed.

    Raises:
        Refusal: 413 beyond the limit, 400 for what is no gzip.
    """
    return _gunzip(raw, limit) if encoding.strip().lower() == "gzip" else raw


def parsed(body: bytes) -> Any:
    """Parse strict JSON: UTF-8, no NaN or Infinity (RFC 8259), and no number that Python would turn into one.

    It is nested `MOST_LEVELS` deep at most.

    Raises:
        Refusal: 400 with what the parser says; the body itself is not repeated.
    """
    return _strictly(lambda text: _shallow(_DECODER.decode(text)), body)


class Item(NamedTuple):
    """A value, and the bytes that it was sent as."""

    value: Any
    sent: bytes


def parsed_items(body: bytes) -> tuple[list[Item], bool]:
    """Parse as `parsed` does; return the array's items, or the one value, and whether it was an array.

    Raises:
        Refusal: As by `parsed`.
    """
    items, is_array = _strictly(_items, body)
    return items, is_array


def _items(text: str) -> tuple[list[Item], bool]:
    opening = _OPENING.match(text)
    if opening is None:
        return [Item(_shallow(_DECODER.decode(text)), text.strip().encode())], False
    items: list[Item] = []
    at, mark = opening.end(), opening[1] or ","
    while mark == ",":
        value, end = _DECODER.raw_decode(text, at)
        items.append(Item(value, text[at:end].encode()))
        separator = _SEPARATOR.match(text, end)
        at, mark = (separator.end(), separator[1]) if separator else (end, "")
    if mark != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    _shallow([item.value for item in items])
    return items, True


def _strictly(parse: Callable[[str], _T], body: bytes) -> _T:
    try:
        return parse(body.decode())
    except json.JSONDecodeError as error:
        message = f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError:
        message = "not UTF-8"
    except RecursionError:
        message = _TOO_DEEP
    except ValueError:  # also an integer of more digits than Python converts
        message = "a number JSON does not have, or too large a one"
    raise Refusal(400, f"$: must be valid JSON: {message}")


def content_type(headers: Mapping[str, str]) -> str:
    """Return a request's media type, without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_headers(headers: Mapping[str, str], limit: int, types: Collection[str]) -> None:
    if content_type(headers) not in types:
        # A browser posts other types without asking first (CORS): no web page can write here.
        raise Refusal(415, f"Content-Type: must be {' or '.join(types)}")
    if headers.get("content-encoding", "identity").strip().lower() not in {"identity", "gzip"}:
        raise Refusal(415, "Content-Encoding: must be gzip or left out")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)


def _gunzip(raw: bytes, limit: int) -> bytes:
    body = bytearray()
    member = None
    for start in range(0, len(raw), _GZIP_STEP):
        rest = raw[start : start + _GZIP_STEP]
        while rest:  # a gzip file may have several members (RFC 1952, section 2.2)
            member = member or zlib.decompressobj(_GZIP_WINDOW)
            try:
                body += member.decompress(rest, limit - len(body) + 1)
            except zlib.error:
                raise Refusal(400, "$: must be valid gzip") from None
            if len(body) > limit:
                raise _too_large(limit)
            rest = member.unused_data
            if member.eof:
                member = None
    if member is not None:
        raise Refusal(400, "$: must be a whole gzip stream")
    return bytes(body)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"$: must be at most {limit} bytes")


def _shallow(value: Any) -> Any:
    """Look level by level, without recursion: how much of that is left depends on the thread's stack.

    Raises:
        RecursionError: It is nested deeper than `MOST_LEVELS`.
    """
    level, depth = _containers([value]), 0
    while level:
        depth += 1
        if depth > MOST_LEVELS:
            raise RecursionError
        level = [
            inner
            for outer in level
            for inner in _containers(outer.values() if isinstance(outer, dict) else outer)
        ]
    return value


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def _no_number(_: str) -> NoReturn:
    raise ValueError


def _finite(text: str) -> float:
    """Read a number; ``1e999`` is none that a double holds: it would be stored as `Infinity`, no JSON."""
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
