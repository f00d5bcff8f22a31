"""What the collector says of the batches it takes."""

from __future__ import annotations

from dataclasses import dataclass

ADVERTISEMENT_HEADER = "X-Analytics-Batch"


@dataclass(frozen=True)
class BatchLimits:
    """The largest array the collector takes, advertised in every response.

    Args:
        max_events: Most events in one array.
        max_bytes: Largest array in bytes, before compression.
        gzip: Whether gzip is advertised; gzip bodies are read either way.
    """

    max_events: int = 512
    max_bytes: int = 1_000_000
    gzip: bool = True

    def header(self) -> str:
        """Return the advertisement, e.g. ``max=512; bytes=1000000; encoding=gzip``."""
        encoding = "; encoding=gzip" if self.gzip else ""
        return f"max={self.max_events}; bytes={self.max_bytes}{encoding}"
