"""`AnalyticsSpanExporter`: spans to the mapper, events to the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_analytics.client import AnalyticsClient
from otel_analytics.delivery.logs import logger
from otel_analytics.errors import ConfigError
from otel_analytics.events import EncodedEvent, Event
from otel_analytics.mapping.options import options_from_config
from otel_analytics.mapping.spans import SpanMapper

_PATIENCE_MILLIS = 2_000


class AnalyticsSpanExporter(SpanExporter):
    """Turns SERVER spans into view events and span events into engagements, and sends them.

    Works in `BatchSpanProcessor` and `SimpleSpanProcessor`; `export` maps and returns, it never waits for
    the network. Safe to call from several threads.

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
        given = {"endpoint": endpoint, "app_name": app_name, "write_key": write_key, **options}
        if client is not None and any(value is not None for value in given.values()):
            raise ConfigError("client: give either a client or options; the client has its own")
        self._owns_client = client is None
        self._client = client or AnalyticsClient(**given)
        self._mapper = SpanMapper(options_from_config(self._client.config), self._client.form)
        self._closed = False

    @property
    def client(self) -> AnalyticsClient:
        """The client that delivers; track further events with it, or ask it for `stats`."""
        return self._client

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Map spans and hand their events on.

        Args:
            spans: Ended spans, of any kind.

        Returns:
            SUCCESS once the events are accepted for delivery; FAILURE after shutdown.
        """
        if self._closed:
            return SpanExportResult.FAILURE
        events: list[Event | EncodedEvent] = []
        for span in spans:
            events.extend(self._events(span))
        self._note_folded()
        # Several spans come from a batching thread, which may wait a moment where the alternative is loss;
        # a single one comes from the application's own thread, which may not.
        self._client.submit(events, patience_millis=_PATIENCE_MILLIS if len(spans) > 1 else 0)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Wait until everything exported before is delivered or dropped, at most ``timeout_millis``."""
        return self._client.flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Deliver what is left and close.

        Args:
            timeout_millis: Longest wait, milliseconds. `BatchSpanProcessor` passes what is left of its 30
                seconds, so the option ``shutdown_timeout_millis`` wins where it is less.
        """
        if self._closed:
            return
        self._closed = True
        timeout = min(timeout_millis, self._client.config.shutdown_timeout_millis)
        if self._owns_client:
            self._client.shutdown(timeout)
        else:
            self._client.flush(timeout)

    def _note_folded(self) -> None:
        folded = self._mapper.take_folded_endpoints()
        if folded:
            self._client.note(
                "endpoints_folded",
                folded,
                "calls without a route were folded into {other}; see max_endpoints",
            )

    def _events(self, span: ReadableSpan) -> Sequence[Event | EncodedEvent]:
        try:
            mapped = self._mapper.map(span)
        except Exception:  # noqa: BLE001 - one span that cannot be mapped must not take its batch along
            logger.debug("a span could not be mapped", exc_info=True)
            self._client.refuse("invalid")
            return ()
        for _, reason in mapped.dropped:
            self._client.refuse(reason)
        if span.dropped_events:
            self._client.note(
                "span_limits",
                span.dropped_events,
                "spans lost events before they came here; raise OTEL_SPAN_EVENT_COUNT_LIMIT",
            )
        return mapped.events
