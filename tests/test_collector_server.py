"""The dev collector's life: start, stop, its file, its addresses."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_analytics.collector import ConnectionLimits, DevCollector, StoreError, StoreLimits, run
from otel_analytics.collector.visitors import is_loopback

VIEW_URL = "/analytics/track/view"


def views(count: int, prefix: str = "v") -> list[dict[str, Any]]:
    body = {
        "contentId": "GET:/",
        "contentType": "post",
        "sessionId": "s",
        "deviceType": "desktop",
        "app": "a",
    }
    return [{**body, "metadata": {"eventId": f"{prefix}{n}"}} for n in range(count)]


@pytest.fixture(scope="module")
def on_loopback() -> Iterator[DevCollector]:
    with DevCollector() as running:
        yield running


def test_it_listens_on_loopback_at_a_free_port() -> None:
    with DevCollector() as one, DevCollector() as other:
        assert one.url == f"http://127.0.0.1:{one.port}"
        assert one.port != other.port
        assert httpx.get(other.url + "/healthz").status_code == 204


def test_it_stops_in_bounded_time_with_connections_open() -> None:
    collector = DevCollector()
    with collector, httpx.Client() as idle, socket.socket() as half_sent:
        idle.get(collector.url)
        half_sent.connect(("127.0.0.1", collector.port))
        half_sent.sendall(
            b"POST /analytics/track/view HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        half_sent.sendall(b"Content-Length: 10\r\n\r\n{")
        began = time.monotonic()
        collector.__exit__(None, None, None)
        assert time.monotonic() - began < 5
        with pytest.raises(httpx.ConnectError):
            httpx.get(collector.url)


def test_it_leaves_no_thread_of_its_own() -> None:
    with DevCollector():
        assert "dev-collector" in {thread.name for thread in threading.enumerate()}
    assert "dev-collector" not in {thread.name for thread in threading.enumerate()}


def test_a_taken_port_is_an_os_error() -> None:
    with DevCollector() as running, pytest.raises(OSError, match="in use"), DevCollector(port=running.port):
        pass


def test_it_can_listen_on_ipv6() -> None:
    try:
        with DevCollector(host="::1") as collector:
            assert collector.url == f"http://[::1]:{collector.port}"
            assert httpx.get(collector.url).status_code == 200
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],  # noqa: S104 - only named
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


FOREIGN = [
    ("rebound.example", None, 421),
    ("localhost.rebound.example:80", None, 421),
    ("127.0.0.1.rebound.example", None, 421),
    ("user@127.0.0.1", None, 421),
    ("192.0.2.1", None, 421),
    ("[2001:db8::1]", None, 421),
    ("", None, 421),
    ("localhost", "http://rebound.example", 403),
    ("localhost", "https://localhost.rebound.example", 403),
    ("localhost", "null", 403),
    ("localhost", "file://localhost", 403),
]
LOCAL = [
    ("localhost", None),
    ("LocalHost:1", None),
    ("127.0.0.1:65535", None),
    ("127.9.9.9", None),
    ("[::1]", "http://[::1]:4380"),
    ("[::1]:4380", "http://localhost:3000"),
    ("127.0.0.1", "https://127.0.0.1"),
]


@pytest.mark.parametrize("path", ["/", "/events", "/stats", "/healthz", VIEW_URL])
@pytest.mark.parametrize(("host", "origin", "status"), FOREIGN)
def test_on_loopback_no_foreign_page_is_answered(
    on_loopback: DevCollector, path: str, host: str, origin: str | None, status: int
) -> None:
    """DNS rebinding: a page's own name can be made to mean 127.0.0.1, and the page reads what it says."""
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    method = "POST" if path == VIEW_URL else "GET"
    response = httpx.request(method, on_loopback.url + path, headers=headers, json=views(1))
    assert response.status_code == status
    assert response.json()["errors"][0].startswith("Host: " if status == 421 else "Origin: ")
    assert on_loopback.events() == []


@pytest.mark.parametrize(("host", "origin"), LOCAL)
def test_on_loopback_its_own_machine_is_answered(
    on_loopback: DevCollector, host: str, origin: str | None
) -> None:
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    assert httpx.get(on_loopback.url + "/events", headers=headers).status_code == 200


def test_elsewhere_every_name_is_answered() -> None:
    with DevCollector(host="0.0.0.0") as collector:  # noqa: S104 - the case under test
        url = f"http://127.0.0.1:{collector.port}/events"
        headers = {"Host": "collector.example", "Origin": "http://shop.example"}
        assert httpx.get(url, headers=headers).status_code == 200


