"""A client with short delays, whose books are checked after each test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from otel_analytics import AnalyticsClient
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.logs import forget_told, logger
from otel_analytics.delivery.sender import Surroundings

# How fast examples are made is the machine's, which runs other tests as well.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

QuickClient = Callable[..., AnalyticsClient]

_QUICK = RetryPolicy(initial=0.01, ceiling=0.05, retry_after_ceiling=0.3)
_OPTIONS = {"app_name": "shop", "timeout_millis": 500, "flush_interval_millis": 20}
_END_MILLIS = 200


@pytest.fixture(autouse=True)
def _lines_of_its_own() -> Iterator[None]:
    """Give each test the lines that a process has once, and take back what it has set for the logger."""
    forget_told()
    level, handlers, filters = logger.level, logger.handlers.copy(), logger.filters.copy()
    yield
    logger.setLevel(level)
    logger.handlers[:], logger.filters[:] = handlers, filters


@pytest.fixture
def quick_client() -> Iterator[QuickClient]:
    """Make clients: ``quick_client(url, policy=..., dice=..., **options)``."""
    clients = []

    def make(
        endpoint: str,
        *,
        policy: RetryPolicy = _QUICK,
        dice: Callable[[], float] | None = None,
        **options: Any,
    ) -> AnalyticsClient:
        client = AnalyticsClient(endpoint, **{**_OPTIONS, **options})
        client._surroundings = Surroundings(policy=policy)
        if dice is not None:
            client._surroundings = replace(client._surroundings, dice=dice)
        clients.append(client)
        return client

    yield make
    for client in clients:
        _close(client)


def _close(client: AnalyticsClient) -> None:
    before = client.stats()
    started = time.monotonic()
    nothing_lost = client.shutdown(_END_MILLIS)
    assert time.monotonic() - started < _END_MILLIS / 1000 + 0.5
    after = client.stats()
    assert after.accepted == after.delivered + sum(after.dropped.values())
    assert after.pending == 0
    if before.pending:
        assert nothing_lost is (sum(after.dropped.values()) == sum(before.dropped.values()))
