"""For your own tests: a collector on a real socket that fails the way collectors and networks do.

::

    from otel_analytics import AnalyticsClient
    from otel_analytics.testing import FaultyCollector, Unavailable

    with FaultyCollector(Unavailable(retry_after=1)) as collector:
        client = AnalyticsClient(collector.url, app_name="shop")
        client.track_api_call("/orders", "POST", 201)
        assert client.flush()
        assert collector.bodies("view")[0]["contentId"] == "POST:/orders"

Needs nothing beyond the standard library. Durations are milliseconds.
"""

from otel_analytics.testing.answers import (
    Accept,
    AcceptPartly,
    Answer,
    Poison,
    Redirect,
    TooLarge,
    Unavailable,
)
from otel_analytics.testing.breakages import (
    CloseIdle,
    Garbage,
    Gigantic,
    HalfClose,
    Hang,
    LostAcknowledgement,
    ResetAtOnce,
    ResetMidBody,
    SlowDrip,
)
from otel_analytics.testing.exchange import Behaviour, Exchange, StoredEvent
from otel_analytics.testing.faulty import FaultyCollector
from otel_analytics.testing.received import ReceivedRequest

__all__ = [
    "Accept",
    "AcceptPartly",
    "Answer",
    "Behaviour",
    "CloseIdle",
    "Exchange",
    "FaultyCollector",
    "Garbage",
    "Gigantic",
    "HalfClose",
    "Hang",
    "LostAcknowledgement",
    "Poison",
    "ReceivedRequest",
    "Redirect",
    "ResetAtOnce",
    "ResetMidBody",
    "SlowDrip",
    "StoredEvent",
    "TooLarge",
    "Unavailable",
]
