"""Product analytics straight from OpenTelemetry.

Every API call becomes a view event, every business event on a span an engagement::

    provider.add_span_processor(AnalyticsSpanProcessor("https://analytics.example.com"))
    count_unsampled(provider)

Names are imported when they are first used: whoever wants the mapping alone loads neither HTTP nor SDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from otel_analytics._version import __version__

if TYPE_CHECKING:
    from otel_analytics.client import AnalyticsClient
    from otel_analytics.config import Config
    from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
    from otel_analytics.errors import AnalyticsError, ConfigError, EventError
    from otel_analytics.events import BusinessEvent, EngagementEvent, MetricType, ViewEvent
    from otel_analytics.options import Options
    from otel_analytics.sdk.application import identify, track
    from otel_analytics.sdk.exporter import AnalyticsSpanExporter
    from otel_analytics.sdk.log_exporter import AnalyticsLogRecordExporter
    from otel_analytics.sdk.processor import AnalyticsSpanProcessor
    from otel_analytics.sdk.sampler import count_unsampled
    from otel_analytics.sdk.shutdown import FlushOnShutdown, flush_on_sigterm

__all__ = [
    "AnalyticsClient",
    "AnalyticsError",
    "AnalyticsLogRecordExporter",
    "AnalyticsSpanExporter",
    "AnalyticsSpanProcessor",
    "BusinessEvent",
    "Config",
    "ConfigError",
    "DropReason",
    "EngagementEvent",
    "EventError",
    "FlushOnShutdown",
    "LedgerSnapshot",
    "MetricType",
    "Options",
    "ViewEvent",
    "__version__",
    "count_unsampled",
    "flush_on_sigterm",
    "identify",
    "track",
]

_HOMES = {
    "client": ("AnalyticsClient",),
    "config": ("Config",),
    "delivery.queue.ledger": ("DropReason", "LedgerSnapshot"),
    "errors": ("AnalyticsError", "ConfigError", "EventError"),
    "events": ("BusinessEvent", "EngagementEvent", "MetricType", "ViewEvent"),
    "options": ("Options",),
    "sdk.application": ("identify", "track"),
    "sdk.exporter": ("AnalyticsSpanExporter",),
    "sdk.log_exporter": ("AnalyticsLogRecordExporter",),
    "sdk.processor": ("AnalyticsSpanProcessor",),
    "sdk.sampler": ("count_unsampled",),
    "sdk.shutdown": ("FlushOnShutdown", "flush_on_sigterm"),
}


def __getattr__(name: str) -> object:
    """Import a public name from its home, once (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
