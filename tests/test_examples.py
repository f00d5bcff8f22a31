"""Each example runs as its own text says, and what it promises arrives at a collector."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from serving import EXAMPLES, HOST, Served, environment, free_port, serving

from otel_analytics.collector import DevCollector
from otel_analytics.testing import FaultyCollector

PURCHASE = "user-7 purchase"
_WAIT_MILLIS = 20_000


@pytest.fixture
def collector() -> Iterator[DevCollector]:
    with DevCollector() as running:
        yield running


@contextmanager
def example(
    command: str, collector: DevCollector, tmp_path: Path, folder: str = "", env: Mapping[str, str] = {}
) -> Iterator[Served]:
    port = free_port()
    words = command.replace("{port}", str(port)).split()
    full_env = environment(collector.url, {"PORT": str(port), **env})
    log = tmp_path / "example.log"
    with serving(words, full_env, EXAMPLES / folder, port=port, log=log) as served:
        yield served


def shown(events: list[dict[str, str]]) -> Counter[str]:
    """Return content ids of views, and who did what of engagements."""
    return Counter(event.get("contentId") or f"{event['userId']} {event['metricType']}" for event in events)


def shop_at(served: Served) -> None:
    assert httpx.get(f"{served.url}/products/42?token=secret").status_code == 200
    assert httpx.post(f"{served.url}/orders/42", headers={"X-User": "user-7"}).status_code == 201


FASTAPI = {"GET:/products/{product_id}": 1, "POST:/orders/{product_id}": 1, PURCHASE: 1}
BRACKETS = {"GET:/products/<int:product_id>": 1, "POST:/orders/<int:product_id>": 1, PURCHASE: 1}


@pytest.mark.parametrize(
    ("script", "expected"),
    [("fastapi_app.py", FASTAPI), ("flask_app.py", BRACKETS), ("django_app.py", BRACKETS)],
)
def test_a_framework(script: str, expected: dict[str, int], collector: DevCollector, tmp_path: Path) -> None:
    waits = {"OTEL_EXPORTER_ANALYTICS_FLUSH_INTERVAL": "60000", "OTEL_EXPORTER_ANALYTICS_BATCHING": "on"}
    with example(f"{sys.executable} {script}", collector, tmp_path, env=waits) as served:
        shop_at(served)
        served.stop()  # nothing else sends it now
    events = collector.events()
    assert shown(events) == expected
    assert {event["app"] for event in collector.events("view")} == {"shop"}
    assert "secret" not in str(events)


def test_otlp_and_analytics_together(collector: DevCollector) -> None:
    with FaultyCollector() as otlp:
        env = environment(collector.url, {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url})
        script = [sys.executable, "otlp_and_analytics.py"]
        subprocess.run(script, cwd=EXAMPLES, env=env, check=True, timeout=60)
        assert {request.path for request in otlp.requests} <= {"/v1/traces"}
    assert shown(collector.events()) == {"POST:/orders": 20, PURCHASE: 20}


def test_a_test_of_ones_own() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    subprocess.run([*command, "test_payments.py"], cwd=EXAMPLES, check=True, timeout=60)


def test_grpc(collector: DevCollector, tmp_path: Path) -> None:
    with (
        example(f"{sys.executable} grpc_server.py", collector, tmp_path) as served,
        grpc.insecure_channel(f"{HOST}:{served.port}") as channel,
    ):
        assert channel.unary_unary("/shop.Orders/Place")(b"42", timeout=10) == b"paid"
        assert shown(collector.wait_for(2, _WAIT_MILLIS)) == {"RPC:shop.Orders/Place": 1, PURCHASE: 1}


@pytest.mark.parametrize("options", ["", "--max-tasks-per-child 1"], ids=["", "recycled after each task"])
def test_celery(options: str, collector: DevCollector, tmp_path: Path) -> None:
    env = environment(collector.url, {"BROKER_FOLDER": str(tmp_path)})
    charge = "from celery_worker import charge; [charge.delay('user-7', f'order-{n}') for n in range(3)]"
    worker = f"celery -A celery_worker worker --concurrency 1 {options}"
    subprocess.run([sys.executable, "-c", charge], cwd=EXAMPLES, env=env, check=True, timeout=30)
    with serving(worker.split(), env, EXAMPLES, port=0, log=tmp_path / "worker.log") as served:
        events = collector.wait_for(3, _WAIT_MILLIS)
        served.kill()  # its own way to stop takes seconds
    assert shown(events) == {PURCHASE: 3}
    assert {event["targetId"] for event in events} == {"order-0", "order-1", "order-2"}


def test_gunicorn_preload(collector: DevCollector, tmp_path: Path) -> None:
    with example("gunicorn app:app", collector, tmp_path, "gunicorn_preload") as served:
        for number in range(20):
            assert httpx.get(f"{served.url}/products/{number}").status_code == 200
        assert shown(collector.wait_for(20, _WAIT_MILLIS)) == {"GET:/products/<int:product_id>": 20}


LAMBDA = """
import os
from lambda_handler import handler
request = {"httpMethod": "POST", "resource": "/orders"}
request["requestContext"] = {"identity": {"sourceIp": "203.0.113.7"}}
assert [handler(request, None)["statusCode"] for _ in range(3)] == [201] * 3
os._exit(0)  # what a freeze is to everything that was not delivered yet
"""


def test_lambda(collector: DevCollector) -> None:
    env = environment(collector.url)
    subprocess.run([sys.executable, "-c", LAMBDA], cwd=EXAMPLES, env=env, check=True, timeout=30)
    assert shown(collector.events()) == {"POST:/orders": 3, PURCHASE: 3}
    assert {view["ipAddress"] for view in collector.events("view")} == {"203.0.113.7"}


def test_direct_client(collector: DevCollector) -> None:
    run = [sys.executable, "direct_client.py"]
    env = environment(collector.url)
    done = subprocess.run(run, cwd=EXAMPLES, env=env, check=True, timeout=30, capture_output=True, text=True)
    assert done.stdout == "accepted 4, delivered 4\n"
    arrived = {"POST:/orders/{id}": 1, "product-42": 1, PURCHASE: 1, "user-7 like": 1}
    assert shown(collector.events()) == arrived


def test_declarative_configuration(collector: DevCollector, tmp_path: Path) -> None:
    serve = "opentelemetry-instrument uvicorn plain_app:app --port {port}"
    env = {"OTEL_CONFIG_FILE": "declarative.yaml"}
    with example(serve, collector, tmp_path, env=env) as served:
        shop_at(served)
        assert shown(collector.wait_for(3, _WAIT_MILLIS)) == FASTAPI
    assert {event["app"] for event in collector.events("view")} == {"shop"}


def documented(name: str) -> str:
    """Return a command block of `zero_code.md`."""
    found = re.search(
        rf"^```sh {name}\n(.*?)^```", (EXAMPLES / "zero_code.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, name
    return found[1]


def elsewhere(commands: str, ports: Mapping[str, int]) -> list[str]:
    """Return documented commands without their installation, on free ports."""
    moved = re.sub("4380|8000", lambda port: str(ports[port[0]]), commands)
    return ["bash", "-euc", re.sub(r"^pip install .*\n", "", moved, flags=re.MULTILINE)]


def stored(url: str, count: int) -> list[dict[str, str]]:
    deadline = time.monotonic() + _WAIT_MILLIS / 1000
    while (answer := httpx.get(f"{url}/events").json())["total"] < count:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return [event["body"] for event in answer["events"]]


def test_zero_code_as_documented(tmp_path: Path) -> None:
    ports = {"4380": free_port(), "8000": free_port()}
    env = environment("")  # an empty variable is an unset one
    collect = elsewhere(f"{documented('collector').strip()} --port 4380", ports)
    serve = elsewhere(documented("serve"), ports)
    use = elsewhere(documented("use"), ports)
    with (
        serving(collect, env, EXAMPLES, port=ports["4380"], log=tmp_path / "collector.log") as sink,
        serving(serve, env, EXAMPLES, port=ports["8000"], log=tmp_path / "app.log"),
    ):
        done = subprocess.run(use, env=env, check=True, timeout=30, capture_output=True, text=True)
        assert done.stdout == '"Product 42""paid"'
        assert shown(stored(sink.url, 3)) == FASTAPI
