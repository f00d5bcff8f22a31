"""RFC 3339 text and milliseconds since the epoch."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_EXPECTATION = "must be an RFC 3339 date-time such as 2026-01-31T12:00:00.000Z"


def parse_timestamp(text: str) -> int:
    """Return the milliseconds since the epoch of an RFC 3339 date-time.

    Raises:
        ValueError: The text is none.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(_EXPECTATION)
    day, time, fraction, zone = match.groups(default="")
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise ValueError(_EXPECTATION) from None
    return round(moment.timestamp()) * 1000 + int(fraction[:3].ljust(3, "0"))


def format_timestamp(millis: int) -> str:
    """Return milliseconds since the epoch as RFC 3339 in UTC."""
    moment = datetime.fromtimestamp(millis / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
