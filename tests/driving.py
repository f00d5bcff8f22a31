"""What the fault tests share: tracking numbered calls, and comparing them with what a collector stored."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from otel_analytics import AnalyticsClient
from otel_analytics.delivery.http import wire
from otel_analytics.delivery.http.transport import Transport
from otel_analytics.testing import (
    Answer,
    Behaviour,
    FaultyCollector,
    Garbage,
    HalfClose,
    Hang,
    ResetAtOnce,
    ResetMidBody,
    Unavailable,
)

T = TypeVar("T")
STORING_NOTHING: tuple[Behaviour, ...] = (
    Answer(500),
    Unavailable(),
    Unavailable(429, retry_after=0.01),
    Answer(401),
    Answer(404),
    ResetAtOnce(),
    ResetMidBody(),
    HalfClose(),
    Garbage(),
    Hang(millis=60),
)
_numbers = itertools.count()
NO_INSTRUMENTATIONS = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}
"""For programs that make their spans themselves: loading all that the tests have takes seconds."""


def track(client: AnalyticsClient, count: int, name: str = "call") -> set[str]:
    """Track API calls, each with an endpoint of its own; return their content ids."""
    endpoints = [f"/{name}/{next(_numbers)}" for _ in range(count)]
    for endpoint in endpoints:
        client.track_api_call(endpoint, "GET", 200)
    return {f"GET:{endpoint}" for endpoint in endpoints}


def calls(collector: FaultyCollector) -> set[str]:
    """Return the content ids of all calls stored."""
    return {body["contentId"] for body in collector.bodies("view")}


def duplicates(collector: FaultyCollector) -> int:
    """Return how many events were stored beyond the first of each id."""
    ids = collector.event_ids()
    return sum(ids.values()) - len(ids)


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what the action returns, which it must do in that time (and a little for a busy machine)."""
    started = time.monotonic()
    result = action()
    assert time.monotonic() - started < seconds + 0.3
    return result


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return done


def one_each(collector: FaultyCollector, expected: Collection[str]) -> None:
    """Assert that just these calls were stored, none of them twice."""
    assert calls(collector) == set(expected)
    assert duplicates(collector) == 0


def send(
    transport: Transport, request: wire.Request, timeout: float, connected_since: float = -math.inf
) -> wire.Answer | wire.NoAnswer:
    """Make one request over a transport and wait for what comes of it."""
    assert not list(transport.wait(0))
    transport.start(request, timeout, connected_since=connected_since)
    until = time.monotonic() + timeout + 30
    while time.monotonic() < until:
        for exchanged in transport.wait(until):
            return exchanged.result
    raise AssertionError("the transport forgot a request")
