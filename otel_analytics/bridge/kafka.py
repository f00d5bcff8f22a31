"""Kafka in: what the OpenTelemetry Collector's kafka exporter writes, read by workers of a consumer group.

A bridge remembers nothing: how far it is, the group's committed offsets say. An offset is committed only when
the events of its message, and of all before it in its partition, are delivered or dropped with a reason. So
whatever ends a bridge, the next one reads again what was not finished, and makes the same events with the
same ids: at least once sent, once counted.

One thread owns the consumer and its intake: everything here, librdkafka's callbacks included, runs in
`KafkaReader.run`.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from otel_analytics.bridge.intake import Intake, NoRoomError, Signal
from otel_analytics.bridge.otlp import Encoding, OtlpError
from otel_analytics.delivery.logs import RateLimitedLog
from otel_analytics.errors import AnalyticsError, ConfigError

_DEFAULTS: Final[Mapping[str, str | int]] = {
    "auto.offset.reset": "earliest",  # a new group begins with what the topic still keeps
    "fetch.message.max.bytes": 8 << 20,  # a Collector's batch; some brokers send nothing that is larger
    "queued.max.messages.kbytes": 32 << 10,  # read ahead of what is taken
    "log_level": 2,  # librdkafka's own lines go to stderr; its errors come to us, who say them once a minute
}
_OURS: Final[Mapping[str, str | int | bool]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
}
"""What the promise rests on, so nobody may set it."""
_NEEDED: Final = ("bootstrap.servers", "group.id")
_ALIASES: Final = {"max.partition.fetch.bytes": "fetch.message.max.bytes"}
"""Second names of what has a default here; librdkafka takes the last of the two that are set."""

_POLL_SECONDS: Final = 0.1
_SETTLE_SECONDS: Final = 0.02
_COMMIT_SECONDS: Final = 1.0
_LAST_COMMIT_SECONDS: Final = 1.0
_BEFORE_PAUSE_SECONDS: Final = 1.0
"""How long it waits for room without asking Kafka. Pausing throws away what was read ahead, so a short wait
is cheaper; a longer one would keep the group from rebalancing, and in the end have it evict us."""
_MOST_MESSAGES: Final = 20_000
_MOST_BYTES: Final = 64_000_000
_JSON_BEGIN: Final = b"{"
"""No message of protobuf begins with it: it would be the end of a group, a kind that OTLP has none of."""


class KafkaReaderError(AnalyticsError):
    """The consumer cannot go on, and says why."""


class _Receipt(Protocol):
    def is_accepted(self) -> bool: ...

    def is_settled(self) -> bool: ...


class _Skipped:
    """The receipt of a message that gave nothing."""

    def is_accepted(self) -> bool:
        return True

    def is_settled(self) -> bool:
        return True


class _Outstanding(NamedTuple):
    offset: int
    size: int
    receipt: _Receipt


class Offsets:
    """What one partition's messages wait for, in their order, and what may be committed; pure.

    Offsets may have gaps (compaction, transactions), but never go back.
    """

    def __init__(self) -> None:
        self._taken: deque[_Outstanding] = deque()  # events of the first may still wait in the join
        self._accepted: deque[_Outstanding] = deque()
        self._settled_until: int | None = None
        self._committed: int | None = None
        self.bytes = 0

    def add(self, offset: int, size: int, receipt: _Receipt) -> None:
        """Take note of the partition's next message.

        Args:
            offset: Its offset.
            size: Its bytes.
            receipt: Of its events.
        """
        self._taken.append(_Outstanding(offset, size, receipt))
        self.bytes += size

    def __len__(self) -> int:
        """How many messages are outstanding."""
        return len(self._taken) + len(self._accepted)

    def settle(self) -> None:
        """Ask the receipts, the oldest first, and only until one is not ready.

        They are asked for acceptance before any is asked for more: a receipt asked late takes itself to be
        behind everything that has come meanwhile.
        """
        while self._taken and self._taken[0].receipt.is_accepted():
            accepted = self._taken.popleft()
            accepted.receipt.is_settled()
            self._accepted.append(accepted)
        while self._accepted and self._accepted[0].receipt.is_settled():
            settled = self._accepted.popleft()
            self._settled_until = settled.offset + 1
            self.bytes -= settled.size

    def to_commit(self) -> int | None:
        """Return the position up to which all is settled, once; `None` where it is not new."""
        if self._settled_until == self._committed:
            return None
        self._committed = self._settled_until
        return self._committed

    def not_committed(self) -> None:
        """Take back what `to_commit` returned, so that it comes again."""
        self._committed = None


class PoisonFiles:
    """A directory of the messages that nobody can read, a file each, bounded in number and bytes.

    Args:
        directory: Made where it is missing, for its owner only: the messages are other people's data.
        most_files: How many are kept, those of earlier runs included.
        most_bytes: The same, in bytes.
    """

    def __init__(self, directory: Path, most_files: int = 1_000, most_bytes: int = 100_000_000) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sizes = [each.stat().st_size for each in directory.iterdir()]
        except OSError as error:
            raise ConfigError(f"kafka_poison: cannot use {directory}: {error.strerror}") from None
        self._files_left = most_files - len(sizes)
        self._bytes_left = most_bytes - sum(sizes)

    def keep(self, name: str, value: bytes) -> str:
        """Write one, and return what became of it.

        Args:
            name: Of the file: topic, partition and offset.
            value: The message.
        """
        path = self._directory / name
        if path.exists():  # read before, by a bridge that ended before it committed
            return f"kept in {path}"
        if self._files_left < 1 or self._bytes_left < len(value):
            return f"not kept: {self._directory} is full"
        try:
            _write_whole(path, value)
        except OSError as error:
            return f"not kept: {error.strerror}"
        self._files_left -= 1
        self._bytes_left -= len(value)
        return f"kept in {path}"


def _write_whole(path: Path, value: bytes) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(value)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


_Partition = tuple[str, int]


class KafkaReader:
    """Reads topics of OTLP into an intake until it is stopped; see `run`.

    Args:
        intake: Takes the messages; it belongs to the thread that calls `run`.
        topics: What each topic holds, e.g. ``{"otlp_traces": Signal.TRACES}``.
        config: Settings of librdkafka, ``bootstrap.servers`` and ``group.id`` among them.
        encoding: How the messages are written; `None` tells by each message.
        poison: Where messages are kept that nobody can read; `None`: they are only counted and logged.
        most_messages: How many may be outstanding, unsettled, before reading pauses.
        most_bytes: The same, in bytes; a message is never too large on its own.

    Raises:
        ConfigError: librdkafka has no such setting, or a setting is not the user's to choose.
    """

    def __init__(
        self,
        intake: Intake,
        topics: Mapping[str, Signal],
        config: Mapping[str, str | int],
        *,
        encoding: Encoding | None = None,
        poison: PoisonFiles | None = None,
        most_messages: int = _MOST_MESSAGES,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._intake = intake
        self._topics = dict(topics)
        self._encoding = encoding
        self._poison = poison
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._end_seconds = intake.client.config.shutdown_timeout_millis / 1000
        self._log = RateLimitedLog(time.monotonic)
        self._stop = Event()
        self._fatal: KafkaError | None = None
        self._offsets: dict[_Partition, Offsets] = {}
        self._held: deque[Message] = deque()  # read, and not taken for want of room
        self._messages_left = most_messages
        self._bytes_left = most_bytes
        self._had_room_at = 0.0
        self._paused: set[_Partition] = set()
        self._settled_at = self._committed_at = 0.0
        self._commits_under_way = 0
        self.poisoned: Counter[str] = Counter()
        """Messages skipped, by reason."""
        callbacks = {"error_cb": self._failed, "on_commit": self._committed}
        self._consumer = _consumer({**_checked(config), **callbacks})

    def run(self, stop: Event) -> None:
        """Read until told to stop; then wait for what was read, commit, and leave the group.

        That end takes at most the client's ``shutdown_timeout_millis``. What is not settled by then is not
        committed, and another bridge reads it again. The client is the caller's to shut down, afterwards.

        Args:
            stop: Set by another thread, or by a signal's handler; by the reader where it ends by itself.

        Raises:
            KafkaReaderError: The consumer cannot go on.
        """
        self._stop = stop
        try:
            with _named():
                self._consumer.subscribe(
                    list(self._topics),
                    on_assign=self._assigned,
                    on_revoke=self._revoked,
                    on_lost=self._lost,
                )
                while not stop.is_set():
                    self._step()
        finally:
            self._end()

    def _step(self) -> None:
        self._settle()
        if self._has_room():
            self._resume()
            self._read(_POLL_SECONDS)
        else:
            self._wait_for_room()

    def _read(self, timeout: float) -> None:
        """Read a message and have it taken; whatever else Kafka has to say goes to the callbacks."""
        message = self._consumer.poll(timeout)
        if self._fatal is not None:
            raise KafkaReaderError(f"Kafka: {self._fatal.name()}: {self._fatal.str()}")
        if message is None:
            return
        error = message.error()
        if error is not None:
            self._failed(error)
        elif _partition(message) in self._offsets:  # or else whoever has its partition now reads it
            self._held.append(message)
            self._take_held()

    def _failed(self, error: KafkaError) -> None:
        """Log an error once a minute for each kind; librdkafka itself tries to get over it."""
        if error.fatal():
            self._fatal = error
        self._log.tell(f"kafka {error.name()}", 1, f"Kafka: {error.str()}; it is tried again")

    # Messages

    def _take_held(self) -> None:
        while self._held and self._is_taken(self._held[0]):
            self._held.popleft()

    def _is_taken(self, message: Message) -> bool:
        value = message.value() or b""
        try:
            receipt = self._receipt(message, value)
        except NoRoomError:
            return False
        self._offsets[_partition(message)].add(_offset(message), len(value), receipt)
        self._messages_left -= 1
        self._bytes_left -= len(value)
        return True

    def _receipt(self, message: Message, value: bytes) -> _Receipt:
        """Return a message's receipt; that of one which nobody can read is settled at once."""
        if not value:
            return self._skipped(message, value, "tombstone" if message.value() is None else "empty")
        try:
            return self._intake.take(value, self._topics[_partition(message)[0]], self._encoding_of(value))
        except (NoRoomError, ConfigError):
            raise
        except OtlpError as error:
            return self._skipped(message, value, "no OTLP", str(error))
        except Exception as error:  # noqa: BLE001 - one message must not end every bridge that reads it
            return self._skipped(message, value, "failed", type(error).__name__)

    def _encoding_of(self, value: bytes) -> Encoding:
        if self._encoding is not None:
            return self._encoding
        return Encoding.JSON if value.lstrip().startswith(_JSON_BEGIN) else Encoding.PROTO

    def _skipped(self, message: Message, value: bytes, reason: str, why: str = "") -> _Receipt:
        (topic, partition), offset = _partition(message), _offset(message)
        fate = self._poison.keep(f"{topic}-{partition}-{offset}", value) if self._poison else ""
        said = ", ".join(filter(None, (reason, why, fate)))
        self.poisoned[reason] += 1
        text = f"skipped a message of Kafka: topic {topic} partition {partition} offset {offset}: {said}"
        self._intake.client.note("poison_messages", 1, text)
        return _Skipped()

    # Backpressure

    def _has_room(self) -> bool:
        return self._messages_left > 0 and self._bytes_left > 0 and not self._held

    def _wait_for_room(self) -> None:
        """Wait a moment; after a while without room, ask Kafka for all but messages."""
        if time.monotonic() - self._had_room_at < _BEFORE_PAUSE_SECONDS:
            self._stop.wait(_SETTLE_SECONDS)
            return
        reading = [each for each in self._offsets if each not in self._paused]
        if reading:
            self._consumer.pause([TopicPartition(*each) for each in reading])
            self._paused.update(reading)
        self._read(_SETTLE_SECONDS)  # one that was on its way is held

    def _resume(self) -> None:
        self._had_room_at = time.monotonic()
        if self._paused:
            self._consumer.resume([TopicPartition(*each) for each in self._paused])
            self._paused.clear()

    # Offsets

    def _settle(self) -> None:
        """Ask the receipts, which also lets events go that have waited long enough; commit now and then."""
        now = time.monotonic()
        if now - self._settled_at < _SETTLE_SECONDS:
            return
        self._settled_at = now
        self._ask(self._offsets)
        if now - self._committed_at >= _COMMIT_SECONDS:
            self._committed_at = now
            self._commit(self._offsets)
        self._take_held()

    def _ask(self, partitions: Iterable[_Partition]) -> bool:
        """Ask the receipts of some partitions; return whether any is outstanding."""
        asked = [self._offsets[each] for each in partitions if each in self._offsets]
        for offsets in asked:
            offsets.settle()
        self._messages_left = self._most_messages - sum(map(len, self._offsets.values()))
        self._bytes_left = self._most_bytes - sum(each.bytes for each in self._offsets.values())
        return any(asked)

    def _await_settled(self, partitions: Iterable[_Partition], is_over: Callable[[], bool]) -> None:
        while self._ask(partitions) and not is_over():
            time.sleep(_SETTLE_SECONDS / 2)

    def _commit(self, partitions: Iterable[_Partition], *, waiting: bool = False) -> None:
        """Commit what is settled; without waiting, `_committed` is told how that ended."""
        positions = {each: self._offsets[each].to_commit() for each in partitions if each in self._offsets}
        due = [TopicPartition(*each, at) for each, at in positions.items() if at is not None]
        if not due:
            return
        try:
            if waiting:
                self._consumer.commit(offsets=due, asynchronous=False)
            else:
                self._consumer.commit(offsets=due, asynchronous=True)
                self._commits_under_way += 1
        except KafkaException as error:
            self._failed(error.args[0])

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._commits_under_way -= 1
        for each in partitions:
            failure = error or each.error
            offsets = self._offsets.get((each.topic, each.partition))
            if failure is not None and offsets is not None:
                self._failed(failure)
                offsets.not_committed()

    # The group's changes

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._offsets[each.topic, each.partition] = Offsets()

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Wait a bounded time for what was read of them, so that the next need not do it again; commit."""
        gone = [(each.topic, each.partition) for each in partitions]
        began = time.monotonic()
        self._await_settled(
            gone, lambda: self._stop.is_set() or time.monotonic() - began >= self._end_seconds
        )
        self._commit(gone, waiting=True)
        self._forget(gone)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Forget what others may have by now: a commit would be refused."""
        self._forget([(each.topic, each.partition) for each in partitions])

    def _forget(self, partitions: Iterable[_Partition]) -> None:
        for each in partitions:
            self._offsets.pop(each, None)
            self._paused.discard(each)
        self._held = deque(each for each in self._held if _partition(each) in self._offsets)

    # The end

    def _end(self) -> None:
        """Wait for what was read, at last with what is known by then; commit, and leave the group."""
        self._stop.set()
        began = time.monotonic()
        self._held.clear()
        self._await_settled(self._offsets, lambda: time.monotonic() - began >= self._end_seconds / 2)
        self._intake.drain()
        self._await_settled(self._offsets, lambda: time.monotonic() - began >= self._end_seconds)
        self._commit(self._offsets)
        # A commit that is waited for would take as long as a broker is away.
        deadline = max(time.monotonic(), began + self._end_seconds) + _LAST_COMMIT_SECONDS
        while self._commits_under_way and time.monotonic() < deadline:
            self._consumer.poll(_SETTLE_SECONDS)
        self._offsets.clear()
        with _named():
            self._consumer.close()


