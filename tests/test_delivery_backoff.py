"""When to try again: a fake clock, fixed dice."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_analytics.delivery.backoff import Gate, RetryPolicy, parse_retry_after

_NOW = 1_700_000_000.0
_POLICY = RetryPolicy()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("1.5", 1.5),
        (" 7 ", 7.0),
        (formatdate(_NOW + 60, usegmt=True), 60.0),
        ("Tue, 14 Nov 2023 22:14:20", 60.0),  # no zone: UTC
        ("Tue, 14 Nov 2023 23:14:20 +0100", 60.0),
        (formatdate(_NOW - 60, usegmt=True), None),
        (None, None),
        ("", None),
        ("0", None),
        ("-3", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 99999999 22:14:20 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, _NOW) == seconds


@given(st.text())
def test_any_retry_after_is_read_without_an_error(text: str) -> None:
    seconds = parse_retry_after(text, _NOW)
    assert seconds is None or 0 < seconds < math.inf


@pytest.mark.parametrize(("failures", "longest"), [(1, 0.5), (2, 1), (3, 2), (7, 30), (10_000, 30)])
def test_delays_double_up_to_the_ceiling(failures: int, longest: float) -> None:
    assert _POLICY.delay(failures, 0.0) == 0
    assert _POLICY.delay(failures, 0.999_999) == pytest.approx(longest, rel=1e-3)


@given(
    failures=st.integers(1, 10**9),
    dice=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.floats(0, 1e300),
)
def test_what_the_collector_asked_is_a_floor_up_to_its_cap(
    failures: int, dice: float, asked: float | None
) -> None:
    delay = _POLICY.delay(failures, dice, asked)
    assert min(asked or 0, 300) <= delay <= 300
    assert asked or delay <= 30
    assert asked or _POLICY.delay(failures, dice, None, 0.2) <= 0.2


def test_failures_in_flight_together_count_once() -> None:
    gate = Gate(_POLICY)
    for _ in range(8):
        gate.failed(sent_at=0.0, now=1.0, dice=0.5, retry_after=None)
    assert gate.failures == 1
    gate.failed(sent_at=2.0, now=3.0, dice=0.5, retry_after=None)
    assert gate.failures == 2


def test_a_failure_never_shortens_the_wait() -> None:
    gate = Gate(_POLICY)
    gate.failed(0.0, 1.0, 0.5, 60.0)
    gate.failed(0.0, 1.1, 0.5, None)
    assert gate.opens_at == 61.0


def test_success_opens_the_gate() -> None:
    gate = Gate(_POLICY)
    gate.failed(0.0, 1.0, 0.5, None)
    gate.succeeded(sent_at=0.5)
    assert gate.opens_at == -math.inf
    assert (gate.failures, gate.successes) == (0, 1)


def test_success_of_an_older_request_does_not_lift_what_the_collector_asked() -> None:
    gate = Gate(_POLICY)
    gate.failed(sent_at=0.0, now=1.0, dice=0.5, retry_after=60.0)
    gate.succeeded(sent_at=0.5)
    assert gate.opens_at == 61.0
    gate.succeeded(sent_at=61.0)
    assert gate.opens_at == -math.inf


def test_the_first_failure_after_a_success_closes_nothing() -> None:
    gate = Gate(_POLICY)
    gate.succeeded(sent_at=0.0)
    for _ in range(8):  # in flight together
        gate.failed(sent_at=1.0, now=2.0, dice=0.5, retry_after=None)
    assert (gate.failures, gate.opens_at) == (1, -math.inf)
    gate.failed(sent_at=3.0, now=4.0, dice=0.5, retry_after=None)
    assert gate.opens_at == 4.5


def test_the_first_failure_after_a_success_closes_for_what_the_collector_asks() -> None:
    gate = Gate(_POLICY)
    gate.succeeded(sent_at=0.0)
    gate.failed(sent_at=1.0, now=2.0, dice=0.5, retry_after=7.0)
    assert gate.opens_at == 9.0


def test_a_flush_shortens_a_drawn_delay_only() -> None:
    gate = Gate(_POLICY)
    for moment in range(10):
        gate.failed(moment, moment, 0.9, None)
    assert gate.opens_at > 9 + 0.5
    gate.shorten_delay()
    assert gate.opens_at == 9.5
    gate.failed(10.0, 10.0, 0.0, 20.0)
    gate.shorten_delay()
    assert gate.opens_at == 30.0


def test_the_exit_opens_whatever_was_asked() -> None:
    gate = Gate(_POLICY)
    gate.failed(0.0, 1.0, 0.5, 300.0)
    gate.reopen()
    assert gate.opens_at == -math.inf
    assert gate.failures == 0
