"""What becomes of a batch: every entry has exactly one fate, whatever the outcome."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.http.wire import Outcome, Verdict
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.delivery.settlement import _PATIENCE, Circumstances, Settlement, settle
from otel_analytics.events import EncodedEvent

_CALM = Circumstances(own_due=50.0, successes=0)
_NO_DUE = float("-inf")


def _parcel(size: int, attempts: int = 0, successes_seen: int = 0) -> Batch:
    entries = tuple(Entry(n, 0.0, EncodedEvent(Kind.VIEW, f"id-{n}", b"{}")) for n in range(size))
    return Batch(Kind.VIEW, entries, attempts, successes_seen=successes_seen)


def _again(settlement: Settlement) -> list[list[int]]:
    return [[entry.sequence for entry in batch.entries] for batch in settlement.again]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Batch, Outcome, Circumstances]:
    size = draw(st.integers(1, 12))
    batch = _parcel(size, draw(st.integers(0, 9)), draw(st.integers(0, 5)))
    changes = draw(st.lists(st.sampled_from("ara"), min_size=size, max_size=size))
    outcome = Outcome(
        draw(st.sampled_from(Verdict)),
        rejected={index: "" for index, fate in enumerate(changes) if fate == "r"},
        again=frozenset(index for index, fate in enumerate(changes) if fate == "a"),
    )
    return batch, outcome, Circumstances(draw(st.floats(0, 100)), draw(st.integers(0, 5)))


@given(_cases())
def test_every_entry_has_one_fate(case: tuple[Batch, Outcome, Circumstances]) -> None:
    batch, outcome, circumstances = case
    settlement = settle(batch, outcome, circumstances)
    dropped = [entry.sequence for entry, _ in settlement.dropped]
    again = [sequence for part in _again(settlement) for sequence in part]
    unsettled = sorted(dropped + again)
    assert len(set(unsettled)) == len(unsettled)
    assert set(unsettled) <= {entry.sequence for entry in batch.entries}
    if outcome.verdict is not Verdict.ACCEPTED:
        assert len(unsettled) == len(batch.entries)  # nothing counts as delivered
    assert all(part.entries and part.attempts == batch.attempts + 1 for part in settlement.again)
    assert all(sequences == sorted(sequences) for sequences in _again(settlement))


def test_an_accepted_parcel_is_done() -> None:
    assert settle(_parcel(3), Outcome(Verdict.ACCEPTED), _CALM) == Settlement()


def test_a_partly_accepted_batch_gives_up_and_repeats_what_it_lists() -> None:
    outcome = Outcome(Verdict.ACCEPTED, rejected={1: "bad"}, again=frozenset({3, 0}))
    settlement = settle(_parcel(5), outcome, _CALM)
    assert [(entry.sequence, reason) for entry, reason in settlement.dropped] == [(1, DropReason.REJECTED)]
    assert _again(settlement) == [[0, 3]]
    assert settlement.again[0].due == 50.0


@pytest.mark.parametrize("verdict", [Verdict.UNAVAILABLE, Verdict.NO_GZIP])
def test_what_is_not_the_events_fault_is_repeated_as_it_is(verdict: Verdict) -> None:
    settlement = settle(_parcel(4, attempts=20), Outcome(verdict), replace(_CALM, successes=9))
    assert _again(settlement) == [[0, 1, 2, 3]]
    assert settlement.again[0].due == _NO_DUE


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.REFUSED])
@pytest.mark.parametrize(
    ("attempts", "successes", "halved"),
    [
        (0, 9, False),  # its first failure: nothing to compare with
        (1, 2, False),  # nobody else got through since
        (1, 3, True),
        (2, 2, False),
        (3, 2, True),  # often enough, whatever others did
    ],
)
def test_a_batch_is_halved_once_it_is_the_suspect(
    verdict: Verdict, attempts: int, successes: int, *, halved: bool
) -> None:
    batch = _parcel(5, attempts, successes_seen=2)
    settlement = settle(batch, Outcome(verdict), Circumstances(50.0, successes))
    assert _again(settlement) == ([[0, 1], [2, 3, 4]] if halved else [[0, 1, 2, 3, 4]])
    assert {(part.due, part.successes_seen) for part in settlement.again} == {(50.0, successes)}


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.REFUSED])
def test_a_lone_event_that_breaks_the_collector_is_kept(verdict: Verdict) -> None:
    settlement = settle(_parcel(1, attempts=99), Outcome(verdict), Circumstances(50.0, 99))
    assert _again(settlement) == [[0]]
    assert not settlement.dropped


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [(Verdict.REJECTED, DropReason.REJECTED), (Verdict.TOO_LARGE, DropReason.TOO_LARGE)],
)
def test_what_is_the_events_fault_is_halved_down_to_it(verdict: Verdict, reason: DropReason) -> None:
    assert _again(settle(_parcel(5), Outcome(verdict), _CALM)) == [[0, 1], [2, 3, 4]]
    lone = settle(_parcel(1), Outcome(verdict), _CALM)
    assert [(entry.sequence, why) for entry, why in lone.dropped] == [(0, reason)]
    assert not lone.again


def test_a_collector_without_batches_gets_single_events() -> None:
    settlement = settle(_parcel(3), Outcome(Verdict.NO_BATCHES), _CALM)
    assert _again(settlement) == [[0], [1], [2]]


_UNCERTAIN = [Verdict.UNAVAILABLE, Verdict.FAILED, Verdict.REFUSED]


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("before", _UNCERTAIN)
def test_a_conflict_about_what_was_sent_before_is_a_delivery(size: int, before: Verdict) -> None:
    (again,) = settle(_parcel(size), Outcome(before), _CALM).again
    assert settle(again, Outcome(Verdict.CONFLICT), _CALM) == Settlement()


@pytest.mark.parametrize(
    "before",
    [
        None,
        Outcome(Verdict.REJECTED),
        Outcome(Verdict.TOO_LARGE),
        Outcome(Verdict.CONFLICT),
        Outcome(Verdict.UNAVAILABLE, "no connection", sent=False),
    ],
    ids=str,
)
def test_a_conflict_about_what_was_never_stored_is_the_events_fault(before: Outcome | None) -> None:
    batch = settle(_parcel(2), before, _CALM).again[0].singles()[0] if before else _parcel(1)
    settlement = settle(batch, Outcome(Verdict.CONFLICT), _CALM)
    assert [reason for _, reason in settlement.dropped] == [DropReason.REJECTED]


def test_a_conflict_about_part_of_what_was_sent_before_asks_for_each_event() -> None:
    """The part has a key of its own, so it does not say that all its events are stored."""
    whole = _parcel(6, attempts=_PATIENCE)
    half, _ = settle(whole, Outcome(Verdict.FAILED), _CALM).again
    single, pair = settle(half, Outcome(Verdict.CONFLICT), _CALM).again
    assert settle(single, Outcome(Verdict.CONFLICT), _CALM) == Settlement()
    assert _again(settle(pair, Outcome(Verdict.CONFLICT), _CALM)) == [[1], [2]]


def test_a_conflict_about_an_array_that_was_not_acknowledged_is_a_delivery() -> None:
    for single in settle(_parcel(3), Outcome(Verdict.NO_BATCHES), _CALM).again:
        assert settle(single, Outcome(Verdict.CONFLICT), _CALM) == Settlement()


@pytest.mark.parametrize("verdict", _UNCERTAIN)
def test_in_the_last_chance_what_failed_goes_behind_what_was_not_tried(verdict: Verdict) -> None:
    settlement = settle(_parcel(1), Outcome(verdict), replace(_CALM, is_last=True))
    assert [part.due for part in settlement.again] == [50.0]


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.REFUSED])
def test_in_the_last_chance_a_batch_is_halved_at_once(verdict: Verdict) -> None:
    settlement = settle(_parcel(5), Outcome(verdict), replace(_CALM, is_last=True))
    assert _again(settlement) == [[0, 1], [2, 3, 4]]
