"""`AnalyticsSpanProcessor`: every recording span to the client, sampled or not."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_analytics.sdk.ended_spans import count_events_of_ended_spans
from otel_analytics.sdk.intake import Adapter


class AnalyticsSpanProcessor(Adapter, SpanProcessor):
    """Turns SERVER spans into view events and span events into engagements, and sends them.

    It sees every recording span, also those that tracing does not sample, as they start and end: so counts
    are complete (with `count_unsampled`, see `sdk.sampler`), and an event leaves as soon as its server span
    has ended. It never waits for the network. Safe to call from several threads. Takes what
    `Adapter` takes: an endpoint and options, or a client.
    """

    def _made(self) -> None:
        self._intake.has_processor = True
        count_events_of_ended_spans()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Learn where a span stands among those of its request."""
        self._intake.started(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Map a span and hand its events on."""
        # After the shutdown too: what the client does not take any more it counts.
        if not self._intake.passed(span):
            self._intake.take((span,), is_first=True)
