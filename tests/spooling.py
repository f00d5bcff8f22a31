"""What the spool's tests share: clients with short delays, here and in processes of their own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from otel_analytics import AnalyticsClient, LedgerSnapshot
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.sender import Surroundings

_QUICK = RetryPolicy(initial=0.01, ceiling=0.05, retry_after_ceiling=0.3)
_OPTIONS = {
    "app_name": "shop",
    "timeout_millis": 250,
    "flush_interval_millis": 20,
    "shutdown_timeout_millis": 300,
}
_WAIT_SECONDS = 30.0


def spooled(
    url: str,
    path: Path | None,
    *,
    policy: RetryPolicy = _QUICK,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    **options: Any,
) -> AnalyticsClient:
    """Return a client whose events wait in a spool; without a path in memory."""
    client = AnalyticsClient(url, spool_path=path and str(path), **{**_OPTIONS, **options})
    client._surroundings = Surroundings(policy=policy, clock=clock, wall_clock=wall_clock)
    client._delivery()
    return client


def balanced(stats: LedgerSnapshot) -> LedgerSnapshot:
    """Return the books, after a look that they balance."""
    assert stats.accepted == stats.delivered + sum(stats.dropped.values()) + stats.pending
    assert min(stats.accepted, stats.delivered, stats.pending) >= 0
    return stats


def files_of(path: Path) -> list[Path]:
    """Return the files of events in a spool."""
    return sorted(path.glob("*.db"))


def rows_of(path: Path, columns: str = "id", table: str = "") -> list[Any]:
    """Return what columns hold of all events in all files of a spool, or of those of one kind."""
    found = []
    for file in files_of(path):
        with closing(sqlite3.connect(file, timeout=5)) as connection:
            for kind in [table] if table else ["view", "engagement"]:
                found += connection.execute(f"SELECT {columns} FROM {kind} ORDER BY id").fetchall()  # noqa: S608
    return [row[0] if len(row) == 1 else row for row in found]


PRELUDE = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from spooling import spooled

url, path = sys.argv[1], Path(sys.argv[2]) if sys.argv[2] else None

def track(client, name, count):
    for number in range(count):
        client.track_api_call(f"/{{name}}/{{number}}", "GET", 200)

def say(*words):
    print(*words, flush=True)

"""


@contextmanager
def process(program: str, url: str, path: Path | None, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program for a block; it has ``url``, ``path``, ``track``, ``say`` and ``spooled``."""
    prelude = PRELUDE.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", prelude + program, url, str(path or ""), *arguments]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    """Return the next line a process says; the test's own timeout bounds the wait."""
    assert running.stdout is not None
    return running.stdout.readline().strip()


def run(
    program: str, url: str, path: Path | None, *arguments: str, wait: float = _WAIT_SECONDS
) -> tuple[int, str]:
    """Run a program to its end, for ``wait`` seconds at most; return its exit code and output."""
    with process(program, url, path, *arguments) as running:
        output, _ = running.communicate(timeout=wait)
        return running.returncode, output


def ids(name: str, count: int) -> set[str]:
    """Return the content ids of calls that a program's ``track`` tracked."""
    return {f"GET:/{name}/{number}" for number in range(count)}
