"""The command line, as its own process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from otel_analytics import __version__
from otel_analytics.cli import main
from otel_analytics.collector import DevCollector

VIEW_URL = "/analytics/track/view"
VIEW = {"contentId": "GET:/", "contentType": "post", "sessionId": "s", "deviceType": "desktop", "app": "shop"}
WRITE_KEY_VARIABLE = "OTEL_EXPORTER_ANALYTICS_WRITE_KEY"


class Running(NamedTuple):
    """A collector's process, its URL, and what it said up to that."""

    process: subprocess.Popen[str]
    url: str
    head: str


@contextmanager
def collector_process(*arguments: str, **environ: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "otel_analytics.cli", "collector", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environ}
    )
    with process:
        try:
            assert process.stdout is not None
            head = ""
            while not (found := re.search(r"http://\S+", head)):
                line = process.stdout.readline()
                assert line, head
                head += line
            yield Running(process, found[0], head)
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    return process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_collector_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with collector_process() as (process, url, _):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.post(url + VIEW_URL, json=[VIEW, {}]).json()["received"] == 2
        assert end(process, number) == (0, "Stopped: 2 received, 1 stored, 0 duplicates, 1 rejected\n")


def test_the_collectors_options_reach_it(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    arguments = ["--write-key", "secret!", "--no-batch", "--database", str(path)]
    with collector_process(*arguments, **{WRITE_KEY_VARIABLE: "another"}) as (process, url, _):
        refused = httpx.post(url + VIEW_URL, json=VIEW, headers={"X-Write-Key": "another"})
        assert refused.status_code == 401
        assert "X-Analytics-Batch" not in refused.headers
        httpx.post(url + VIEW_URL, json=VIEW, headers={"X-Write-Key": "secret!"}).raise_for_status()
        assert "secret!" not in end(process, signal.SIGTERM)[1]
    with DevCollector(database=path) as collector:
        assert collector.events() == [VIEW]


def test_the_write_key_can_come_from_the_environment() -> None:
    with collector_process(**{WRITE_KEY_VARIABLE: "secret!"}) as (_, url, _):
        assert httpx.post(url + VIEW_URL, json=VIEW).status_code == 401


@pytest.mark.parametrize(
    ("key", "warning"),
    [("", "read this collector and, without a write key, write to it."), ("key", "read this collector.")],
)
def test_other_machines_are_warned_about(key: str, warning: str) -> None:
    every_address = "0.0.0.0"  # noqa: S104 - the case under test
    with collector_process("--host", every_address, **{WRITE_KEY_VARIABLE: key}) as (_, _, head):
        assert "WARNING: other machines can " + warning in head


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with DevCollector() as running:
        assert main(["collector", "--port", str(running.port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"otel-analytics: cannot listen on 127.0.0.1 port {running.port}: Address already in"
    )
    assert error.count("\n") == 1


def test_an_unusable_database_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing" / "events.sqlite3"
    assert main(["collector", "--port", "0", "--database", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"otel-analytics: cannot use {path} as the collector's database: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("collector", "uvicorn", "collector"),
        ("demo", "fastapi", "demo"),
        ("demo", "uvicorn", "demo"),
        ("bridge", "grpc", "bridge"),
    ],
)
def test_a_missing_extra_is_one_clear_line(command: str, module: str, extra: str) -> None:
    # `None` in `sys.modules` is how the import system itself marks a module that cannot be imported.
    script = (
        f"import sys; sys.modules[{module!r}] = None; from otel_analytics.cli import main; sys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, command], capture_output=True, text=True, check=False, timeout=60
    )
    message = f"otel-analytics: {command} needs an extra: pip install 'otel-analytics[{extra}]'\n"
    assert (result.returncode, result.stderr) == (2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["collector", "--port", "70000"], "invalid port value: '70000'"),
        (["demo", "--requests", "0"], "invalid count value: '0'"),
    ],
)
def test_unusable_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"otel-analytics {__version__}\n"
