"""The file as disks and operators treat it: memory takes over, nothing raises, the log says what to do."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from driving import calls, eventually, one_each, track, within
from spooling import LEASE, balanced, ids, line_of, process, rows_of, run, spooled

from otel_analytics import AnalyticsClient, ConfigError, ViewEvent
from otel_analytics.testing import FaultyCollector

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def lines(caplog: pytest.LogCaptureFixture, reason: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if f"({reason}: " in record.getMessage()]


def test_only_the_owner_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        with spooled(NOWHERE, path) as client:
            track(client, 1)
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["spool.db", "spool.db-shm", "spool.db-wal"]
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize("place", ["missing/spool.db", ".", "file/spool.db"])
def test_a_path_that_cannot_be_used_is_named_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^spool_path=.*: cannot be used \(.*\)\. Name a file of"):
        AnalyticsClient(spool_path=str(tmp_path / place))


def test_a_file_that_may_only_be_read_is_named_at_once(path: Path) -> None:
    """As root everything may be written, so another user asks."""
    AnalyticsClient(spool_path=str(path)).shutdown()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    for folder in path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    program = """
import os
from otel_analytics import AnalyticsClient, ConfigError
if os.getuid() == 0:
    os.setuid(65534)
try:
    AnalyticsClient(spool_path=str(path))
except ConfigError as error:
    say(error)
"""
    _, said = run(program, NOWHERE, path)
    assert "cannot be used (" in said


def test_a_relative_path_stays_where_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with spooled(NOWHERE, Path(":memory:")) as client:
        track(client, 1)
    assert rows_of(path.parent / ":memory:") == 1


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
def test_another_programs_database_is_refused_and_not_touched(path: Path, journal_mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute("CREATE TABLE theirs (value)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="a database of something else"):
        AnalyticsClient(spool_path=str(path))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"garbage" * 1_000, b"A letter.\n"], ids=["garbage", "text"])
def test_what_is_no_database_is_refused_and_not_moved(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a database"):
        AnalyticsClient(spool_path=str(path))
    with FaultyCollector() as collector:
        path.unlink()
        client = AnalyticsClient(collector.url, spool_path=str(path), flush_interval_millis=10)
        path.write_bytes(content)  # between the look at construction and the first event
        tracked = track(client, 3)
        assert client.flush(5_000)
        one_each(collector, tracked)
        client.shutdown()
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path, target: str) -> None:
    elsewhere = tmp_path / target
    if target == "there":
        elsewhere.touch(mode=0o644)
    path.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="symbolic link"):
        AnalyticsClient(spool_path=str(path))
    assert elsewhere.exists() == (target == "there")
    assert target == "nowhere" or elsewhere.stat().st_size == 0


def test_what_is_no_spool_keeps_its_permissions(path: Path, tmp_path: Path) -> None:
    text, folder, pipe = tmp_path / "text", tmp_path / "folder", tmp_path / "pipe"
    text.write_text("A letter.")
    folder.mkdir()
    os.mkfifo(pipe)
    for place in (text, folder, pipe):
        place.chmod(0o755)
        with pytest.raises(ConfigError, match="cannot be used"):
            AnalyticsClient(spool_path=str(place))
        assert stat.S_IMODE(place.stat().st_mode) == 0o755
    path.with_name("spool.db-wal").symlink_to(text)
    with pytest.raises(ConfigError, match=r"spool\.db-wal is a symbolic link"):
        AnalyticsClient(spool_path=str(path))
    assert stat.S_IMODE(text.stat().st_mode) == 0o755


def test_another_users_file_is_refused(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    path.touch()
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="another user"):
        AnalyticsClient(spool_path=str(path))
    assert path.stat().st_size == 0


def test_an_existing_files_permissions_are_tightened(path: Path) -> None:
    for name in ("spool.db", "spool.db-wal", "spool.db-shm"):
        path.with_name(name).touch()
        path.with_name(name).chmod(0o666)
    with spooled(NOWHERE, path) as client:
        track(client, 1)
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


TORN = b"SQLite format 3\x00" + b"\xff" * 8_000


@pytest.mark.parametrize("content", [TORN, TORN + b"garbage" * 1_000], ids=["torn", "garbage"])
def test_a_damaged_file_is_set_aside(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(content)
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        tracked = track(client, 5)
        assert client.flush(2_000)
        one_each(collector, tracked)
        balanced(client.stats())
    (aside,) = path.parent.glob("spool.db.damaged-*")
    assert aside.read_bytes() == content
    assert path.exists()
    (line,) = lines(caplog, "spool_damaged")
    assert aside.name in line


def test_damage_while_it_runs_loses_nothing_that_memory_has(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            tracked = track(client, 200)
            _damage(path)
            _reopen(client)
            tracked |= track(client, 20)
            assert lines(caplog, "spool_damaged")
            assert balanced(client.stats()).pending == 220
            assert rows_of(path) == 20
            collector.resume()
            assert client.flush(5_000)
            assert calls(collector) >= tracked
            assert balanced(client.stats()).pending == 0
            assert client.stats().delivered == len(calls(collector))


def test_of_several_processes_one_sets_the_damaged_file_aside(path: Path) -> None:
    program = """
