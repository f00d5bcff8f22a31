"""One line a minute for each reason, with totals."""

from __future__ import annotations

import logging
import threading

import pytest

from otel_analytics.delivery.logs import RateLimitedLog


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_reason_is_told_once_a_minute_with_totals(caplog: pytest.LogCaptureFixture) -> None:
    clock = _Clock()
    log = RateLimitedLog(clock)
    for second in range(150):
        clock.now = float(second)
        log.tell("queue_full", 2, "too many events")
    assert [record.getMessage() for record in caplog.records] == [
        "otel-analytics: too many events (queue_full: 2 now, 2 in all)",
        "otel-analytics: too many events (queue_full: 120 now, 122 in all)",
        "otel-analytics: too many events (queue_full: 120 now, 242 in all)",
    ]


def test_reasons_do_not_hide_one_another(caplog: pytest.LogCaptureFixture) -> None:
    log = RateLimitedLog(_Clock())
    log.tell("rejected", 1, "one")
    log.tell("refused", 1, "two", logging.ERROR)
    log.tell("rejected", 1, "three")
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("WARNING", "otel-analytics: one (rejected: 1 now, 1 in all)"),
        ("ERROR", "otel-analytics: two (refused: 1 now, 1 in all)"),
    ]


def test_many_threads_give_one_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = _Clock()
    log = RateLimitedLog(clock)

    def tell() -> None:
        for _ in range(500):
            log.tell("failed", 1, "text")

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    clock.now = 60.0
    log.tell("failed", 1, "text")
    assert len(caplog.records) == 2
    assert "4001 in all" in caplog.records[1].getMessage()
