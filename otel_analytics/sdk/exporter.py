"""`AnalyticsSpanExporter`: exported spans to the client, for where there is no `AnalyticsSpanProcessor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_analytics.client import AnalyticsClient
from otel_analytics.sdk.intake import Adapter

_PATIENCE_MILLIS = 2_000


class AnalyticsSpanExporter(Adapter, SpanExporter):
    """Turns SERVER spans into view events and span events into engagements, and sends them.

    Works in `BatchSpanProcessor` and `SimpleSpanProcessor`, which hand it sampled spans only;
    `AnalyticsSpanProcessor` sees the others too. `export` maps and returns, it never waits for the network.
    Safe to call from several threads.

    Args:
        endpoint: Base URL of the collector.
        app_name: The `app` of views; the resource's `service.name` by default.
        write_key: Sent as ``X-Write-Key``.
        client: A client to share instead of options; the exporter then leaves it open at its own shutdown.
        **options: Any other option of `Config`.

    Raises:
        ConfigError: An option, or its environment variable, has a value it cannot have.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        app_name: str | None = None,
        write_key: str | None = None,
        client: AnalyticsClient | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            client, {"endpoint": endpoint, "app_name": app_name, "write_key": write_key, **options}
        )
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
