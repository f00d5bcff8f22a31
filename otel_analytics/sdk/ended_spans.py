"""Events that are added to a span after its end: the SDK drops them with a warning, and nobody counts them.

A background task after an ASGI response, a generator that outlives its handler: the span is still the current
one, and `add_event` on it does nothing. The SDK's warning is the only place where that can be seen. `track`
does not lose them.
"""

from __future__ import annotations

import logging

from otel_analytics import process
from otel_analytics.sdk.intake import SpanIntake

_SDK_LOGGER = logging.getLogger("opentelemetry.sdk.trace")
_END_OF_WARNING = "on an ended span."
_METHODS = frozenset({"add_event", "_add_event"})
_LOST = "events were added to spans that had ended, and are lost; track() would have kept them"


class EndedSpanFilter(logging.Filter):
    """Lets every line pass, and counts those that say an event was lost."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at a line; it stays as it is."""
        if str(record.msg).endswith(_END_OF_WARNING) and _METHODS.intersection(record.args or ()):
            for intake in process.residents(SpanIntake):
                intake.client.note("ended_spans", 1, _LOST)
        return True


def count_events_of_ended_spans() -> None:
    """Have them counted in ``stats().noted`` of each client from now on."""
    if not any(isinstance(each, EndedSpanFilter) for each in _SDK_LOGGER.filters):
        _SDK_LOGGER.addFilter(EndedSpanFilter())
