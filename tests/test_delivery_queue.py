"""The queue against a model, by random walks; and its few promises one by one."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from otel_analytics.contract import Kind
from otel_analytics.delivery.batch import Batch
from otel_analytics.delivery.http.negotiation import Plan
from otel_analytics.delivery.http.wire import Outcome, Verdict
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.delivery.queue.memory import MemoryQueue
from otel_analytics.delivery.settlement import Circumstances, Settlement, settle
from otel_analytics.events import EncodedEvent

_BOUND = 6
_LINGER = 10.0
_ALL = tuple(Kind)
_SINGLY = Plan(max_events=1, max_bytes=10_000, gzip=False, known=True)
_BATCHES = Plan(max_events=4, max_bytes=10_000, gzip=False, known=True)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _events(kind: Kind, count: int, start: int = 0) -> list[EncodedEvent]:
    return [EncodedEvent(kind, f"{kind.value}-{n}", b"{}") for n in range(start, start + count)]


def _ids(batch: Batch | None) -> list[str]:
    return [] if batch is None else [entry.event.event_id for entry in batch.entries]


class OutboxWalk(RuleBasedStateMachine):
    """Puts, takes, settles and drops at random; the model knows each event's fate by its id."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = _Clock()
        self.queue = MemoryQueue(max_queue_size=_BOUND, linger=_LINGER, clock=self.clock)
        self.waiting: dict[str, Kind] = {}
        self.travelling: dict[str, Kind] = {}
        self.accepted = self.delivered = self.dropped = 0

    @rule(kind=st.sampled_from(Kind), count=st.integers(1, 4))
    def put(self, kind: Kind, count: int) -> None:
        events = _events(kind, count, start=self.accepted)
        displaced = self.queue.put(events)
        self.accepted += count
        self.dropped += len(displaced)
        self.waiting.update({event.event_id: kind for event in events})
        for entry in displaced:
            assert self.waiting.pop(entry.event.event_id) is kind

    @rule(count=st.integers(1, 3))
    def refuse(self, count: int) -> None:
        self.queue.refuse(DropReason.INVALID, count)
        self.accepted += count
        self.dropped += count

    @rule(
        target=leases,
        plan=st.sampled_from([_SINGLY, _BATCHES]),
        kinds=st.sets(st.sampled_from(Kind)),
        hurry=st.booleans(),
    )
    def take(self, plan: Plan, kinds: set[Kind], *, hurry: bool) -> Batch | object:
        ready_at = self.queue.ready_at(plan, kinds)
        batch = self.queue.take(plan, self.clock(), self.queue.newest() if hurry else 0, kinds)
        if batch is None:
            assert ready_at > self.clock()
            return multiple()
        assert batch.kind in kinds
        assert 0 < len(batch.entries) <= plan.max_events
        for event_id in _ids(batch):
            assert self.waiting.pop(event_id) is batch.kind
            self.travelling[event_id] = batch.kind
        return batch

    @rule(
        batch=consumes(leases),
        verdict=st.sampled_from(Verdict),
        delay=st.sampled_from([0.0, 5.0, math.inf]),
        successes=st.integers(0, 3),
    )
    def settle(self, batch: Batch, verdict: Verdict, delay: float, successes: int) -> None:
        settlement = settle(batch, Outcome(verdict), Circumstances(self.clock() + delay, successes))
        held = self.queue.settle(batch, settlement)
        assert held is (_ids(batch)[0] in self.travelling)
        if not held:
            return
        for event_id in _ids(batch):
            del self.travelling[event_id]
        for again in settlement.again:
            self.waiting.update(dict.fromkeys(_ids(again), batch.kind))
        repeated = sum(len(part.entries) for part in settlement.again)
        self.dropped += len(settlement.dropped)
        self.delivered += len(batch.entries) - repeated - len(settlement.dropped)

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def release(self) -> None:
        self.queue.release_parked()

    @rule()
    def abandon(self) -> None:
        lost = self.queue.abandon(DropReason.SHUTDOWN)
        assert {entry.event.event_id for entry in lost} == self.waiting.keys() | self.travelling.keys()
        self.dropped += len(lost)
        self.waiting.clear()
        self.travelling.clear()

    @invariant()
    def every_event_is_counted_once(self) -> None:
        ledger = self.queue.snapshot()
        pending = len(self.waiting) + len(self.travelling)
        assert ledger.accepted == ledger.delivered + sum(ledger.dropped.values()) + ledger.pending
        assert (ledger.accepted, ledger.delivered) == (self.accepted, self.delivered)
        assert (sum(ledger.dropped.values()), ledger.pending) == (self.dropped, pending)

    @invariant()
    def each_lane_keeps_to_its_bound(self) -> None:
        for kind in Kind:
            held = [*self.waiting.values(), *self.travelling.values()].count(kind)
            assert held <= _BOUND

    @invariant()
    def something_is_pending_where_something_waits(self) -> None:
        assert self.queue.is_settled(self.queue.mark()) is not bool(self.waiting or self.travelling)


OutboxWalk.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_walk = OutboxWalk.TestCase


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def queue(clock: _Clock) -> MemoryQueue:
    return MemoryQueue(max_queue_size=_BOUND, linger=_LINGER, clock=clock)


def test_events_leave_in_the_order_they_came(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 6))
    assert _ids(queue.take(_BATCHES, 0.0, 0, _ALL)) == [f"view-{n}" for n in range(4)]
    assert _ids(queue.take(_BATCHES, _LINGER, 0, _ALL)) == ["view-4", "view-5"]