def test_wait_for_returns_when_the_last_event_is_stored() -> None:
    with DevCollector() as collector:
        posting = threading.Thread(
            target=lambda: [httpx.post(collector.url + VIEW_URL, json=view) for view in views(3)]
        )
        posting.start()
        assert collector.wait_for(3) == views(3)
        posting.join(10)


def test_wait_for_says_how_many_came() -> None:
    with DevCollector() as collector:
        httpx.post(collector.url + VIEW_URL, json=[*views(2), *views(2)])
        with pytest.raises(TimeoutError, match=r"2 of 3 events stored after 50 ms.*duplicates=2"):
            collector.wait_for(3, timeout_millis=50)


def test_a_file_keeps_events_ids_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with DevCollector(database=path) as collector:
        httpx.post(collector.url + VIEW_URL, json=[*views(2), {}])
    with DevCollector(database=path) as collector:
        assert collector.wait_for(2, timeout_millis=0) == views(2)
        httpx.post(collector.url + VIEW_URL, json=views(3))
        assert collector.events() == views(3)
        assert collector.stats().kinds["view"] == (6, 3, 2, 1)


def test_beyond_its_bounds_the_oldest_events_are_dropped_and_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with DevCollector(database=path, keep=StoreLimits(max_events=3)) as collector:
        httpx.post(collector.url + VIEW_URL, json=views(2))
        page = httpx.get(collector.url).text
        assert (collector.stats().dropped, "dropped" in page) == (0, False)
        httpx.post(collector.url + VIEW_URL, json=[*views(5), *views(5), {}])
        assert collector.wait_for(5, timeout_millis=0) == views(5)[2:]
        assert collector.stats().kinds["view"] == (13, 5, 7, 1)
        assert httpx.get(collector.url + "/stats").json()["dropped"] == 2
        assert "2 older events were dropped to make room" in httpx.get(collector.url).text
        assert httpx.get(collector.url + "/events").json()["total"] == 3
    with DevCollector(database=path, keep=StoreLimits(max_events=2)) as collector:
        httpx.post(collector.url + VIEW_URL, json=views(1, "new"))
        assert collector.events() == [*views(5)[4:], *views(1, "new")]
        assert (collector.stats().stored, collector.stats().dropped) == (6, 4)


def test_the_last_words_say_that_older_events_were_dropped() -> None:
    said: list[str] = []

    def announce(line: str) -> None:
        said.append(line)
        if url := re.search(r"http://\S+", line):
            httpx.post(url[0] + VIEW_URL, json=views(5)).raise_for_status()
            signal.raise_signal(signal.SIGTERM)

    run(announce=announce, port=0, keep=StoreLimits(max_events=3))
    assert said[-1] == "Stopped: 5 received, 5 stored, 0 duplicates, 0 rejected, 2 dropped to make room"


