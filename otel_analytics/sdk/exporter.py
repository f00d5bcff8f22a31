"""`AnalyticsSpanExporter`: exported spans to the client, for where there is no `AnalyticsSpanProcessor`."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_analytics.sdk.intake import Adapter

_PATIENCE_MILLIS = 2_000


class AnalyticsSpanExporter(Adapter, SpanExporter):
    """Turns SERVER spans into view events and span events into engagements, and sends them.

    Works in `BatchSpanProcessor` and `SimpleSpanProcessor`, which hand it sampled spans only;
    `AnalyticsSpanProcessor` sees the others too. `export` maps and returns, it never waits for the network.
    Safe to call from several threads. Takes what `Adapter` takes: an endpoint and options, or a client.
    """

    def _made(self) -> None:
        self._intake.has_exporter = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Map spans and hand their events on.

        Args:
            spans: Ended spans, of any kind.

        Returns:
            SUCCESS once the events are accepted for delivery, or wait for their server span; FAILURE after
            shutdown.
        """
        if self._closed:
            return SpanExportResult.FAILURE
        # Several spans come from a batching thread, which may wait a moment where the alternative is loss;
        # a single one comes from the application's own thread, which may not.
        self._intake.take(spans, patience_millis=_PATIENCE_MILLIS if len(spans) > 1 else 0)
        return SpanExportResult.SUCCESS
