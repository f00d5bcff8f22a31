"""When to try again. Pure: the clock and the dice are arguments, and every number is in seconds.

A delay is drawn with full jitter, so that a fleet that failed together does not come back together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait after how many failures.

    Args:
        initial: Longest first delay, seconds; it doubles with each failure in a row.
        ceiling: Longest delay, seconds.
        retry_after_ceiling: Most that a collector's ``Retry-After`` is obeyed, seconds.
    """

    initial: float = 0.5
    ceiling: float = 30.0
    retry_after_ceiling: float = 300.0

    def delay(
        self, failures: int, dice: float, retry_after: float | None = None, longest: float = math.inf
    ) -> float:
        """Return seconds to wait after ``failures`` in a row.

        Args:
            failures: 1 or more.
            dice: A random number in [0, 1).
            retry_after: What the collector asked for, seconds; a floor of the delay.
            longest: Most seconds that may be drawn, where somebody waits.
        """
        most = min(self.ceiling, longest, self.initial * 2.0 ** min(failures - 1, 32))
        floor = min(retry_after or 0.0, self.retry_after_ceiling)
        return max(dice * most, floor)


def parse_retry_after(text: str | None, unix_now: float) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, section 10.2.3): seconds, or an HTTP date.

    Args:
        text: The header's value.
        unix_now: The wall clock, for a date.

    Returns:
        Seconds from now, or `None` where the header is missing, negative, past or garbage.
    """
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_until(text, unix_now)
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _seconds_until(http_date: str, unix_now: float) -> float:
    try:
        moment = parsedate_to_datetime(http_date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp() - unix_now
    except (ValueError, OverflowError, TypeError, IndexError):
        return math.nan


class Gate:
    """Whether a request may go to one URL: closed after failures, opened by time, by a flush or by the exit.

    Failures in a row count once for all requests that were in flight together. While there is a failure not
    yet followed by a success, one request at a time tells whether the collector is well again. The first one
    after a success says little about the URL: it may have been one bad replica, or a deployment. So it closes
    nothing, but where the collector asks for patience.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failed_at = -math.inf
        self._obeying = False
        self.failures = 0
        self.successes = 0
        self.opens_at = -math.inf

    def succeeded(self, sent_at: float, *, got_through: bool = True) -> None:
        """Open: the collector is well; a request sent before it asked for patience does not tell that.

        Args:
            sent_at: When the request was sent, monotonic seconds.
            got_through: Whether its events were taken or judged, rather than wanted in another form.
        """
        self.successes += got_through
        if self._obeying and sent_at < self._failed_at:
            return
        self.failures = 0
        self.opens_at = -math.inf
        self._obeying = False

    def failed(
        self, sent_at: float, now: float, dice: float, retry_after: float | None, longest: float = math.inf
    ) -> None:
        """Close for a while that grows with each failure in a row; for the arguments see `RetryPolicy`."""
        if sent_at >= self._failed_at:
            self.failures += 1
            self._failed_at = now
        if self.successes and self.failures <= 1 and retry_after is None:
            return
        delay = self._policy.delay(max(self.failures, 1), dice, retry_after, longest)
        self._obeying = self._obeying or retry_after is not None
        self.opens_at = max(self.opens_at, now + delay)

    def shorten_delay(self) -> None:
        """Shorten a drawn delay to the first one, for a flush; what the collector asked for stands."""
        if not self._obeying:
            self.opens_at = min(self.opens_at, self._failed_at + self._policy.initial)

    def reopen(self) -> None:
        """Open for the exit: whatever the delay was, this is the last chance."""
        self.failures = 0
        self.opens_at = -math.inf
        self._obeying = False
