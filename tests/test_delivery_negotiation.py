"""Single events or batches, by the collector's own word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_analytics import Config
from otel_analytics.contract import Advertisement, parse_advertisement
from otel_analytics.delivery.http.negotiation import Negotiation


@pytest.mark.parametrize(
    ("header", "advertisement"),
    [
        ("max=512; bytes=1000000; encoding=gzip", Advertisement(512, 1_000_000, gzip=True)),
        ("MAX=5;Encoding=GZIP", Advertisement(5, None, gzip=True)),
        ("max = 5 ; colour=red", Advertisement(5)),
        ("max=5; encoding=br", Advertisement(5)),
        (None, None),
        ("", None),
        ("off", None),
        ("bytes=5", None),
        ("max", None),
        ("max=0", None),
        ("max=-5", None),
        ("max=five", None),
        ("max=5; bytes=0", None),
        ("max=5, max=6", None),
        ("max=" + "9" * 5_000, None),
    ],
)
def test_an_advertisement_is_read(header: str | None, advertisement: Advertisement | None) -> None:
    assert parse_advertisement(header) == advertisement


@given(st.text())
def test_any_header_is_read_without_an_error(header: str) -> None:
    advertisement = parse_advertisement(header)
    assert advertisement is None or (advertisement.max_events or 0) > 0


def _negotiation(**options: Any) -> Negotiation:
    return Negotiation(Config(**options))


def test_nothing_is_known_before_the_first_answer() -> None:
    plan = _negotiation().plan(0.0)
    assert (plan.max_events, plan.gzip, plan.known, plan.batches) == (1, False, False, False)


@pytest.mark.parametrize(
    ("batching", "advertised", "max_events"),
    [
        ("auto", None, 1),
        ("auto", "max=100", 100),
        ("auto", "max=100000", 512),
        ("on", None, 512),
        ("on", "max=100", 100),
        ("off", "max=100", 1),
    ],
)
def test_the_smaller_limit_wins(batching: str, advertised: str | None, max_events: int) -> None:
    negotiation = _negotiation(batching=batching)
    negotiation.learn(advertised)
    plan = negotiation.plan(0.0)
    assert (plan.max_events, plan.known) == (max_events, True)


@pytest.mark.parametrize("silence", [None, "", "garbage", "max=x"])
def test_silence_and_garbage_withdraw_nothing(silence: str | None) -> None:
    negotiation = _negotiation()
    negotiation.learn("max=10")
    negotiation.learn(silence)
    assert negotiation.plan(0.0).max_events == 10


def test_a_refused_batch_ends_batching_for_ten_minutes() -> None:
    negotiation = _negotiation()
    negotiation.learn("max=10")
    negotiation.batch_refused(now=100.0)
    negotiation.learn("max=10")
    assert negotiation.plan(699.9).max_events == 1
    assert negotiation.plan(700.0).max_events == 10


def test_after_a_refused_batch_only_a_new_advertisement_begins_batching() -> None:
    negotiation = _negotiation()
    negotiation.learn("max=10")
    negotiation.batch_refused(now=100.0)
    negotiation.learn(None)
    assert negotiation.plan(100_000.0).max_events == 1


def test_413_halves_what_is_sent_until_the_advertisement_changes() -> None:
    negotiation = _negotiation()
    negotiation.learn("max=10; bytes=900000")
    negotiation.too_large(500_000)
    assert negotiation.plan(0.0).max_bytes == 250_000
    negotiation.learn("max=10; bytes=900000")
    assert negotiation.plan(0.0).max_bytes == 250_000
    negotiation.learn("max=10; bytes=800000")
    assert negotiation.plan(0.0).max_bytes == 800_000


@pytest.mark.parametrize(
    ("compression", "advertised", "gzip"),
    [
        ("auto", "max=10", False),
        ("auto", "max=10; encoding=gzip", True),
        ("none", "max=10; encoding=gzip", False),
        ("gzip", None, True),
    ],
)
def test_gzip_where_wanted_and_not_refused(compression: str, advertised: str | None, *, gzip: bool) -> None:
    negotiation = _negotiation(compression=compression)
    negotiation.learn(advertised)
    assert negotiation.plan(0.0).gzip is gzip
    negotiation.gzip_refused()
    assert negotiation.plan(0.0).gzip is False
