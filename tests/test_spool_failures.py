"""The spool as disks and operators treat it: memory takes over, nothing raises, the log says what to do."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from driving import calls, eventually, one_each, track, within
from spooling import balanced, files_of, ids, line_of, process, rows_of, run, spooled

from otel_analytics import AnalyticsClient, ConfigError, ViewEvent
from otel_analytics.testing import FaultyCollector

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def lines(caplog: pytest.LogCaptureFixture, reason: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if f"({reason}: " in record.getMessage()]


def only_file(path: Path) -> Path:
    """Return the one file of events in a spool."""
    (file,) = files_of(path)
    return file


def modes(path: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}


def left_behind(path: Path, count: int = 3) -> Path:
    """Return the file of a client that has left events in the spool."""
    before = files_of(path)
    client = spooled(NOWHERE, path)
    track(client, count, "left")
    client.shutdown(0)
    (file,) = set(files_of(path)) - set(before)
    return file


def test_only_the_owner_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        with spooled(NOWHERE, path) as client:
            track(client, 1)
            names = sorted(file.name.partition(".")[2] for file in path.iterdir())
            assert names == ["db", "db-shm", "db-wal", "lock"]
            assert modes(path) == {0o600}
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize("place", ["file", "file/spool", "link", "nowhere", "pipe", "file.db"])
def test_what_is_no_directory_is_a_wrong_option(tmp_path: Path, place: str) -> None:
    make_wrong_places(tmp_path)
    before = {file: file.lstat().st_mode for file in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"^spool_path=.*: cannot be used \(.*\)\. Name a directory"):
        AnalyticsClient(spool_path=str(tmp_path / place))
    assert {file: file.lstat().st_mode for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("place", ["file", "file/spool", "link", "missing/spool", "read-only/spool"])
def test_in_the_environment_no_spool_is_no_reason_for_no_analytics(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_wrong_places(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_ANALYTICS_SPOOL_PATH", str(tmp_path / place))
    if place == "read-only/spool":  # as root everything may be written
        monkeypatch.setattr("otel_analytics.delivery.spool.directory.prepare", refuse_to_write)
    with FaultyCollector() as collector:
        client = AnalyticsClient(collector.url, flush_interval_millis=10)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert f"spool_path='{tmp_path / place}'" in record.getMessage()
        assert "events wait in memory" in record.getMessage()
        tracked = track(client, 3)
        assert client.flush(5_000)
        one_each(collector, tracked)
        client.shutdown()


def make_wrong_places(folder: Path) -> None:
    (folder / "file").write_text("A letter.")
    (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder / "elsewhere")
    (folder / "nowhere").symlink_to(folder / "not there")
    os.mkfifo(folder / "pipe")
    sqlite3.connect(folder / "file.db").execute("CREATE TABLE theirs (value)").connection.close()


def refuse_to_write(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_missing_directory_is_used_once_it_is_there(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passed = [0.0]
    with spooled(NOWHERE, path / "below", clock=lambda: time.monotonic() + passed[0]) as client:
        assert "events wait in memory" in caplog.text
        track(client, 1)
        path.mkdir()
        passed[0] += 10
        track(client, 2)
        assert len(rows_of(path / "below")) == 2
        assert balanced(client.stats()).pending == 3


def test_a_directory_that_may_only_be_read_leaves_events_in_memory(path: Path) -> None:
    """As root everything may be written, so another user asks."""
    path.mkdir()
    for folder in path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0o555)
    program = """
import logging
from otel_analytics import AnalyticsClient
logging.basicConfig(stream=sys.stdout, format="%(message)s")
if os.getuid() == 0:
    os.setuid(65534)
