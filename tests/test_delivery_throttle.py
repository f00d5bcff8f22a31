"""What a failure says about a URL, a connection, and the wait of who tracks; a fake clock."""

from __future__ import annotations

import math

import pytest

from otel_analytics.contract import Kind
from otel_analytics.delivery.backoff import RetryPolicy
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.wire import Outcome, Verdict
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.throttle import Throttle
from otel_analytics.events import EncodedEvent

_VIEW = Batch(Kind.VIEW, (Entry(1, 0.0, EncodedEvent(Kind.VIEW, "id", b"{}")),))
_OK = Outcome(Verdict.ACCEPTED)
_BAD = [Outcome(verdict) for verdict in (Verdict.REFUSED, Verdict.FAILED, Verdict.UNAVAILABLE)]


def _throttle(*outcomes: Outcome, life: Life | None = None) -> Throttle:
    """Return a throttle that has judged these, one request after the other, a second each."""
    throttle = Throttle(8, RetryPolicy(), lambda: 0.5, life or Life())
    for second, outcome in enumerate(outcomes):
        throttle.judge(_VIEW, outcome, second, second + 0.5)
    return throttle


@pytest.mark.parametrize("bad", _BAD, ids=lambda outcome: outcome.verdict.name)
def test_one_failure_after_a_success_neither_stops_nor_hurries_anybody(bad: Outcome) -> None:
    throttle = _throttle(_OK, bad)
    assert Kind.VIEW in throttle.open_kinds(1.5)
    assert throttle.progress_expected_until(1.5) > 1.5
    assert throttle.connected_since == -math.inf


@pytest.mark.parametrize("bad", _BAD, ids=lambda outcome: outcome.verdict.name)
def test_the_second_one_closes_the_url_and_leaves_all_connections(bad: Outcome) -> None:
    throttle = _throttle(_OK, bad, bad)
    assert throttle.open_kinds(2.5) == [Kind.ENGAGEMENT]
    assert throttle.progress_expected_until(2.5) == -math.inf
    assert throttle.connected_since == 2.5


@pytest.mark.parametrize("bad", _BAD, ids=lambda outcome: outcome.verdict.name)
def test_the_exit_gives_up_after_failures_in_a_row_until_one_gets_through(bad: Outcome) -> None:
    life = Life()
    life.begin_last_chance(100.0)
    for outcomes, given_up in [([_OK, bad, bad], False), ([bad] * 3, True), ([bad, bad, bad, _OK], False)]:
        throttle = _throttle(*outcomes, life=life)
        assert throttle.gives_up(Kind.VIEW) is given_up
        assert Kind.VIEW in throttle.open_kinds(len(outcomes)), "no long delay"
        assert set(throttle.kinds_reachable()) == set(Kind)


def test_what_the_collector_asks_beyond_the_end_is_out_of_reach() -> None:
    life = Life()
    life.begin_last_chance(10.0)
    asked = Outcome(Verdict.UNAVAILABLE, retry_after=60.0)
    assert _throttle(_OK, asked, life=life).kinds_reachable() == [Kind.ENGAGEMENT]
