"""What a process holds of clients: at forks, at its end, and when a client is dropped or closed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from driving import calls, eventually, track
from serving import environment
from spooling import run

from otel_analytics import AnalyticsClient, ConfigError, process
from otel_analytics.config import Config
from otel_analytics.delivery.delivery import Delivery
from otel_analytics.testing import FaultyCollector, Hang, Unavailable

Client = Callable[..., AnalyticsClient]
Reference = Callable[[], object]


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _threads_of_other_tests() -> None:
    _others.clear()
    _others.update(threading.enumerate())


def our_threads() -> list[threading.Thread]:
    """Return the threads that this test has made us start."""
    started = set(threading.enumerate()) - _others
    return [thread for thread in started if thread.name.startswith("otel-analytics")]


def test_forks_in_a_tight_loop_inherit_no_lock_of_the_exporter() -> None:
    """Threads export while another forks; each child exports, and none hangs."""
    program = """
import os, sys, threading, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from otel_analytics import AnalyticsSpanExporter

provider = TracerProvider()
exporter = AnalyticsSpanExporter(app_name="shop", max_endpoints=3, max_queue_size=100)
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("t")

def request(path):
    attributes = {"http.request.method": "GET", "url.path": path, "http.response.status_code": 200}
    tracer.start_span("GET", kind=SpanKind.SERVER, attributes=attributes).end()

over = threading.Event()
def export():
    number = 0
    while not over.is_set():
        request(f"/folded/{number}-x")
        number += 1

threads = [threading.Thread(target=export, daemon=True) for _ in range(3)]
for thread in threads: thread.start()
hung = 0
for _ in range(60):
    pid = os.fork()
    if not pid:
        request("/child")
        os._exit(0)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(pid, os.WNOHANG)[0]) == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    if not ended:
        hung += 1
        os.kill(pid, 9)
        os.waitpid(pid, 0)
over.set()
print(hung)
os._exit(0)
"""
    with FaultyCollector(batch="max=100") as collector:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(collector.url),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.stdout == "0\n", done.stderr


def test_a_client_closed_in_the_parent_stays_closed_in_a_child() -> None:
    program = """
import warnings
client = spooled(url, path)
track(client, "parent", 1)
client.shutdown()
pid = os.fork()
if not pid:
    track(client, "child", 5)
    say(client.flush(1_000), client.stats().dropped)
    os._exit(0)
os.waitpid(pid, 0)
"""
    with FaultyCollector() as collector:
        assert run(program, collector.url, None) == (0, "True {'after_shutdown': 5}\n")
        assert calls(collector) == {"GET:/parent/0"}


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_clients_dropped_without_shutdown_deliver_and_leave_nothing_behind(
    tmp_path: Path, *, spool: bool
) -> None:
    path = tmp_path / "spool"
    with FaultyCollector() as collector:
        expected, clients, deliveries = set[str](), list[Reference](), list[Reference]()
        before = open_files(path)
        for _ in range(50):
            client = AnalyticsClient(
                collector.url, spool_path=str(path) if spool else None, flush_interval_millis=10
            )
            expected |= track(client, 2)
            clients.append(weakref.ref(client))
            deliveries.append(weakref.ref(client._delivery()))
        del client

        def all_gone() -> bool:
            gc.collect()
            return not any(reference() for reference in (*clients, *deliveries))

        assert eventually(all_gone, 10)
        assert eventually(lambda: not our_threads(), 10)
        assert calls(collector) == expected
        assert open_files(path) == before
        assert not spool or list(path.iterdir()) == []


def open_files(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        return []
    links = [str(link.readlink()) for link in descriptors.iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith(str(folder))]


def test_a_client_dropped_with_events_waiting_still_delivers_at_exit() -> None:
    program = """
def work():
    track(spooled(url, path, flush_interval_millis=60_000, shutdown_timeout_millis=5_000), "dropped", 3)
work()
"""
    with FaultyCollector() as collector:
        assert run(program, collector.url, None) == (0, "")
        assert len(calls(collector)) == 3


def test_the_process_has_one_hook_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))
    monkeypatch.setattr("atexit.register", registered.append)
    with FaultyCollector() as collector:
        clients = [AnalyticsClient(collector.url) for _ in range(5)]
        for client in clients:
            track(client, 1)
        ours = {client._delivery() for client in clients}
        assert ours <= set(process.residents(Delivery))
        assert [hook for hook in registered if "otel_analytics" in str(hook)] == []
        for client in clients:
            assert client.shutdown()


def test_the_thread_of_on_drop_ends_with_the_client(quick_client: Client) -> None:
    heard: list[str] = []

    def on_drop(reason: str, _: Sequence[object]) -> None:
        heard.append(reason)

    with FaultyCollector() as collector:
        client = quick_client(collector.url, on_drop=on_drop, before_send=lambda _: None)
        track(client, 3)
        assert eventually(lambda: heard == ["before_send"] * len(heard) != [])
        client.shutdown()
        assert eventually(lambda: not our_threads())
        track(client, 1)
        assert eventually(lambda: heard[-1] in {"before_send", "after_shutdown"})
        assert eventually(lambda: not our_threads()), "a late loss ends its thread too"


def test_a_second_shutdown_waits_for_the_first(quick_client: Client) -> None:
    with FaultyCollector(then=Hang()) as collector:
        client = quick_client(collector.url, timeout_millis=5_000)
        track(client, 3)
        ended: list[tuple[bool, float]] = []

        def shut_down() -> None:
            ended.append((client.shutdown(600), time.monotonic()))

        started = time.monotonic()
        threads = [threading.Thread(target=shut_down) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert [result for result, _ in ended] == [False] * 4
        assert min(at for _, at in ended) - started >= 0.5


def test_a_client_takes_a_config_or_options_not_both() -> None:
    config = Config.resolve(endpoint="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="endpoint, nonsense"):
        AnalyticsClient("http://a", config=config, nonsense=1)  # type: ignore[call-arg]
    AnalyticsClient(config=config).shutdown()


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_a_child_of_multiprocessing_delivers_at_its_end(spool: bool, tmp_path: Path) -> None:
    program = """
import multiprocessing
def work():
    track(spooled(url, path, flush_interval_millis=60_000, shutdown_timeout_millis=5_000), "child", 3)
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(20)
say(child.exitcode)
"""
    with FaultyCollector(Unavailable()) as collector:
        assert run(program, collector.url, tmp_path / "spool" if spool else None) == (0, "0\n")
        assert calls(collector) == {f"GET:/child/{number}" for number in range(3)}


def test_an_interrupt_does_not_end_the_main_thread() -> None:
    """`Thread.is_alive` ends it where a signal's exception meets it: so nothing of ours may ask it."""
    program = """
import signal
class Interrupt(BaseException): pass
def interrupt(*_): raise Interrupt
signal.signal(signal.SIGVTALRM, interrupt)
client = spooled(url, path)
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)
        while True:
            client.track_api_call("/", "GET", 200)
    except Interrupt:
        pass
say(threading.main_thread().is_alive())
os._exit(0)
"""
    with FaultyCollector(batch="max=500") as collector:
        assert run(program, collector.url, None) == (0, "True\n")
