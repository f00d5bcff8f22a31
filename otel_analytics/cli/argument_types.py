"""What arguments must be; argparse names the functions: "invalid port value: '70000'"."""

from __future__ import annotations

import math
import re
from typing import Final

_LARGEST_PORT: Final = 65_535
_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", re.ASCII)


def port(text: str) -> int:
    """Return a port, 0 for a free one."""
    number = int(text)
    if not 0 <= number <= _LARGEST_PORT:
        raise ValueError
    return number


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 address is in brackets."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError
    return found[1] or found[2], port(found[3])


def count(text: str) -> int:
    """Return a whole number from 1 on."""
    whole = int(text)
    if whole < 1:
        raise ValueError
    return whole


def number(text: str) -> float:
    """Return a number above 0."""
    found = float(text)
    if not 0 < found < math.inf:
        raise ValueError
    return found


def seconds(text: str) -> float:
    """Return a number from 0 on."""
    found = float(text)
    if not 0 <= found < math.inf:
        raise ValueError
    return found


def setting(text: str) -> tuple[str, str]:
    """Return name and value of ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals):
        raise ValueError
    return name.strip(), value
