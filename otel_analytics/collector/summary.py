"""What a person wants to know of the stored events: which calls, how often, how slow; who did what."""

from __future__ import annotations

from dataclasses import dataclass

from otel_analytics.collector.store import Store

# Nearest rank: the smallest duration that at least so many per cent of the durations do not exceed.
_CALLS = """
    WITH ranked AS (
        SELECT content_id, duration,
            row_number() OVER (PARTITION BY content_id ORDER BY duration) AS rank,
            count(*) OVER (PARTITION BY content_id) AS total
        FROM events WHERE content_id IS NOT NULL AND duration IS NOT NULL
    ), percentiles AS (
        SELECT content_id,
            max(CASE WHEN rank = (total * 50 + 99) / 100 THEN duration END) AS median,
            max(CASE WHEN rank = (total * 95 + 99) / 100 THEN duration END) AS p95
        FROM ranked GROUP BY content_id
    )
    SELECT events.content_id, count(*) AS calls, total(failed), median, p95
    FROM events LEFT JOIN percentiles USING (content_id)
    WHERE events.content_id IS NOT NULL
    GROUP BY events.content_id ORDER BY calls DESC, events.content_id LIMIT ?
"""
_ENGAGEMENTS = """
    SELECT metric_type, count(*) AS events, count(DISTINCT user_id)
    FROM events WHERE metric_type IS NOT NULL
    GROUP BY metric_type ORDER BY events DESC, metric_type LIMIT ?
"""


@dataclass(frozen=True)
class Calls:
    """The views of one content: for an API call, one endpoint.

    Durations are milliseconds, `None` where no view had one. An error is a status of 400 and above, or an RPC
    status other than OK.
    """

    content_id: str
    count: int
    errors: int
    median_millis: float | None
    p95_millis: float | None

    @property
    def error_share(self) -> float:
        """Errors among the calls, 0 to 1."""
        return self.errors / self.count


@dataclass(frozen=True)
class Engagements:
    """The engagements of one metric type."""

    metric_type: str
    count: int
    users: int


def calls(store: Store, *, limit: int = -1) -> list[Calls]:
    """Return the calls by content, most frequent first; a negative limit is none."""
    return [
        Calls(content_id, count, int(errors), median, p95)
        for content_id, count, errors, median, p95 in store.query(_CALLS, [limit])
    ]


def engagements(store: Store, *, limit: int = -1) -> list[Engagements]:
    """Return the engagements by metric type, most frequent first; a negative limit is none."""
    return [Engagements(*row) for row in store.query(_ENGAGEMENTS, [limit])]
