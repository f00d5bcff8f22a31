"""The demo, run for real: its own collector, the instrumented shop as a process, HTTP between them."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from rich.console import Console

from otel_analytics.collector import DevCollector
from otel_analytics.demo import run, shop_process
from otel_analytics.demo.shop_process import Shop
from otel_analytics.demo.traffic import Sent, Visit, plan

DEMO = [sys.executable, "-m", "otel_analytics.cli", "demo"]
MANY = "100000"
ENDPOINTS = [
    "GET:/products ",
    "GET:/products/{product_id}",
    "GET:/reports/daily",
    "GET:{unmatched}",
    "POST:/messages",
    "POST:/orders",
    "POST:/streams/{name}/end",
    "POST:/streams/{name}/start",
]


def test_the_demo_shows_what_it_sent() -> None:
    result = subprocess.run(
        [*DEMO, "--requests", "60"], capture_output=True, text=True, check=False, timeout=90
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "60/60" in result.stdout
    for text in (*ENDPOINTS, "comment", "purchase", "subscribe"):
        assert text in result.stdout
    assert re.search(r"views +│ +60 │ +60 │ +yes", result.stdout)
    assert result.stdout.endswith("Everything that was sent was received, once each.\n")
    assert result.stderr == ""


class Running:
    """A demo's process, and the lines it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""

    def read_until(self, pattern: str) -> str:
        assert self.process.stdout is not None
        while not (found := re.search(pattern, self.output)):
            line = self.process.stdout.readline()
            assert line, self.output
            self.output += line
        return found[1]


@contextmanager
def demo(*arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [*DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.terminate()
            process.wait(30)


def is_listening(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


def test_keep_leaves_both_running_until_ctrl_c() -> None:
    with demo("--keep", "--requests", "20") as running:
        shop = running.read_until(r"Try the shop: (http://127\.0\.0\.1:\d+)/docs")
        collector = running.read_until(r"See what arrives: (\S+)\n")
        running.read_until("(Ctrl-C stops both)")
        assert httpx.get(shop + "/products").status_code == 200
        assert "POST:/orders" in httpx.get(collector).text
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0
    assert not is_listening(shop)
    assert not is_listening(collector)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(number: signal.Signals) -> None:
    with demo("--requests", MANY) as running:
        collector = running.read_until(r"Collector: (\S+)\n")
        shop = running.read_until(r"Shop: (\S+),")
        assert is_listening(shop)
        running.process.send_signal(number)
        assert running.process.wait(30) == 130
    assert not is_listening(shop)
    assert not is_listening(collector)


def test_a_shop_that_does_not_start_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop_process, "_SHOP", ("-c", "raise SystemExit('closed [today]')"))
    output = io.StringIO()
    assert run.run_demo(requests=1, keep=False, console=Console(file=output)) is False
    said = output.getvalue().partition("the shop did not start. It said:\n")[2].splitlines()
    assert "closed [today]" in said
    assert len(said) <= 3, "beside the start of its exporter nothing else"


def test_what_is_missing_or_too_much_is_explained() -> None:
    purchase = {"userId": "u", "metricType": "purchase", "targetId": "t", "targetType": "content"}
    output = io.StringIO()
    with DevCollector() as collector, tempfile.NamedTemporaryFile() as log:
        log.write(b"the shop's sorrows")
        log.flush()
        httpx.post(collector.url + "/analytics/track/engagement", json=[purchase, purchase, {}])
        sent = Sent(requests=3, business_events={"payment_processed": 1, "message_sent": 1})
        balance = run._balance(sent, collector)
        console = Console(file=output, width=200)
        assert run._print_report(console, collector, balance, Shop("http://127.0.0.1", log)) is False
    for text in (
        "3 views missing.",
        "1 engagements, purchase too many.",
        "1 engagements, comment missing.",
        "rejected=1",
        "the shop's sorrows",
    ):
        assert text in output.getvalue()


def test_traffic_is_the_same_each_time_and_has_every_kind() -> None:
    assert plan(50) == plan(50)
    assert len(plan(3)) == 3
    visits = plan(9)  # as many as there are kinds; two pairs of them look alike
    assert len({(visit.method, visit.status, visit.events) for visit in visits}) == 7
    assert {visit.status for visit in visits} == {200, 201, 404, 500}
    assert all(isinstance(visit, Visit) for visit in visits)
