"""`otel-analytics spool`: look into a spool, deliver what it holds, throw it away."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import calls, one_each, track
from spooling import files_of, ids, line_of, process, rows_of, spooled

from otel_analytics.cli import main
from otel_analytics.testing import Answer, FaultyCollector

HOUR = 3_600
WORKER = """
client = spooled(url, path)
track(client, "worker", 4)
say("tracked")
time.sleep(60)
"""

# Its sender is too busy to look for what others left.
HOLDING = WORKER.replace("(url, path)", "(url, path, flush_interval_millis=60_000)").replace(
    "client =",
    "from otel_analytics.delivery.spool.directory import Directory\n"
    "Directory.abandoned = lambda *_: []\nclient =",
)


@pytest.fixture
def collector() -> Iterator[FaultyCollector]:
    with FaultyCollector(batch="max=50") as collector:
        collector.stop_listening()
        yield collector


@pytest.fixture
def path(tmp_path: Path, collector: FaultyCollector) -> Path:
    """A spool that a process has left with 20 views, ten of them two days old, and 5 engagements."""
    path = tmp_path / "spool"
    now = [time.time() - 48 * HOUR]
    client = spooled(collector.url, path, wall_clock=lambda: now[0])
    track(client, 10, "old")
    now[0] += 48 * HOUR
    track(client, 10, "new")
    for number in range(5):
        client.track_engagement("user", "purchase", f"order-{number}", "content")
    client.shutdown()
    return path


def spool(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a spool command; return its exit code and what it said."""
    capsys.readouterr()
    code = main(["spool", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_status(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = spool(capsys, "status", path)
    assert code == 0
    views, engagements = (sum(rows_of(path, "length(body)", kind)) for kind in ("view", "engagement"))
    assert re.sub(r"oldest \d s", "oldest 0 s", said).splitlines() == [
        "accepted   25",
        "delivered  0",
        "dropped    0",
        "pending    25",
        f"  20 of kind view: {views:,} bytes, the oldest 2 d 0 h old",
        f"  5 of kind engagement: {engagements:,} bytes, the oldest 0 s old",
        "  0 held by 0 running process(es), 25 by nobody",
    ]


def test_status_as_json_tells_who_holds_what(
    path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    (path / "0123456789abcdef.db.damaged-1").touch()
    with process(HOLDING, collector.url, path) as worker:
        line_of(worker)
        now = json.loads(spool(capsys, "status", path, "--json")[1])
        assert (now["accepted"], now["delivered"], now["dropped"], now["pending"]) == (29, 0, {}, 29)
        assert (now["pending"], now["held"], now["processes"], now["damaged"]) == (29, 4, 1, 1)
        assert now["kinds"]["view"]["count"] == 24


def test_list(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = spool(capsys, "list", path, "--limit", 3)
    lines = said.splitlines()
    assert [line.split()[1:3] + line.split()[4:] for line in lines] == [
        ["view", "free", body] for body in sorted(_bodies(path)) if "/old/" in body
    ][:3]
    _, said = spool(capsys, "list", path, "--kind", "engagement", "--json")
    listed = [json.loads(line) for line in said.splitlines()]
    assert [event["body"]["targetId"] for event in listed] == [f"order-{number}" for number in range(5)]
    assert {event["eventId"] for event in listed} == {
        event["body"]["metadata"]["eventId"] for event in listed
    }


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_list_prints_nothing_that_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    path = tmp_path / "spool"
    client = spooled("http://127.0.0.1:9", path)
    hostile = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x061C, *range(0x2028, 0x202F), 0x2066]))
    client.track_engagement("user", "purchase", f"a{hostile}\x1b[2Jz\N{SNOWMAN}", "content")
    client.shutdown()
    # What another program left in the file need not be what this one would write.
    with sqlite3.connect(files_of(path)[0]) as other:
        other.execute("UPDATE engagement SET body = replace(body, 'z', '\\ud800z')")
    _, said = spool(capsys, "list", path, *options)
    line = said.removesuffix("\n")
    assert not [char for char in line if char != "\N{SNOWMAN}" and not " " <= char <= "~"]
    assert "\\u001b[2J\\ud800z\N{SNOWMAN}" in line
    if options:
        assert json.loads(line)["body"]["targetId"] == f"a{hostile}\x1b[2J\ud800z\N{SNOWMAN}"


def test_list_reads_in_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spool"
    client = spooled("http://127.0.0.1:9", path)
    track(client, 1_203)
    client.shutdown()
    assert len(spool(capsys, "list", path, "--limit", 9_999)[1].splitlines()) == 1_203
    assert len(spool(capsys, "list", path)[1].splitlines()) == 100


def test_replay_delivers_all(
    path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.resume()
    code, said = spool(capsys, "replay", path, "--endpoint", collector.url, "--write-key", "secret")
    assert code == 0
    assert said.splitlines()[0] == f"replaying 25 events to {collector.url}"
    assert said.splitlines()[-1] == "25 delivered, 0 dropped, 0 left"
    assert "secret" not in said
    assert len(collector.event_ids()) == 25
    assert {request.headers["x-write-key"] for request in collector.requests} == {"secret"}


def test_replay_takes_the_environments_collector(
    path: Path,
    collector: FaultyCollector,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_ANALYTICS_ENDPOINT", collector.url)
    collector.resume()
    assert spool(capsys, "replay", path)[0] == 0
    assert len(calls(collector)) == 20


def test_replay_says_what_is_left(
    path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.resume()
    collector.behave(then=Answer(500))
    code, said = spool(capsys, "replay", path, "--endpoint", collector.url, "--patience", 0.2)
    assert code == 1
    assert said.splitlines()[-1] == "0 delivered, 0 dropped, 25 left"
    assert len(rows_of(path)) == 25


def test_replay_drops_nothing_by_age(
    tmp_path: Path,
    collector: FaultyCollector,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The workers kept events for 30 days; neither this tool's default nor its environment is theirs."""
    path = tmp_path / "spool"
    client = spooled(
        collector.url, path, wall_clock=lambda: time.time() - 29 * 24 * HOUR, max_spool_age_hours=720
    )
    track(client, 5)
    client.shutdown()
    monkeypatch.setenv("OTEL_EXPORTER_ANALYTICS_MAX_SPOOL_AGE_HOURS", "1")
    collector.resume()
    assert spool(capsys, "replay", path, "--endpoint", collector.url)[0] == 0
    assert len(calls(collector)) == 5


def test_replay_says_what_is_lost(
    path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.resume()
    collector.behave(Answer(400))
    collector.batch = None
    code, said = spool(capsys, "replay", path, "--endpoint", collector.url)
    assert code == 1
    assert said.splitlines()[-2:] == ["24 delivered, 1 dropped, 0 left", "dropped: 1 rejected"]


def test_replay_leaves_to_a_running_worker_what_it_holds(
    tmp_path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spool"
    with process(WORKER, collector.url, path) as worker, FaultyCollector() as other:
        line_of(worker)
        code, said = spool(capsys, "replay", path, "--endpoint", other.url)
        assert code == 1
        assert said.splitlines()[-1] == "4 of them are held by 1 running process(es), which send them"
        collector.resume()
        collector.wait_for_events(4, timeout_millis=10_000)
        one_each(collector, ids("worker", 4))
        assert other.requests == []


def test_purge(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spool(capsys, "purge", path, "--yes", "--older-than", 24) == (
        0,
        "10 events thrown away, 15 left\n",
    )
    assert spool(capsys, "purge", path, "--yes", "--kind", "view") == (0, "10 events thrown away, 5 left\n")
    assert "dropped    20 (20 purged)" in spool(capsys, "status", path)[1].splitlines()
    assert spool(capsys, "purge", path, "--yes") == (0, "5 events thrown away, 0 left\n")
    assert list(path.iterdir()) == []


def test_purge_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otel_analytics.cli.spool._PROGRESS_SECONDS", 0)
    path = tmp_path / "spool"
    client = spooled("http://127.0.0.1:9", path)
    track(client, 1_203)
    client.shutdown()
    _, said = spool(capsys, "purge", path, "--yes")
    assert said.splitlines() == [
        "500 thrown away so far",
        "1,000 thrown away so far",
        "1,203 thrown away so far",
        "1,203 events thrown away, 0 left",
    ]


def test_purge_asks_and_without_an_answer_throws_nothing_away(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = spool(capsys, "purge", path)
    assert code == 1
    assert said == "otel-analytics: nothing was thrown away; --yes does so without asking\n"
    assert len(rows_of(path)) == 25


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 25), ("", 25)])
def test_purge_asks_at_a_terminal(
    path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    asked: list[str] = []

    def reply(question: str) -> str:
        asked.append(question)
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", reply)
    main(["spool", "purge", str(path)])
    assert asked == [f"Throw events of view and engagement away, of 25 in {path}? [y/N] "]
    assert len(rows_of(path)) == left


def test_a_running_workers_events_are_not_purged(
    tmp_path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spool"
    with process(WORKER, collector.url, path) as worker:
        line_of(worker)
        assert spool(capsys, "purge", path, "--yes") == (0, "0 events thrown away, 4 left\n")


@pytest.mark.parametrize("action", ["status", "list", "replay", "purge"])
@pytest.mark.parametrize("place", ["nothing", "file", "pipe/below"])
def test_what_is_no_spool_is_one_clear_line(
    tmp_path: Path, action: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("A letter.")
    code, said = spool(capsys, action, tmp_path / place)
    assert (code, said) == (
        1,
        f"otel-analytics: {tmp_path / place} is no spool: there is no such directory\n",
    )
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_read_is_counted_and_left_alone(
    path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.resume()
    sqlite3.connect(path / "0123456789abcdef.db").execute("CREATE TABLE theirs (value)").connection.close()
    before = (path / "0123456789abcdef.db").read_bytes()
    assert (
        spool(capsys, "status", path)[1].splitlines()[-1] == "damaged    1 file(s), set aside or unreadable"
    )
    assert len(spool(capsys, "list", path)[1].splitlines()) == 25
    assert spool(capsys, "replay", path, "--endpoint", collector.url)[0] == 0
    assert spool(capsys, "purge", path, "--yes")[0] == 0
    (file,) = path.iterdir()
    assert file.read_bytes() == before


def test_a_wrong_option_of_replay_is_one_clear_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = spool(capsys, "replay", path, "--endpoint", "nonsense")
    assert code == 2
    assert said.startswith("otel-analytics: endpoint='nonsense'")


def test_the_command_needs_no_extra(path: Path) -> None:
    script = (
        "import sys; sys.modules.update({'uvicorn': None, 'starlette': None, 'rich': None});"
        " from otel_analytics.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", script, "spool", "status", str(path)]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_looking_disturbs_no_worker(
    path: Path, collector: FaultyCollector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Looking waits for nobody's commit, and whoever tracks does not wait for a look."""
    with process(HOLDING, collector.url, path) as worker:
        line_of(worker)
        (held,) = (file for file in files_of(path) if Path(f"{file}-wal").exists())
        with sqlite3.connect(held, isolation_level=None) as writer:
            writer.execute("BEGIN IMMEDIATE")  # as a worker in the middle of a commit does
            writer.execute("DELETE FROM view")
            started = time.monotonic()
            assert "pending    29" in spool(capsys, "status", path)[1]
            assert len(spool(capsys, "list", path)[1].splitlines()) == 29
            assert time.monotonic() - started < 0.5
            writer.execute("ROLLBACK")


def _bodies(path: Path) -> list[str]:
    bodies = rows_of(path, "body", "view")
    return [json.loads(body)["contentId"] for body in bodies]