client = spooled(url, path)
track(client, sys.argv[3], 50)
say("tracked")
sys.stdin.readline()
for number in range(50, 100):
    client.track_api_call(f"/{sys.argv[3]}/{number}", "GET", 200)
    time.sleep(0.01)
say("tracked")
sys.stdin.readline()
say(client.flush(5_000))
"""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with (
            process(program, collector.url, path, "one") as one,
            process(program, collector.url, path, "two") as two,
        ):
            both = (one, two)
            assert [line_of(worker) for worker in both] == ["tracked"] * 2
            _damage(path)
            for worker in both:
                print("go", file=worker.stdin, flush=True)
            assert [line_of(worker) for worker in both] == ["tracked"] * 2
            collector.resume()
            for worker in both:
                print("go", file=worker.stdin, flush=True)
            assert [line_of(worker) for worker in both] == ["True"] * 2
        one_each(collector, ids("one", 100) | ids("two", 100))
    assert len(list(path.parent.glob("*.damaged-*[0-9]"))) == 1


@pytest.mark.parametrize("mishap", ["removed", "emptied", "replaced"])
def test_an_operators_hand_loses_nothing_that_memory_has(path: Path, mishap: str) -> None:
    def act() -> None:
        if mishap == "emptied":
            path.write_bytes(b"")
            return
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink()
        if mishap == "replaced":
            with spooled(NOWHERE, path, lease=60) as other:
                track(other, 3, "other")

    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            tracked = track(client, 20)
            act()
            tracked |= track(client, 20)
            assert balanced(client.stats()).pending >= 40
            collector.resume()
            assert eventually(lambda: client.flush(2_000) and calls(collector) >= tracked, 10)
            assert eventually(lambda: balanced(client.stats()).pending == 0)
            assert rows_of(path) == 0


def test_a_file_system_without_room_is_survived(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The limit on file sizes stands in for a full disk: to SQLite both are a write that fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard: list[str] = []
    with FaultyCollector() as collector:
        collector.stop_listening()
        options: dict[str, Any] = {
            "max_queue_size": 100,
            "on_drop": lambda reason, events: heard.extend([reason] * len(events)),
        }
        with spooled(collector.url, path, **options) as client:
            tracked = track(client, 60, "early")
            full_at = path.with_name("spool.db-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (full_at, before[1]))
            try:
                within(2, lambda: track(client, 200, "late"))
                stats = balanced(client.stats())
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert lines(caplog, "spool_failed")
            assert stats.dropped["queue_full"] >= 100
            assert eventually(lambda: len(heard) == balanced(client.stats()).dropped["queue_full"], 5)
            collector.resume()
            assert eventually(lambda: client.flush(2_000), 15)
            stats = balanced(client.stats())
            assert calls(collector) >= tracked, "rows that memory had no room for were left in the file"
            assert (stats.accepted, stats.delivered) == (260, len(calls(collector)))
            assert client.stats().dropped == {"queue_full": 260 - stats.delivered}
            track(client, 1)
            assert rows_of(path) + client.stats().delivered > stats.delivered


def test_a_database_page_limit_is_survived(path: Path) -> None:
    """What `PRAGMA max_page_count` refuses is "database or disk is full", as on a full disk."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            track(client, 1)
            (delivery,) = client._deliveries.values()
            connection = delivery._queue._spool._file._journal._connection  # type: ignore[attr-defined]
            connection.execute("PRAGMA max_page_count = 12")
            track(client, 300)
            assert balanced(client.stats()).pending == 301
            collector.resume()
            assert eventually(lambda: client.flush(2_000))
            assert len(calls(collector)) == 301


