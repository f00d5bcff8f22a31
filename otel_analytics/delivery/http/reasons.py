"""Why a collector refused something, out of the body of its answer. Pure, and of any body.

What comes with a reason, such as the input that was wrong, stays unread: an answer may repeat the payload.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_MOST_BYTES = 65_536
_MOST_SENTENCES = 3
_MOST_CHARACTERS = 2_000
# As RFC 9457, OAuth, JSON:API and the usual frameworks call it; what says most comes first.
_SAYINGS = ("message", "msg", "error_description", "detail", "details", "errors", "error", "reason", "title")
_PLACES = ("loc", "field", "path", "pointer")


def stated_reason(content_type: str, body: bytes) -> str:
    """Return what an answer's body says in one line; empty where it says nothing, or is a page.

    Args:
        content_type: The header's value, or nothing.
        body: As it came.
    """
    text = body[:_MOST_BYTES].decode("utf-8", "replace").strip()
    if text.startswith(("{", "[")):
        return one_line("; ".join(_sentences_of(text)))
    return one_line(text) if content_type.startswith("text/plain") else ""


def one_line(text: str) -> str:
    """Return a text that a log can show: no line breaks, nothing invisible, no more than a paragraph."""
    words = "".join(character if character.isprintable() else " " for character in text[:_MOST_CHARACTERS])
    return " ".join(words.split())


def _sentences_of(text: str) -> list[str]:
    try:
        # A dict, since several keys often say the same.
        return list(islice(dict.fromkeys(_sentences(json.loads(text))), _MOST_SENTENCES))
    except (ValueError, RecursionError):
        return []


def _sentences(said: Any) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, list):
        for item in said:
            yield from _sentences(item)
    elif isinstance(said, Mapping):
        place = next(filter(None, (_place(said.get(key)) for key in _PLACES)), "")
        for key in _SAYINGS:
            for sentence in _sentences(said.get(key)):
                yield f"{place}: {sentence}" if place else sentence


def _place(value: Any) -> str:
    names = value if isinstance(value, list) else [value]
    return ".".join(str(name) for name in names if isinstance(name, (str, int)))