def _checked(config: Mapping[str, str | int]) -> dict[str, str | int | bool]:
    """Return a whole configuration.

    Raises:
        ConfigError: A setting is not the user's to choose, or one is missing.
    """
    for name in config:
        if name in _OURS:
            raise ConfigError(
                f"kafka_config: {name} is {str(_OURS[name]).lower()} and cannot be set: offsets"
                " are committed when their events have arrived"
            )
    for name in _NEEDED:
        if not config.get(name):  # librdkafka ends the process where a group's name is empty
            raise ConfigError(f"kafka_config: {name} is missing")
    given = {_ALIASES.get(name, name): value for name, value in config.items()}
    return {**_DEFAULTS, **given, **_OURS}


def _consumer(config: Mapping[str, object]) -> Consumer:
    try:
        return Consumer(dict(config))
    except KafkaException as error:
        raise ConfigError(f"kafka_config: {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"kafka_config: {error}") from None


@contextmanager
def _named() -> Iterator[None]:
    """Have what the consumer raises said as ours."""
    try:
        yield
    except KafkaException as error:
        raise KafkaReaderError(f"Kafka: {error.args[0].name()}: {error.args[0].str()}") from None


def _offset(message: Message) -> int:
    return message.offset() or 0


def _partition(message: Message) -> _Partition:
    return message.topic() or "", message.partition() or 0
