"""One line a minute for each reason, with totals."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from otel_analytics.config import Config
from otel_analytics.delivery.logs import RateLimitedLog, log_safely, logger, show_lines, tell_once
from otel_analytics.delivery.start import ALL_CALLS, tell_start


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


@pytest.fixture
def application() -> Iterator[logging.Logger]:
    """Return the logger above ours, without pytest's own handlers: what an application sets up."""
    above = logging.Logger("application", logging.WARNING)  # noqa: LOG001 - hidden from pytest
    was, logger.parent = logger.parent, above
    yield above
    logger.parent = was


def _told(level: int) -> None:
    logger.setLevel(logger.level)  # `logging` remembers what is enabled, and has not seen the parent change
    log_safely(level, "a line")


class _Exporting(logging.NullHandler):
    """Stands for OpenTelemetry's own, which exports lines; nobody reads them in the terminal."""

    __module__ = "opentelemetry.instrumentation.logging.handler"


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_lines_are_on_stderr_where_nobody_handles_them(
    application: logging.Logger, capsys: pytest.CaptureFixture[str], level: int
) -> None:
    show_lines()
    show_lines()
    application.addHandler(_Exporting())
    _told(level)
    _told(logging.DEBUG)
    assert capsys.readouterr().err == "otel-analytics: a line\n"


def test_without_being_asked_a_library_is_quiet(
    application: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not application.handlers
    _told(logging.INFO)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("above", "own", "told"),
    [
        (logging.INFO, logging.NOTSET, True),
        (logging.WARNING, logging.NOTSET, False),
        (logging.WARNING, logging.INFO, True),
        (logging.INFO, logging.ERROR, False),
    ],
)
def test_logging_that_is_set_up_later_has_each_line_once_at_its_own_levels(
    application: logging.Logger, capsys: pytest.CaptureFixture[str], above: int, own: int, told: bool
) -> None:
    show_lines()
    stream = io.StringIO()
    application.addHandler(logging.StreamHandler(stream))
    application.setLevel(above)
    if own:
        logger.setLevel(own)
    _told(logging.INFO)
    assert stream.getvalue() == ("otel-analytics: a line\n" if told else "")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [None, "closed"])
def test_standard_error_may_not_be_there(
    application: logging.Logger, monkeypatch: pytest.MonkeyPatch, stream: str | None
) -> None:
    assert not application.handlers
    show_lines()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed if stream else None)
    _told(logging.ERROR)


def test_a_line_is_told_once_by_however_many_threads(caplog: pytest.LogCaptureFixture) -> None:
    tell_once(logging.INFO, "not seen, and so not told")
    caplog.set_level(logging.INFO)
    threads = [
        threading.Thread(target=tell_once, args=(logging.INFO, "not seen, and so not told")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "analytics of shop go to http://localhost:4380 (batches by advertisement, waiting in memory)"),
        ({"batching": "off", "spool_path": "/s"}, "(singly, spool /s)"),
        ({"batching": "on", "app_name": "unknown_service:python"}, "analytics go to http"),
        (
            {
                "endpoint": "https://a.example/in/wk_4711",
                "write_key": "wk_4711",
                "headers": {"X": "0815-0815"},
            },
            "go to https://a.example/in/<hidden> (",
        ),
        ({"app_name": "shop\nERROR \x1b[31m"}, "of shop\\u000aERROR \\u001b[31m go"),
    ],
)
def test_the_start_says_where_what_goes_and_no_secret(
    options: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = Config.resolve(**{"app_name": "shop", **options})
    tell_start(config, str(config.app_name), "")
    tell_start(config, str(config.app_name), ALL_CALLS)
    (record,) = caplog.records
    assert line in record.getMessage()
    assert "0815" not in record.getMessage()
