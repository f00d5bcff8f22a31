"""The dev collector: receives, checks, keeps and shows what the exporter sends (extra `collector`).

In a test::

    with DevCollector() as collector:
        ...  # export to collector.url
        collector.wait_for(3)
"""

from otel_analytics.collector.connections import ConnectionLimits
from otel_analytics.collector.intake import BatchLimits
from otel_analytics.collector.server import DevCollector, run
from otel_analytics.collector.store import Stats, StoreError, StoreLimits

__all__ = ["BatchLimits", "ConnectionLimits", "DevCollector", "Stats", "StoreError", "StoreLimits", "run"]
