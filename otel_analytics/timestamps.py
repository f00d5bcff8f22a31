"""Moments as the wire contract writes them: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59, the last that RFC 3339 can write
_NANOS_PER_MILLI = 1_000_000


def rfc3339(nanos: int) -> str:
    """Return a time, nanoseconds since the epoch, as RFC 3339 in UTC with milliseconds."""
    seconds, millis = divmod(nanos // _NANOS_PER_MILLI, 1000)
    return f"{_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """Remember the last seconds: most events of a batch share theirs."""
    moment = _EPOCH + timedelta(seconds=min(max(seconds, 0), _LAST_SECOND))
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
