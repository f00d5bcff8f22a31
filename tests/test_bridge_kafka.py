"""A bridge's offsets say how far it is, and never more: what is committed has arrived."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import QUICK_GROUP, Broker, broker
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from conftest import QuickClient
from driving import calls, duplicates, eventually
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext
from otlp_making import otlp
from span_making import make_span

from otel_analytics.bridge.intake import Intake, Signal
from otel_analytics.bridge.kafka import KafkaReader, KafkaReaderError, Offsets, PoisonFiles
from otel_analytics.bridge.otlp import Encoding
from otel_analytics.errors import ConfigError
from otel_analytics.testing import Accept, FaultyCollector, Unavailable

TOPIC = "otlp_traces"
GROUP = "otel-analytics"


class Progress:
    """A receipt whose events are as far as the test says."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def is_accepted(self) -> bool:
        return self.steps <= 1

    def is_settled(self) -> bool:
        return self.steps <= 0


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(0, 100)), max_size=30),
    st.integers(1, 4),
)
def test_a_position_is_committed_only_when_it_and_all_before_it_are_settled(
    messages: list[tuple[int, int, int]], every: int
) -> None:
    """Whatever the gaps between offsets, the order in which receipts settle, and when they are asked."""
    offsets = Offsets()
    added: list[tuple[int, Progress]] = []
    offset = 0
    last = 0

    def look() -> None:
        nonlocal last
        offsets.settle()
        position = offsets.to_commit()
        settled = last if position is None else position
        assert settled >= last
        last = settled
        assert all(each.is_settled() for at, each in added if at < settled)
        unsettled = [at for at, each in added if not each.is_settled()]
        assert settled == (
            max((at + 1 for at, _ in added if at < min(unsettled, default=1 << 60)), default=0)
        )
        assert len(offsets) == sum(at >= settled for at, _ in added)

    for number, (gap, steps, size) in enumerate(messages):
        offset += gap
        added.append((offset, Progress(steps)))
        offsets.add(offset, size, added[-1][1])
        if number % every == 0:
            added[number // 2][1].steps -= 1
            look()
    for _, receipt in reversed(added):
        receipt.steps = 0
        look()
    assert offsets.bytes == len(offsets) == 0
    assert offsets.to_commit() is None
    if added:
        offsets.not_committed()
        assert offsets.to_commit() == added[-1][0] + 1


def test_receipts_are_asked_for_acceptance_while_an_earlier_one_is_on_its_way() -> None:
    """One asked late would take itself to be behind all that has come since."""
    asked: list[str] = []

    class Asked(Progress):
        def is_settled(self) -> bool:
            asked.append("second")
            return True

    offsets = Offsets()
    offsets.add(1, 0, Progress(1))
    offsets.add(2, 0, Asked(0))
    offsets.settle()
    assert asked == ["second"]
    assert offsets.to_commit() is None


def test_poison_is_kept_up_to_the_bounds_those_of_earlier_runs_included(tmp_path: Path) -> None:
    directory = tmp_path / "poison"
    files = PoisonFiles(directory, most_files=3, most_bytes=8)
    assert files.keep("t-0-1", b"four").startswith("kept")
    assert files.keep("t-0-1", b"four").startswith("kept"), "read again, kept once"
    again = PoisonFiles(directory, most_files=3, most_bytes=8)
    assert again.keep("t-0-2", b"12345").startswith("not kept"), "five bytes where four are left"
    assert again.keep("t-0-3", b"").startswith("kept")
    assert again.keep("t-0-4", b"1234").startswith("kept")
    assert again.keep("t-0-5", b"").startswith("not kept")
    kept = {each.name: each.read_bytes() for each in directory.iterdir()}
    assert kept == {"t-0-1": b"four", "t-0-3": b"", "t-0-4": b"1234"}
    assert {each.stat().st_mode & 0o777 for each in (directory, *directory.iterdir())} == {0o700, 0o600}


def test_a_directory_that_cannot_be_used_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot use"):
        PoisonFiles(tmp_path / "file")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"no.such.setting": "1"}, "no.such.setting"),
        ({"enable.auto.commit": "true"}, "enable.auto.commit is false and cannot be set"),
        ({"session.timeout.ms": "soon"}, "session.timeout.ms"),
        ({"group.id": ""}, "group.id"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    config: dict[str, str], said: str, quick_client: QuickClient
) -> None:
    intake = Intake(quick_client("http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match=said):
        KafkaReader(
            intake, {TOPIC: Signal.TRACES}, {"bootstrap.servers": "127.0.0.1:9", "group.id": "g", **config}
        )


# With a broker


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker(tmp_path_factory.mktemp("broker")) as started:
        yield started


class Reader:
    """A reader in a thread of its own, as a bridge has it in its main thread."""

    def __init__(
        self,
        client: Any,
        broker: Broker,
        topic: str,
        settings: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.client = client
        self.failure: Exception | None = None
        self.stop = threading.Event()
        config = {"bootstrap.servers": broker.bootstrap, "group.id": f"{GROUP}-{topic}", **QUICK_GROUP}
        config |= settings or {}
        self.reader = KafkaReader(Intake(client), {topic: Signal.TRACES}, config, **options)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.reader.run(self.stop)
        except KafkaReaderError as error:
            self.failure = error

    def end(self) -> float:
        began = time.monotonic()
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.monotonic() - began


@contextmanager
def reading(client: Any, broker: Broker, topic: str, **options: Any) -> Iterator[Reader]:
    reader = Reader(client, broker, topic, **options)
    try:
        yield reader
    finally:
        reader.end()


def committed(broker: Broker, topic: str, partitions: int = 1) -> list[int]:
    """Return each partition's committed position, as the group's next member would find it."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    asked = ConsumerGroupTopicPartitions(
        f"{GROUP}-{topic}", [TopicPartition(topic, each) for each in range(partitions)]
    )
    (answer,) = admin.list_consumer_group_offsets([asked]).values()
    return [each.offset for each in answer.result(10).topic_partitions]


def call(number: int, encoding: Encoding = Encoding.PROTO) -> bytes:
    route = {"http.request.method": "GET", "http.route": f"/call/{number}", "http.response.status_code": 200}
    return otlp([make_span(route, context=SpanContext(number + 1, 1, is_remote=False))], encoding)


def contents(numbers: range) -> set[str]:
    return {f"GET:/call/{number}" for number in numbers}


def test_messages_are_read_once_poison_is_passed_over_and_all_is_committed(
    running: Broker, quick_client: QuickClient, tmp_path: Path
) -> None:
    topic = "once"
    running.create(topic, 2)
    poison: list[tuple[int, bytes | None]] = [
        (0, b""),
        (0, None),
        (0, b"\xff\xff"),
        (0, b"{"),
        (0, call(0)[:-3]),
    ]
    running.send(topic, poison)
    both = (Encoding.PROTO, Encoding.JSON)
    running.send(topic, [(each % 2, call(each, both[each // 2 % 2])) for each in range(20)])
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        with reading(client, running, topic, poison=PoisonFiles(tmp_path / "poison")) as reader:
            assert eventually(lambda: calls(collector) == contents(range(20)), 15)
        assert committed(running, topic, 2) == [15, 10]
        assert duplicates(collector) == 0
        assert client.stats().noted["poison_messages"] == 5
        assert reader.reader.poisoned == {"empty": 1, "tombstone": 1, "no OTLP": 3}
        kept = {each.name: each.read_bytes() for each in (tmp_path / "poison").iterdir()}
        assert kept == {f"{topic}-0-{at}": value or b"" for at, (_, value) in enumerate(poison)}


def test_what_there_is_no_room_for_stays_in_kafka_until_there_is(
    running: Broker, quick_client: QuickClient
) -> None:
    """The client's queue holds three events; a collector that is down for longer than the patience is."""
    topic = "full"
    running.create(topic, 1)
    running.send(topic, [(0, call(each)) for each in range(40)])
    with FaultyCollector(then=Unavailable()) as collector:
        client = quick_client(collector.url, max_queue_size=3)
        with reading(client, running, topic, most_messages=10) as reader:
            assert eventually(lambda: bool(reader.reader._paused), 15)
            assert client.stats().accepted <= 3
            collector.behave(then=Accept())
            assert eventually(lambda: calls(collector) == contents(range(40)), 15)
        assert committed(running, topic) == [40]
        assert not client.stats().dropped
        assert duplicates(collector) == 0


def test_what_was_not_delivered_is_read_again_by_another_with_the_same_ids(
    running: Broker, quick_client: QuickClient
) -> None:
    topic = "again"
    running.create(topic, 1)
    running.send(topic, [(0, call(each)) for each in range(5)])
    with FaultyCollector(then=Unavailable()) as down, FaultyCollector() as up:
        client = quick_client(down.url, shutdown_timeout_millis=300)
        with reading(client, running, topic) as reader:
            assert eventually(lambda: client.stats().accepted == 5, 15)
            assert reader.end() < 2.5
        assert committed(running, topic) == [-1001], "none"
        with reading(quick_client(up.url), running, topic):
            assert eventually(lambda: calls(up) == contents(range(5)), 15)
        assert committed(running, topic) == [5]
        seen = {body["metadata"]["eventId"] for body in up.bodies("view")}
        assert len(seen) == 5


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_two_bridges_divide_a_topic_and_one_takes_over_when_the_other_leaves(
    strategy: str, running: Broker, quick_client: QuickClient
) -> None:
    topic, settings = f"divided-{strategy}", {"partition.assignment.strategy": strategy}
    running.create(topic, 4)
    with FaultyCollector() as collector:
        clients = [quick_client(collector.url) for _ in range(2)]
        with (
            reading(clients[0], running, topic, settings=settings) as first,
            reading(clients[1], running, topic, settings=settings),
        ):
            sent = 0
            while not all(each.stats().delivered for each in clients):
                running.send(topic, [(each % 4, call(each)) for each in range(sent, sent + 20)])
                sent += 20
                assert sent < 2_000
                assert eventually(lambda: len(calls(collector)) == sent, 15)  # noqa: B023 - at once
            first.end()
            running.send(topic, [(each % 4, call(each)) for each in range(sent, sent + 20)])
            assert eventually(lambda: calls(collector) == contents(range(sent + 20)), 15)
        assert sum(committed(running, topic, 4)) == sent + 20
        assert duplicates(collector) == 0, "each left what it had read settled and committed"


def test_a_bridge_ends_in_time_where_the_broker_is_gone(tmp_path: Path, quick_client: QuickClient) -> None:
    with broker(tmp_path) as gone, FaultyCollector() as collector:
        gone.create(TOPIC, 1)
        gone.send(TOPIC, [(0, call(0))])
        client = quick_client(collector.url, shutdown_timeout_millis=500)
        with reading(client, gone, TOPIC) as reader:
            assert eventually(lambda: len(calls(collector)) == 1, 15)
            gone.kill()
            assert reader.end() < 3
            assert reader.failure is None
