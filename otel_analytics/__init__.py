"""Product analytics straight from OpenTelemetry.

Every API call becomes a view event, every business event on a span an engagement::

    provider.add_span_processor(BatchSpanProcessor(AnalyticsSpanExporter("https://analytics.example.com")))
"""

from otel_analytics._version import __version__
from otel_analytics.client import AnalyticsClient
from otel_analytics.config import Config
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.errors import AnalyticsError, ConfigError, EventError
from otel_analytics.events import BusinessEvent, EngagementEvent, MetricType, ViewEvent
from otel_analytics.sdk.exporter import AnalyticsSpanExporter
from otel_analytics.sdk.shutdown import FlushOnShutdown, flush_on_sigterm

__all__ = [
    "AnalyticsClient",
    "AnalyticsError",
    "AnalyticsSpanExporter",
    "BusinessEvent",
    "Config",
    "ConfigError",
    "DropReason",
    "EngagementEvent",
    "EventError",
    "FlushOnShutdown",
    "LedgerSnapshot",
    "MetricType",
    "ViewEvent",
    "__version__",
    "flush_on_sigterm",
]
