"""The entry point of ``OTEL_TRACES_EXPORTER=analytics`` and of declarative configuration.

An exporter that raises there takes all of the application's OpenTelemetry set-up with it. So here a bad
setting, or a fault of ours, is one line in the log, and the exporter does nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_analytics.delivery.logs import logger
from otel_analytics.errors import ConfigError
from otel_analytics.sdk.exporter import AnalyticsSpanExporter
from otel_analytics.sdk.shutdown import flush_on_sigterm


class InertSpanExporter(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - the SDK's signature
        """Ignore the spans."""
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Return true: nothing waits."""
        return True

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Do nothing."""


class AutoconfiguredSpanExporter(SpanExporter):
    """`AnalyticsSpanExporter` as auto-configuration makes it; inert where it cannot be made.

    Args:
        **options: Options of `Config`, as the YAML of ``OTEL_CONFIG_FILE`` gives them; none from the
            environment path.
    """

    def __init__(self, /, **options: Any) -> None:
        self._exporter = _exporter(options)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Map spans and hand their events on."""
        return self._exporter.export(spans)

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Wait until everything exported before is delivered or dropped, at most ``timeout_millis``."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Deliver what is left and close, in at most ``timeout_millis``."""
        self._exporter.shutdown(timeout_millis)


def _exporter(options: dict[str, Any]) -> AnalyticsSpanExporter | InertSpanExporter:
    try:
        exporter = AnalyticsSpanExporter(**options)
        if exporter.client.config.flush_on_sigterm:
            flush_on_sigterm(exporter.client.config.shutdown_timeout_millis)
        return exporter  # noqa: TRY300 - whatever is raised above ends below
    except ConfigError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the application's set-up goes on, whatever our fault is
        reason = _unforeseen(error)
    _log_switched_off(reason)
    return InertSpanExporter()


def _unforeseen(error: Exception) -> str:
    """Name the type and the place; what an unforeseen error says may quote a secret."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} while setting up, in {place.name}, line {place.lineno}; please report it"


def _log_switched_off(reason: str) -> None:
    # Outside of `except`: a handler that logs the error in flight would show what the message hides.
    with suppress(Exception):  # the application's filters and handlers may raise too
        logger.error("analytics events are switched off: %s", reason)
