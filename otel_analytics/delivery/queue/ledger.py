"""Every event has a fate and every loss a reason: accepted = delivered + dropped + pending, at any moment.

A delivery has one. What counts events has no lock of its own: the queue changes it under the lock that guards
those events, so a snapshot never shows an event twice or not at all.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class DropReason(str, Enum):
    """Why an event was not delivered."""

    QUEUE_FULL = "queue_full"  # displaced by a newer event of its lane
    SPOOL_FULL = "spool_full"  # no room within `max_spool_bytes`, even where views made room
    SPOOL_LOST = "spool_lost"  # its file in the spool was damaged, or removed by somebody
    EXPIRED = "expired"  # older than `max_spool_age_hours`
    PURGED = "purged"  # deleted by `otel-analytics spool purge`
    REJECTED = "rejected"  # the collector called it invalid
    TOO_LARGE = "too_large"  # the collector refused its size
    BEFORE_SEND = "before_send"  # the hook `before_send` said no, or failed
    SHUTDOWN = "shutdown"  # still waiting when the time for exit was over
    AFTER_SHUTDOWN = "after_shutdown"  # came when everything was closed already
    INVALID = "invalid"  # no event could be built from what was given
    ANONYMOUS = "anonymous"  # nobody is known for it and `anonymous_user_id` is empty
    EXCLUDED = "excluded"  # its endpoint is among `excluded_endpoints`
    IGNORED = "ignored"  # its span says `analytics.ignore`


@dataclass(frozen=True)
class LedgerSnapshot:
    """The ledger at one moment; ``accepted == delivered + sum(dropped.values()) + pending``.

    Args:
        accepted: Events taken in.
        delivered: Events the collector acknowledged.
        dropped: Events given up, by reason.
        pending: Events that wait or travel.
        noted: What else this process saw, by its name: calls folded into ``{other}``
            (``endpoints_folded``), span events lost to the SDK's limits (``span_limits``), and what gave
            nothing, by the words of `mapping.reasons`.
    """

    accepted: int = 0
    delivered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    noted: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: LedgerSnapshot) -> LedgerSnapshot:
        """Return the books of both."""
        dropped = Counter(self.dropped)
        dropped.update(other.dropped)
        return LedgerSnapshot(
            self.accepted + other.accepted,
            self.delivered + other.delivered,
            dict(dropped),
            self.pending + other.pending,
            dict(Counter(self.noted) + Counter(other.noted)),
        )


class Ledger:
    """Counts; whoever owns the events holds the lock, but for `note`."""

    def __init__(self) -> None:
        self._noted: Counter[str] = Counter()
        self._noting = threading.Lock()
        self._accepted = 0
        self._delivered = 0
        self._dropped: Counter[str] = Counter()

    def accept(self, count: int) -> None:
        """Count events taken in."""
        self._accepted += count

    def deliver(self, count: int) -> None:
        """Count events acknowledged."""
        self._delivered += count

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count events given up."""
        self._dropped[reason.value] += count

    def note(self, what: str, count: int) -> None:
        """Count what is neither a delivery nor a loss; needs no lock."""
        with self._noting:
            self._noted[what] += count

    def snapshot(self, pending: int) -> LedgerSnapshot:
        """Return all counts beside the number of events that the owner still holds."""
        counts = self._accepted, self._delivered, dict(+self._dropped), pending
        return LedgerSnapshot(*counts, dict(self._noted))
