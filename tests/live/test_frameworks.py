"""Real applications under ``opentelemetry-instrument``, real clients, and one right view for each request."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from applications import APPLICATIONS, GRPC
from observing import MODES, PAYER, Observed, observe

EVERY_MODE = {"fastapi"}


def matrix() -> Iterator[Any]:
    """Every application in every mode; by default one of them in all, each other one in one mode in turn."""
    turn = itertools.cycle(MODES)
    for name in (*APPLICATIONS, *GRPC):
        chosen = set(MODES) if name in EVERY_MODE else {next(turn)}
        for mode in MODES:
            marks = () if mode in chosen else (pytest.mark.slow,)
            yield pytest.param(name, mode, marks=marks, id=f"{name}-{mode}")


def assert_right(observed: Observed, tmp_path: Path) -> None:
    got = {one.ask.name: list(one.got) for one in observed.requests}
    assert got == {one.ask.name: list(one.expected) for one in observed.requests}
    assert len(observed.views) == sum(map(len, got.values()))
    assert len({view["sessionId"] for view in observed.views}) == len(observed.views), (
        "nobody's visits are one"
    )
    assert observed.leaks() == 0, (tmp_path / "app.log").read_text()


@pytest.mark.parametrize(("name", "mode"), list(matrix()))
def test_each_request_is_one_right_view(name: str, mode: str, tmp_path: Path) -> None:
    observed = observe(name, mode, tmp_path)
    assert_right(observed, tmp_path)
    (purchase,) = observed.engagements
    assert (purchase["userId"], purchase["metricType"], purchase["targetId"]) == (
        PAYER,
        "purchase",
        "order-1",
    )


def test_http_2(tmp_path: Path) -> None:
    observed = observe("starlette-hypercorn", "http", tmp_path, http1=False, http2=True)
    assert_right(observed, tmp_path)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize("name", ["fastapi", "wsgi"])
def test_ipv6(name: str, tmp_path: Path) -> None:
    assert_right(observe(name, "http", tmp_path, host="::1"), tmp_path)