client = AnalyticsClient(url, spool_path=str(path), flush_interval_millis=10)
track(client, "worker", 3)
say(client.flush(5_000))
"""
    with FaultyCollector() as collector:
        _, said = run(program, collector.url, path)
        assert "events wait in memory" in said
        assert said.splitlines()[-1] == "True"
        one_each(collector, ids("worker", 3))
    assert list(path.iterdir()) == []


def test_a_relative_path_stays_where_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with spooled(NOWHERE, Path("below")) as client:
        monkeypatch.chdir("/")
        track(client, 1)
    assert len(rows_of(path.parent / "below")) == 1


def test_two_names_of_a_directory_are_one_spool(path: Path) -> None:
    (path.parent / "other").symlink_to(path.parent)
    with FaultyCollector() as collector, spooled(collector.url, path) as one:
        collector.stop_listening()
        tracked = track(one, 3)
        with spooled(collector.url, path.parent / "other" / "spool") as two:
            tracked |= track(two, 3)
            collector.resume()
            assert two.flush(3_000)
            assert one.flush(3_000)
            one_each(collector, tracked)


def test_what_is_not_ours_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of any name and content: neither opened, moved, removed nor given other permissions."""
    path.mkdir()
    names = ["letter.txt", "0123456789abcdef.db", "1123456789abcdef.db", "2123456789abcdef.db", "x.db"]
    (path / names[0]).write_text("A letter.")
    (path / names[1]).write_bytes(b"garbage" * 1_000)
    for name in (names[2], names[4]):
        sqlite3.connect(path / name).execute("CREATE TABLE theirs (value)").connection.close()
    (path / "elsewhere").touch()
    (path / names[3]).symlink_to(path / "elsewhere")
    for file in path.iterdir():
        file.chmod(0o644)
    (path / names[1]).with_suffix(".lock").touch(0o600)
    before = {file: (file.lstat().st_mode, file.read_bytes()) for file in path.iterdir()}
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        tracked = track(client, 3)
        assert client.flush(3_000)
        one_each(collector, tracked)
    assert {file: (file.lstat().st_mode, file.read_bytes()) for file in before} == before
    assert not list(path.glob("*damaged*"))
    assert len(lines(caplog, "spool_failed")) == 1, "of one that has a lock"


@pytest.mark.parametrize("what", ["directory", "file", "lock"])
def test_another_users_spool_is_refused(path: Path, what: str) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    file = left_behind(path)
    place = {"directory": path, "file": file, "lock": file.with_suffix(".lock")}[what]
    os.chown(place, 65534, 65534)
    if what == "directory":
        with pytest.raises(ConfigError, match="another user"):
            AnalyticsClient(spool_path=str(path))
        return
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        own = track(client, 1)
        client.flush(1_000)
        one_each(collector, own)
        assert place.stat().st_uid == 65534


def test_what_a_process_left_of_no_file_is_tidied_up(path: Path) -> None:
    """It died before it had a file, or after it had removed it."""
    path.mkdir()
    old, new = path / "0123456789abcdef.lock", path / "1123456789abcdef.lock"
    theirs = path / "theirs.lock"
    for lock in (old, new, theirs):
        lock.touch(0o600)
        os.utime(lock, None if lock == new else (0, 0))
    with spooled(NOWHERE, path) as client:
        track(client, 1)
        assert not old.exists()
        assert theirs.exists()
        assert new.exists(), "its process may be about to make the file"