def test_a_lock_that_somebody_holds_delays_a_call_by_a_second_at_most(path: Path) -> None:
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        track(client, 1)
        with _write_lock(path):
            within(1.5, lambda: track(client, 100))
            within(0.2, lambda: track(client, 100))
            balanced(client.stats())
        assert eventually(lambda: client.flush(3_000), 10)
        assert len(calls(collector)) == 201
        assert balanced(client.stats()).delivered == 201


def test_a_lock_that_somebody_holds_is_no_wrong_option(path: Path) -> None:
    AnalyticsClient(spool_path=str(path)).shutdown()
    with _write_lock(path):
        AnalyticsClient(spool_path=str(path)).shutdown(0)


def test_many_processes_make_the_file_at_once(path: Path) -> None:
    program = """
sys.stdin.readline()
client = spooled(url, path)
track(client, sys.argv[3], 3)
sys.exit(0 if client.stats().accepted >= 3 else 1)
"""
    with FaultyCollector() as collector:
        workers = [process(program, collector.url, path, str(number)) for number in range(6)]
        running = [worker.__enter__() for worker in workers]
        for worker in running:
            print("go", file=worker.stdin, flush=True)
        assert [worker.wait(15) for worker in running] == [0] * 6
        for started in workers:
            started.__exit__(None, None, None)
        assert eventually(lambda: len(calls(collector)) == 18)


def test_two_clients_of_a_process_do_not_cancel_each_others_locks(path: Path) -> None:
    """POSIX drops all of a process's locks on a file with the first descriptor it closes."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as one, spooled(collector.url, path) as two:
            tracked = track(one, 10)
            AnalyticsClient(spool_path=str(path)).shutdown(0)  # opens the file, and closes it
            reading = "import sqlite3; sqlite3.connect(path).execute('SELECT * FROM events').fetchall()"
            run(reading, NOWHERE, path)
            assert path.with_name("spool.db-wal").exists(), "whoever closes last removes it"
            tracked |= track(two, 10) | track(one, 10)
            collector.resume()
            assert one.flush(3_000)
            assert two.flush(3_000)
            one_each(collector, tracked)


def test_an_id_that_is_no_text_is_no_trouble(path: Path) -> None:
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        moment = "2030-01-01T00:00:00.000Z"
        client.submit([ViewEvent("\ud800-é", moment, "GET:/", "post", "s", "desktop", "shop")])
        track(client, 1)
        assert client.flush(2_000)
        assert len(calls(collector)) == 2


class _write_lock:  # noqa: N801 - used as a function
    """Another process's transaction that does not end."""

    def __init__(self, path: Path) -> None:
        self._process = process(
            "import sqlite3\nc = sqlite3.connect(path, isolation_level=None)\n"
            "c.execute('BEGIN IMMEDIATE')\nsay('locked')\ntime.sleep(60)",
            NOWHERE,
            path,
        )

    def __enter__(self) -> None:
        assert line_of(self._process.__enter__()) == "locked"

    def __exit__(self, *_: object) -> None:
        self._process.__exit__(None, None, None)


def _reopen(client: AnalyticsClient) -> None:
    """Have the file read again, as after a fork: until then SQLite has no reason to look at all pages."""
    (delivery,) = client._deliveries.values()
    delivery._queue._spool._file.disconnect()  # type: ignore[attr-defined]


def _damage(path: Path) -> None:
    """Overwrite the file and what has not been checkpointed yet, as a failing disk may."""
    for suffix in ("", "-wal"):
        file = Path(f"{path}{suffix}")
        with file.open("r+b") as stream:
            stream.write(b"\xfe" * max(file.stat().st_size, 4_096))


_unused: tuple[object, ...] = (threading, time, Callable, LEASE)
