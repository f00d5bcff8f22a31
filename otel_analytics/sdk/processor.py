"""`AnalyticsSpanProcessor`: every recording span to the client, sampled or not."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_analytics.client import AnalyticsClient
from otel_analytics.sdk.ended_spans import count_events_of_ended_spans
from otel_analytics.sdk.intake import Adapter


class AnalyticsSpanProcessor(Adapter, SpanProcessor):
    """Turns SERVER spans into view events and span events into engagements, and sends them.

    It sees every recording span, also those that tracing does not sample, as they start and end: so counts
    are complete (with `count_unsampled`, see `sdk.sampler`), and an event leaves as soon as its server span
    has ended. It never waits for the network. Safe to call from several threads.

    Args:
        endpoint: Base URL of the collector.
        app_name: The `app` of views; the resource's `service.name` by default.
        write_key: Sent as ``X-Write-Key``.
        client: A client to share instead of options; the processor then leaves it open at its own shutdown.
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
        count_events_of_ended_spans()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Learn where a span stands among those of its request."""
        self._intake.started(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Map a span and hand its events on."""
        # After the shutdown too: what the client does not take any more it counts.
        if not self._intake.passed(span):
            self._intake.take((span,), is_first=True)
