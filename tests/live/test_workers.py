"""Every request that any worker of a server answers is delivered."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from observing import served
from workers import WORKERS, get_items

from otel_analytics.collector import DevCollector

REQUESTS = 40
# The other way of the same server is run by default, and `test_sigterm` runs them all.
SLOW = frozenset(
    {
        *("gunicorn-preload", "gunicorn-gthread", "gunicorn-uvicorn-h11", "gunicorn-uvicorn-preload"),
        *("hypercorn-workers", "gunicorn-django"),
    }
)
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in WORKERS]


@pytest.mark.parametrize("name", NAMES)
def test_every_request_of_every_worker_arrives(name: str, tmp_path: Path) -> None:
    app = WORKERS[name]
    with DevCollector() as collector, served(app, "unset", collector, tmp_path) as running:
        get_items(running.url, REQUESTS)
        views = collector.wait_for(REQUESTS)
        assert collector.stats().duplicates == 0
    assert Counter(view["contentId"] for view in views) == {f"GET:{app.routes['item']}": REQUESTS}
    assert len({view["metadata"]["traceId"] for view in views}) == REQUESTS
