"""The contract as rules: what each key's value must be, for each kind of event.

A complaint names its place as a JSON path (``$.duration``, ``$[3].userId``) and never repeats a value: what
was sent may be personal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from otel_analytics.contract import BODIES, EVENT_ID, TIMESTAMP, Kind, parse_rfc3339

_MOST_PROBLEMS = 20
_LONGEST_KEY = 64
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Rule(NamedTuple):
    """What a key's value must be: ``holds`` tests it, ``expectation`` completes the complaint."""

    expectation: str
    holds: Callable[[Any], bool]
    required: bool = False


def is_text(value: Any) -> bool:
    """Whether it is a non-empty string of valid Unicode (JSON can spell a lone surrogate)."""
    return isinstance(value, str) and value != "" and _encodable(value)


def problems(kind: Kind, body: Any, path: str = "$") -> list[str]:
    """Return what is wrong with one event, empty where nothing is.

    Args:
        kind: What the request's URL said it is.
        body: The decoded JSON.
        path: Where the body stands in the request, e.g. ``$[3]``.
    """
    if not isinstance(body, dict):
        return [f"{path}: must be an object"]
    found = _broken(_RULES[kind], body, path)
    found += [f"{_at(path, key)}: is no key of the contract" for key in body if key not in _RULES[kind]]
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        found += _broken(_METADATA_RULES[kind], metadata, f"{path}.metadata")
    return found[:_MOST_PROBLEMS]


def _broken(rules: Mapping[str, Rule], body: Mapping[str, Any], path: str) -> list[str]:
    found = []
    for key, rule in rules.items():
        if key in body:
            if not rule.holds(body[key]):
                found.append(f"{_at(path, key)}: must be {rule.expectation}")
        elif rule.required:
            found.append(f"{_at(path, key)}: is missing")
    return found


def _at(path: str, key: str) -> str:
    if _IDENTIFIER.fullmatch(key) and len(key) <= _LONGEST_KEY:
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key[:_LONGEST_KEY])}]"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_duration(value: Any) -> bool:
    # An int may be too large for any double, which is what the contract's numbers are.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= sys.float_info.max


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_timestamp(value: Any) -> bool:
    try:
        parse_rfc3339(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_hex(digits: int) -> Callable[[Any], bool]:
    pattern = re.compile(f"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_RULE_OF_TYPE: Mapping[type[Any], Rule] = {
    str: Rule("a non-empty string", is_text),
    float: Rule("a number >= 0", _is_duration),
    dict: Rule("an object", _is_object),
}
_RULES: Mapping[Kind, Mapping[str, Rule]] = {
    kind: {name: _RULE_OF_TYPE[key.type]._replace(required=key.required) for name, key in keys.items()}
    for kind, keys in BODIES.items()
}

# An engagement's metadata has always been its sender's own: any value was legal there under any name.
_METADATA_RULES: Mapping[Kind, Mapping[str, Rule]] = {
    Kind.VIEW: {
        EVENT_ID: _RULE_OF_TYPE[str],
        TIMESTAMP: Rule("an RFC 3339 date-time", _is_timestamp),
        "traceId": Rule("32 lower-case hex digits", _is_hex(32)),
        "spanId": Rule("16 lower-case hex digits", _is_hex(16)),
    },
    Kind.ENGAGEMENT: {},
}