def test_permissions_are_tightened(path: Path) -> None:
    file = left_behind(path)
    for place in (path, file, file.with_suffix(".lock")):
        place.chmod(0o777 if place == path else 0o666)
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            track(client, 1)
            assert eventually(lambda: client.stats().accepted == 4)
            assert modes(path) == {0o600}
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_that_holds_other_things_keeps_its_permissions(path: Path) -> None:
    path.mkdir()
    (path / "letter.txt").touch()
    path.chmod(0o755)
    with spooled(NOWHERE, path) as client:
        track(client, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


TORN = b"SQLite format 3\x00" + b"\xff" * 8_000


@pytest.mark.parametrize("content", [TORN, TORN + b"garbage" * 1_000], ids=["torn", "garbage"])
def test_a_damaged_file_is_set_aside(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    left_behind(path).write_bytes(content)
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        tracked = track(client, 5)
        assert client.flush(2_000)
        one_each(collector, tracked)
        balanced(client.stats())
    (aside,) = path.glob("*.db.damaged-*")
    assert aside.read_bytes() == content
    assert list(path.iterdir()) == [aside]
    (line,) = lines(caplog, "spool_damaged")
    assert aside.name in line
    assert not lines(caplog, "spool_failed")


def test_damage_while_it_runs_loses_nothing_that_memory_has(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            tracked = track(client, 200)
            _damage(only_file(path))
            _reopen(client)
            tracked |= track(client, 20)
            assert lines(caplog, "spool_damaged")
            assert balanced(client.stats()).pending == 220
            assert len(rows_of(path)) == 20
            collector.resume()
            assert client.flush(5_000)
            assert calls(collector) >= tracked
            assert balanced(client.stats()).pending == 0
            assert client.stats().delivered == len(calls(collector))


@pytest.mark.parametrize("mishap", ["removed", "emptied", "replaced", "without a lock", "all removed"])
def test_an_operators_hand_loses_nothing_that_memory_has(path: Path, mishap: str) -> None:
    def act() -> None:
        file = only_file(path)
        if mishap == "emptied":
            file.write_bytes(b"")
        elif mishap == "without a lock":
            file.with_suffix(".lock").unlink()
        elif mishap == "all removed":
            shutil.rmtree(path)
        else:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{file}{suffix}").unlink()
        if mishap == "replaced":
            left_behind(path).rename(file)

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
            assert rows_of(path) == []


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
            full_at = only_file(path).with_suffix(".db-wal").stat().st_size
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
            assert len(rows_of(path)) + client.stats().delivered > stats.delivered


def test_a_database_page_limit_is_survived(path: Path) -> None:
    """What `PRAGMA max_page_count` refuses is "database or disk is full", as on a full disk."""
    with FaultyCollector() as collector:
        collector.stop_listening()
        with spooled(collector.url, path) as client:
            track(client, 1)
            (delivery,) = client._deliveries.values()
            connection = delivery._queue._own._file._journal._connection  # type: ignore[attr-defined]
            connection.execute("PRAGMA max_page_count = 12")
            track(client, 300)
            assert balanced(client.stats()).pending == 301
            collector.resume()
            assert eventually(lambda: client.flush(2_000))
            assert len(calls(collector)) == 301


def test_a_shutdown_after_a_full_disk_leaves_nothing_that_was_delivered(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FaultyCollector() as collector:
        collector.stop_listening()
        client = spooled(collector.url, path)
        tracked = track(client, 50)
        full_at = only_file(path).with_suffix(".db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (full_at, before[1]))
        try:
            collector.resume()
            assert client.flush(5_000)
            one_each(collector, tracked)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        client.shutdown()
        assert list(path.iterdir()) == []


def test_a_lock_that_somebody_holds_delays_nobody(path: Path) -> None:
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        track(client, 1)
        with _write_lock(only_file(path)):
            within(0.2, lambda: track(client, 100))
            balanced(client.stats())
        assert eventually(lambda: client.flush(3_000), 10)
        assert len(calls(collector)) == 101
        assert balanced(client.stats()).delivered == 101


def test_many_processes_begin_at_once(path: Path) -> None:
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
            tracked = track(one, 10) | track(two, 10)
            AnalyticsClient(spool_path=str(path)).shutdown(0)
            program = "say(spooled(url, path).flush(300), len(list(path.glob('*.db'))))"
            assert run(program, NOWHERE, path) == (0, "True 2\n"), "there is nothing to adopt"
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
    delivery._queue._own._file.disconnect()  # type: ignore[attr-defined]


def _damage(path: Path) -> None:
    """Overwrite the file and what has not been checkpointed yet, as a failing disk may."""
    for suffix in ("", "-wal"):
        file = Path(f"{path}{suffix}")
        with file.open("r+b") as stream:
            stream.write(b"\xfe" * max(file.stat().st_size, 4_096))
