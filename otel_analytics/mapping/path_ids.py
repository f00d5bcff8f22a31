"""Which parts of a raw path are ids: numbers, UUIDs, hex, tokens, dates, e-mail addresses.

A route template would have made them parameters. Words, API versions (``v2``) and file suffixes stay.
"""

from __future__ import annotations

import re
from typing import Final

ID: Final = "{id}"

_LONGEST_WORD = 64

_WORDS = (
    r"[a-z]+",
    r"v\d+(?:[._]\d+)*",  # API versions
    r"(?:sha|base|utf|ipv?|oauth|http|h|s|k|mp|web|x)\d{1,3}[a-z]?",  # names that end in digits
)
_IDS = (
    r"[+-]?\d+",  # numbers
    r"\d+(?:[-_T:.]\d+)+Z?",  # dates, times, numbers in groups
    r"\{?[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\}?",  # UUIDs
    r"(?=.*\d)[0-9a-fA-F]{6,}|[0-9a-fA-F]{16,}",  # hashes, object ids
    r".*@.*",  # e-mail addresses, credentials before a host
    r"[A-Za-z]{1,12}\d{2,}",  # order17
    r"(?:[A-Za-z]+[-_])+\d[\d_T:-]*",  # user_123, INV-2024-17, my-post-4711
    r"[A-Za-z]{1,8}_(?=\w*\d)\w{8,}",  # prefixed keys: cus_9s6XKzkNRiz8i3
    r"(?=.*\d)[0-9A-HJKMNP-TV-Z]{26}",  # ULIDs
    r"(?=(?:.*\d){2})(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9_\-+]{10,}={0,2}",  # base64-like tokens
    r"(?=(?:.*\d){4})[a-z0-9_]{12,}",  # lower-case tokens
    r"(?=(?:.*[a-z][A-Z]){3})(?=.*[A-Z]{2})[A-Za-z0-9_\-+]{16,}={0,2}",  # tokens without digits
    r"[A-Za-z0-9_\-+]{14,}={1,2}",  # padded base64
)
_WORD = re.compile("|".join(_WORDS))
_ID = re.compile("|".join(_IDS))
_SEPARATORS = re.compile(r"([;,=~!]|(?<=\w)\.(?=\w))")


def fold_segment(segment: str) -> str:
    """Return one segment of a path with what looks like an id as ``{id}``.

    Matrix parameters (``;v=1``) and what stands before a file's suffix are looked at one by one.
    """
    folded = _fold(segment)
    if folded is not segment or not _SEPARATORS.search(segment) or _WORD.fullmatch(segment):
        return folded
    return "".join(map(_fold, _SEPARATORS.split(segment)))


def _fold(text: str) -> str:
    if len(text) > _LONGEST_WORD:
        return ID
    if _WORD.fullmatch(text) or not _ID.fullmatch(text):
        return text
    return ID