def test_a_batch_waits_to_fill_but_not_longer_than_its_first_event_may(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 3))
    assert queue.ready_at(_BATCHES, _ALL) == _LINGER
    assert queue.take(_BATCHES, _LINGER - 0.1, 0, _ALL) is None
    queue.put(_events(Kind.VIEW, 1, start=3))
    assert queue.ready_at(_BATCHES, _ALL) == 0.0
    assert len(_ids(queue.take(_BATCHES, 0.0, 0, _ALL))) == 4


def test_a_single_event_waits_for_nothing(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 1))
    assert queue.ready_at(_SINGLY, _ALL) == 0.0
    assert _ids(queue.take(_SINGLY, 0.0, 0, _ALL)) == ["view-0"]


def test_a_flush_ripens_what_came_before_it_only(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 1))
    ripe = queue.newest()
    queue.put(_events(Kind.ENGAGEMENT, 1))
    assert _ids(queue.take(_BATCHES, 0.0, ripe, _ALL)) == ["view-0"]
    assert queue.take(_BATCHES, 0.0, ripe, _ALL) is None


def test_lanes_take_turns(queue: MemoryQueue) -> None:
    queue.put([*_events(Kind.VIEW, 3), *_events(Kind.ENGAGEMENT, 3)])
    kinds = [_ids(queue.take(_SINGLY, 0.0, 0, _ALL))[0].partition("-")[0] for _ in range(6)]
    assert sorted(kinds[:2]) == sorted(kinds[2:4]) == sorted(kinds[4:]) == ["engagement", "view"]


def test_views_never_displace_engagements(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.ENGAGEMENT, _BOUND))
    displaced = queue.put(_events(Kind.VIEW, 100))
    assert [entry.event.event_id for entry in displaced] == [f"view-{n}" for n in range(94)]
    assert queue.snapshot().dropped == {"queue_full": 94}
    assert queue.snapshot().pending == 2 * _BOUND


def test_what_travels_is_not_displaced(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, _BOUND))
    travelling = queue.take(_BATCHES, 0.0, 0, _ALL)
    displaced = queue.put(_events(Kind.VIEW, 2, start=10))
    assert [entry.event.event_id for entry in displaced] == ["view-4", "view-5"]
    assert travelling is not None
    assert queue.settle(travelling, Settlement())
    assert queue.snapshot().delivered == 4


def test_with_everything_travelling_the_newcomer_is_dropped(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, _BOUND))
    while queue.take(_SINGLY, 0.0, 0, _ALL):
        pass
    assert [entry.event.event_id for entry in queue.put(_events(Kind.VIEW, 1, 99))] == ["view-99"]


def test_a_revoked_lease_settles_nothing(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 2))
    batch = queue.take(_SINGLY, 0.0, 0, _ALL)
    assert batch is not None
    queue.abandon(DropReason.SHUTDOWN)
    assert not queue.settle(batch, Settlement())
    assert queue.snapshot().delivered == 0
    assert queue.snapshot().dropped == {"shutdown": 2}


def test_a_lease_ends_once(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 1))
    batch = queue.take(_SINGLY, 0.0, 0, _ALL)
    assert batch is not None
    assert queue.settle(batch, Settlement())
    assert not queue.settle(batch, Settlement())
    assert queue.snapshot().delivered == 1


def test_what_is_parked_waits_until_it_is_due(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 1))
    batch = queue.take(_SINGLY, 0.0, 0, _ALL)
    assert batch is not None
    queue.settle(batch, Settlement(again=(replace(batch, due=7.0),)))
    assert queue.ready_at(_SINGLY, _ALL) == 7.0
    assert queue.take(_SINGLY, 6.9, 0, _ALL) is None
    assert _ids(queue.take(_SINGLY, 7.0, 0, _ALL)) == ["view-0"]


def test_release_makes_what_is_parked_due(queue: MemoryQueue) -> None:
    queue.put(_events(Kind.VIEW, 1))
    batch = queue.take(_SINGLY, 0.0, 0, _ALL)
    assert batch is not None
    queue.settle(batch, Settlement(again=(replace(batch, due=7.0),)))
    queue.release_parked()
    assert _ids(queue.take(_SINGLY, 0.0, 0, _ALL)) == ["view-0"]


def test_a_batch_keeps_below_the_limit_in_bytes(queue: MemoryQueue) -> None:
    queue.put([EncodedEvent(Kind.VIEW, str(size), b"x" * size) for size in (40, 40, 40, 500)])
    plan = replace(_BATCHES, max_bytes=100)
    taken = [_ids(queue.take(plan, 100.0, 0, _ALL)) for _ in range(3)]
    assert taken == [["40", "40"], ["40"], ["500"]]  # one event always goes, if only to be refused


def test_many_threads_lose_and_invent_nothing(clock: _Clock) -> None:
    queue = MemoryQueue(max_queue_size=50, linger=0.0, clock=clock)
    delivered: list[str] = []
    stop = threading.Event()

    def put(name: int) -> None:
        for n in range(500):
            queue.put([EncodedEvent(Kind.VIEW, f"{name}-{n}", b"{}")])

    def send() -> None:
        while not stop.is_set() or queue.snapshot().pending:
            batch = queue.take(_BATCHES, 1.0, 0, _ALL)
            if batch is not None and queue.settle(batch, Settlement()):
                delivered.extend(_ids(batch))

    putters = [threading.Thread(target=put, args=(name,)) for name in range(4)]
    senders = [threading.Thread(target=send) for _ in range(3)]
    for thread in (*putters, *senders):
        thread.start()
    for thread in putters:
        thread.join(30)
    stop.set()
    for thread in senders:
        thread.join(30)
    ledger = queue.snapshot()
    assert ledger.accepted == 2_000 == ledger.delivered + sum(ledger.dropped.values())
    assert len(delivered) == len(set(delivered)) == ledger.delivered
