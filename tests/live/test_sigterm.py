"""A rolling restart: SIGTERM right after the answers, with the defaults' long waits, loses nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from observing import served
from workers import WORKERS, get_items

from otel_analytics.collector import DevCollector

REQUESTS = 12
# The SDK's own default: what is not sent at the signal would have had to wait for seconds.
UNHURRIED = {"OTEL_BSP_SCHEDULE_DELAY": "5000", "OTEL_EXPORTER_ANALYTICS_FLUSH_INTERVAL": "1000"}


# Each differs from another one in what hardly matters at the signal.
TWINS = frozenset({"uvicorn-workers", "gunicorn-uvicorn-h11", "gunicorn-django", "gunicorn-gthread"})
SLOW = [pytest.mark.slow]


# With single events less waits at the signal.
@pytest.mark.parametrize("batching", [pytest.param("off", marks=pytest.mark.slow), "on"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name in TWINS else []) for name in WORKERS]
)
def test_the_last_requests_before_sigterm_arrive(name: str, batching: str, tmp_path: Path) -> None:
    env = {**WORKERS[name].env, **UNHURRIED, "OTEL_EXPORTER_ANALYTICS_BATCHING": batching}
    app = dataclasses.replace(WORKERS[name], env=env)
    with DevCollector() as collector, served(app, "unset", collector, tmp_path) as running:
        get_items(running.url, REQUESTS)
        running.stop()
        stored = len(collector.events("view"))
        assert stored == REQUESTS, running.said()
