"""Text that others wrote, made safe to show."""

from __future__ import annotations

import re

# What a terminal obeys (C0, DEL, C1), what changes the order or the lines of the text around it
# (Unicode Standard Annex 9 and the two separators), and what no encoding can write (lone surrogates).
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Return the text on one line, with what cannot be shown as it is written as JSON writes it.

    Such characters become ``\u001b`` and the like; inside JSON's strings they mean the same as before.
    """
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
