"""The entry points of ``OTEL_TRACES_EXPORTER=analytics``, ``OTEL_LOGS_EXPORTER=analytics`` and the YAML.

An exporter that raises there takes all of the application's OpenTelemetry set-up with it. So here a bad
setting, or a fault of ours, is one line in the log, and the exporter does nothing.

The SDK sets the global tracer provider before it makes exporters of the environment. So the span exporter
adds an `AnalyticsSpanProcessor` to that provider, which sees the spans that tracing samples out as well, and
exports nothing itself. Where there is no such provider yet, as in declarative configuration, it exports.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_analytics.client import AnalyticsClient
from otel_analytics.config import Config
from otel_analytics.delivery.delivery import with_usable_spool
from otel_analytics.delivery.logs import log_safely, show_lines
from otel_analytics.delivery.start import (
    ALL_CALLS,
    RECORDED_CALLS,
    SAMPLED_CALLS,
    tell_nameless,
)
from otel_analytics.errors import ConfigError
from otel_analytics.mapping.views import is_nameless, service_name
from otel_analytics.sdk.exporter import AnalyticsSpanExporter
from otel_analytics.sdk.log_exporter import AnalyticsLogRecordExporter
from otel_analytics.sdk.processor import AnalyticsSpanProcessor
from otel_analytics.sdk.sampler import count_unsampled
from otel_analytics.sdk.shutdown import flush_on_sigterm

_Made = TypeVar("_Made")


class AutoconfiguredSpanExporter(SpanExporter):
    """What auto-configuration makes: a processor where that can be had, else an exporter, else nothing.

    Args:
        **options: Options of `Config`, as the YAML of ``OTEL_CONFIG_FILE`` gives them; none from the
            environment path.
    """

    def __init__(self, /, **options: Any) -> None:
        self._exporter: AnalyticsSpanExporter | None = None
        show_lines()
        client = _client(options)
        if client is None:
            return
        if client.config.flush_on_sigterm:
            _tried(lambda: flush_on_sigterm(client.config.shutdown_timeout_millis))
        if not _tried(lambda: _attached(client)):
            client.announce(seen=SAMPLED_CALLS)
            self._exporter = AnalyticsSpanExporter(client=client)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Map spans and hand their events on, unless a processor has done so."""
        return SpanExportResult.SUCCESS if self._exporter is None else self._exporter.export(spans)

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Wait until everything exported before is delivered or dropped, at most ``timeout_millis``."""
        return self._exporter is None or self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Deliver what is left and close, in at most ``timeout_millis``."""
        if self._exporter is not None:
            self._exporter.shutdown(timeout_millis)


class AutoconfiguredLogRecordExporter(AnalyticsLogRecordExporter):
    """`AnalyticsLogRecordExporter` on the client of the spans; inert where there is none."""

    def __init__(self, /, **options: Any) -> None:
        show_lines()
        client = _client(options)
        if client is None:
            self._closed = True
        else:
            super().__init__(client=client)

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Wait until everything exported before is delivered or dropped, at most ``timeout_millis``."""
        return self._closed or super().force_flush(timeout_millis)


def environment_client() -> AnalyticsClient | None:
    """Return the one client of the environment's options; `None`, told once, where they are wrong."""
    return _client({})


_lock = threading.Lock()
_of_environment: list[AnalyticsClient | None] = []


def _client(options: dict[str, Any]) -> AnalyticsClient | None:
    if options:
        # Who writes the file need not be who wrote the code: a wrong spool is no reason for no analytics.
        return _tried(
            lambda: AnalyticsClient(config=with_usable_spool(Config.resolve(**options), in_code=False))
        )
    with _lock:
        if not _of_environment:
            _of_environment.append(_tried(AnalyticsClient))
        return _of_environment[0]


def _attached(client: AnalyticsClient) -> bool:
    """Add a processor to the global tracer provider; return whether there is one that takes it."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return False
    provider.add_span_processor(AnalyticsSpanProcessor(client=client))
    is_complete = client.config.count_unsampled and count_unsampled(provider)
    service = client.config.app_name or service_name(provider.resource)
    client.announce(service, ALL_CALLS if is_complete else RECORDED_CALLS)
    if is_nameless(service):
        tell_nameless()
    return True


def _tried(make: Callable[[], _Made]) -> _Made | None:
    try:
        return make()
    except ConfigError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the application's set-up goes on, whatever our fault is
        reason = _unforeseen(error)
    # Outside of `except`: a handler that logs the error in flight would show what the message hides.
    log_safely(logging.ERROR, "analytics events are switched off: %s", reason)
    return None


def _unforeseen(error: Exception) -> str:
    """Name the type and the place; what an unforeseen error says may quote a secret."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} while setting up, in {place.name}, line {place.lineno}; please report it"
