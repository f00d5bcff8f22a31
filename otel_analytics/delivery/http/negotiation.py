"""What the collector takes: single events, or batches by its own advertisement. Pure: time is an argument.

A real event is never used to probe an unknown server: an endpoint that expects one object may answer 200 to
an array and store garbage. A collector that takes batches says so in a header of any response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from otel_analytics.config import Config
from otel_analytics.contract import Advertisement, parse_advertisement

_OFF_SECONDS = 600.0
_BRACKETS = 2


@dataclass(frozen=True)
class Plan:
    """How to send now.

    Args:
        max_events: Most events in a request; 1 means singly.
        max_bytes: Largest body, before compression.
        gzip: Whether to compress it.
        known: Whether the collector has ever answered, so that requests may go out side by side.
    """

    max_events: int
    max_bytes: int
    gzip: bool
    known: bool

    @property
    def batches(self) -> bool:
        """Whether events travel together."""
        return self.max_events > 1


class Negotiation:
    """Learns from answers; says how to send."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._advertised: Advertisement | None = None
        self._shrunk_to = config.max_batch_bytes
        self._off_until = -math.inf
        self._known = False
        self._gzip_refused = False
        self._plans: dict[bool, Plan] = {}  # by whether arrays may be sent; what is learnt changes them

    def plan(self, now: float) -> Plan:
        """Return how to send at this moment (monotonic seconds)."""
        may_batch = now >= self._off_until and self._wants_batches()
        if may_batch not in self._plans:
            self._plans[may_batch] = self._plan(may_batch=may_batch)
        return self._plans[may_batch]

    def _plan(self, *, may_batch: bool) -> Plan:
        advertised = self._advertised or Advertisement()
        max_events = min(self._config.max_batch_size, advertised.max_events or math.inf) if may_batch else 1
        max_bytes = min(self._shrunk_to, advertised.max_bytes or math.inf)
        return Plan(int(max(max_events, 1)), int(max_bytes), self._wants_gzip(advertised), self._known)

    def learn(self, header: str | None) -> None:
        """Take note of an answer and of the advertisement in it; no header changes nothing."""
        if not self._known:
            self._known = True
            self._plans.clear()
        advertised = parse_advertisement(header)
        if advertised is not None and advertised != self._advertised:
            self._advertised = advertised
            self._shrunk_to = self._config.max_batch_bytes
            self._plans.clear()

    def batch_refused(self, now: float) -> None:
        """Send singly for ten minutes, and after those until it advertises batches anew."""
        self._advertised = None
        self._off_until = now + _OFF_SECONDS
        self._plans.clear()

    def too_large(self, body_bytes: int) -> None:
        """Keep later batches below half of what was refused."""
        self._shrunk_to = max(body_bytes // 2, _BRACKETS)
        self._plans.clear()

    def gzip_refused(self) -> None:
        """Send uncompressed from now on."""
        self._gzip_refused = True
        self._plans.clear()

    def _wants_batches(self) -> bool:
        return self._config.batching == "on" or (
            self._config.batching == "auto" and self._advertised is not None
        )

    def _wants_gzip(self, advertised: Advertisement) -> bool:
        by_option = {"auto": advertised.gzip, "gzip": True, "none": False}
        return by_option[self._config.compression] and not self._gzip_refused