def test_the_command_says_how_many_events_are_kept() -> None:
    command = [sys.executable, "-m", "otel_analytics.cli", "collector", "--port", "0", "--max-events", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            httpx.post(url + VIEW_URL, json=views(5)).raise_for_status()
            stats = httpx.get(url + "/stats").json()
            assert (stats["stored"], stats["dropped"]) == (5, 3)
            assert httpx.get(url + "/events").json()["total"] == 2
        finally:
            process.kill()


def test_large_events_are_bounded_by_their_bytes() -> None:
    large = [{**view, "app": "a" * 10_000} for view in views(9)]
    with DevCollector(keep=StoreLimits(max_bytes=35_000)) as collector:
        for body in large:
            httpx.post(collector.url + VIEW_URL, json=body).raise_for_status()
        assert collector.events() == large[6:]
        httpx.post(collector.url + VIEW_URL, json=views(1, "small")).raise_for_status()
        assert collector.events() == [*large[6:], *views(1, "small")]
        httpx.post(collector.url + VIEW_URL, json={**views(1, "x")[0], "app": "a" * 35_000})
        assert (collector.events(), collector.stats().dropped) == ([], 11)
        httpx.post(collector.url + VIEW_URL, json=views(1)).raise_for_status()
        assert collector.events() == views(1)


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with DevCollector(database=path) as collector:
        httpx.post(collector.url + VIEW_URL, json=views(1))
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert modes == {0o600}


def test_memory_by_its_sqlite_name_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DevCollector(database=":memory:"):
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes, nothing but notes" * 50)
    with pytest.raises(StoreError, match=r"cannot use .*notes\.txt"), DevCollector(database=path):
        pass
    assert path.read_text().startswith("notes")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (id)")
    other.close()
    with pytest.raises(StoreError, match="belongs to another program"), DevCollector(database=path):
        pass


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events.sqlite3"
    with pytest.raises(StoreError, match="missing"), DevCollector(database=path):
        pass


def test_a_failing_database_is_answered_with_503(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with DevCollector(database=path) as collector:
        saboteur = sqlite3.connect(path)
        saboteur.execute("DROP TABLE events")
        saboteur.close()
        response = httpx.post(collector.url + VIEW_URL, json=views(1))
        assert response.status_code == 503
        assert "X-Analytics-Batch" in response.headers


def test_it_keeps_up_with_batches_from_several_connections() -> None:
    def post(name: str) -> None:
        with httpx.Client(base_url=collector.url) as http:
            for part in range(5):
                http.post(VIEW_URL, json=views(500, f"{name}-{part}-")).raise_for_status()

    with DevCollector() as collector:
        began = time.monotonic()
        threads = [threading.Thread(target=post, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        events = collector.wait_for(10_000, timeout_millis=20_000)
        for thread in threads:
            thread.join(10)
        assert len({event["metadata"]["eventId"] for event in events}) == 10_000
        assert time.monotonic() - began < 10


HEAD = b"POST /analytics/track/view HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SLOW = {
    "nothing": (b"", b""),
    "headers": (HEAD, b"x-slow: 1\r\n"),
    "a header": (HEAD + b"x-slow: ", b"1"),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n{", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "next headers": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD, b"x-slow: 1\r\n"),
    "refused body": (HEAD.replace(b"json", b"pdf") + b"Content-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_request_is_cut_off_and_makes_room(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    limits = ConnectionLimits(max_connections=1, request_seconds=0.4)
    first, drop = SLOW[kind]
    with DevCollector(connections=limits) as collector, socket.socket() as slow:
        slow.connect(("127.0.0.1", collector.port))
        slow.sendall(first)
        began = time.monotonic()
        assert _ends(slow, drop)
        assert time.monotonic() - began < 5
        assert httpx.get(collector.url + "/healthz").status_code == 204
    assert caplog.records == []


def _ends(slow: socket.socket, drop: bytes) -> bool:
    """Keep sending drops until the connection ends; a peer that stays idle would be found out anyway."""
    slow.settimeout(0.05)
    for _ in range(100):
        with suppress(TimeoutError):
            try:
                slow.sendall(drop)
                if slow.recv(65_536) == b"":
                    return True
            except ConnectionError:
                return True
    return False


def test_an_answer_that_is_not_read_is_cut_off() -> None:
    limits = ConnectionLimits(max_connections=1, request_seconds=1)
    large = [{**view, "metadata": {**view["metadata"], "note": "n" * 100_000}} for view in views(8)]
    with DevCollector(connections=limits) as collector, socket.socket() as slow:
        for part in range(10):
            for number, view in enumerate(large):
                view["metadata"]["eventId"] = f"{part}-{number}"
            httpx.post(collector.url + VIEW_URL, json=large).raise_for_status()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", collector.port))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(4) == b"HTTP"
        assert httpx.get(collector.url + "/healthz", timeout=10).status_code == 204


def test_more_connections_than_are_taken_wait_for_their_turn() -> None:
    limits = ConnectionLimits(max_connections=2)
    with DevCollector(connections=limits) as collector, ExitStack() as stack:
        connections = [stack.enter_context(socket.socket()) for _ in range(3)]
        for connection in connections:
            connection.connect(("127.0.0.1", collector.port))
            connection.sendall(HEAD)
        connections[2].sendall(b"Content-Length: 2\r\n\r\n[]")
        connections[2].settimeout(0.2)
        with pytest.raises(TimeoutError):
            connections[2].recv(1)
        connections[0].close()
        connections[2].settimeout(10)
        assert connections[2].recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_peer_that_goes_in_the_middle_of_its_body_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with DevCollector(connections=ConnectionLimits(max_connections=1)) as collector:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", collector.port)) as gone:
                gone.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
                assert gone.recv(100).startswith(b"HTTP/1.1 100 ")
        assert httpx.get(collector.url + "/healthz").status_code == 204
    assert caplog.records == []
