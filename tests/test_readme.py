"""README and manual keep their word: their tables, their programs, their commands and what they refer to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from documented import README, ROOT, Block, blocks, pages
from serving import EXAMPLES, environment, free_port, serving

from otel_analytics import AnalyticsClient, Config, DropReason, __all__
from otel_analytics.cli import main
from otel_analytics.cli.docs import page, topics
from otel_analytics.cli.option_table import option_table
from otel_analytics.collector import DevCollector
from otel_analytics.contract import Kind

DEFAULT_URL = "http://localhost:4380"
TOPICS_ASKED_FOR = {
    *("options", "delivery", "spool", "identity", "accuracy", "privacy", "deployment"),
    *("contract", "migration", "comparison"),
}
TYPESCRIPT_NAMES = [
    *("BackendAnalyticsClient", "apiBaseUrl", "appName", "writeKey", "enableDebugLogging"),
    *("trackView", "trackEngagement", "trackApiCall", "trackBusinessEvent", "generateSessionId"),
    *("contentId", "contentType", "userId", "sessionId", "duration", "ipAddress", "deviceType", "endpoint"),
    *("method", "statusCode", "eventType", "targetId", "targetType", "metricType", "metadata"),
    "metricTypeMap",
]
COMMANDS_RUN_ELSEWHERE = {
    "README-0": "test_demo and, as it stands, test_the_demo_from_a_clone",
    "README-2": ".ci/run",
}


def events_of(block: Block, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """Run a program of the documentation; return what arrived."""
    with DevCollector() as collector:
        program = block.text.replace(DEFAULT_URL, collector.url)
        run = [sys.executable, "-c", program]
        env = environment(collector.url)
        done = subprocess.run(
            run, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return {kind.value: collector.events(kind) for kind in Kind}


EXPECTED = {
    "README-0": ("POST:/buy user-7", "purchase order-42 user-7"),
    "options-0": ("purchase invoice-42 user-7",),
    "options-1": ("like product-42 user-7",),
    "identity-0": ("POST:/orders user-7", "purchase order-42 user-7"),
    "sampling-0": ("GET:/orders ",),
    "deployment-0": (),
    "collector-0": (),  # it looks by itself
    "migration-0": ("POST:/orders user-7", "purchase order-42 user-7"),
    "privacy-0": ("POST:/orders fdbf5bce2268c7c57cde755d",),
}


@pytest.mark.parametrize("block", [*blocks("python")], ids=str)
def test_each_program_delivers_what_is_said_of_it(block: Block, tmp_path: Path) -> None:
    events = events_of(block, tmp_path)
    arrived = [f"{view['contentId']} {view.get('userId', '')}" for view in events["view"]]
    arrived += [f"{e['metricType']} {e['targetId']} {e['userId']}" for e in events["engagement"]]
    assert tuple(arrived) == EXPECTED[str(block)]


def test_the_ten_lines_are_ten_and_end_at_once_without_a_collector() -> None:
    (block,) = (block for block in blocks("python") if block.page == "README")
    assert len([line for line in block.text.splitlines() if line]) == 10
    program = block.text.replace(DEFAULT_URL, f"http://127.0.0.1:{free_port()}")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=4, check=True
    )
    assert "refused" in done.stderr


@pytest.mark.parametrize(
    "block", [b for b in blocks("sh") if str(b) not in {*COMMANDS_RUN_ELSEWHERE, "README-1"}], ids=str
)
def test_each_command_runs(block: Block, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with AnalyticsClient("http://127.0.0.1:9", app_name="shop", spool_path=str(spool)) as client:
        client.track_engagement("user-7", "like", "product-42", "product")
        client.shutdown(0)
    with DevCollector() as collector:
        commands = block.text.replace(DEFAULT_URL, collector.url)
        commands = commands.replace("https://analytics.example.com", collector.url)
        commands = commands.replace("/var/lib/shop/analytics", str(spool))
        run = ["bash", "-euc", commands]
        env = environment(collector.url)
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", [*blocks("sh serve")], ids=str)
def test_each_server_starts(block: Block, tmp_path: Path) -> None:
    port = free_port()
    command = block.text.strip().replace("localhost:4317", "localhost:0")
    if "localhost:4318" in command:
        command = command.replace("localhost:4318", f"localhost:{port}")
    else:
        command = f"{command} --port {port}"
    with serving(command.split(), environment(""), tmp_path, port=port, log=tmp_path / "log"):
        pass


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "fresh"])
def test_zero_code_as_it_stands_in_the_readme(fresh: bool, tmp_path: Path) -> None:
    """Here, and in an environment that has nothing but what the block installs."""
    install, serve = blocks_of_zero_code()
    assert install.startswith("pip install otel-analytics ")
    (tmp_path / "app.py").write_text((EXAMPLES / "plain_app.py").read_text())
    env = environment("")
    if fresh:
        env = fresh_environment(tmp_path / "fresh", install.replace("otel-analytics", str(ROOT), 1))
    port = free_port()
    with DevCollector() as collector:
        commands = ["bash", "-euc", f"{serve.replace(DEFAULT_URL, collector.url).strip()} --port {port}"]
        with serving(commands, env, tmp_path, port=port, log=tmp_path / "log") as served:
            assert httpx.post(f"{served.url}/orders/42").status_code == 201
            events = collector.wait_for(2, 20_000)
    assert {event.get("app", "shop") for event in events} == {"shop"}
    assert {event.get("metricType", "view") for event in events} == {"view", "purchase"}


def fresh_environment(folder: Path, install: str) -> dict[str, str]:
    """Make a virtual environment, run the command to install into it, and return its variables."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=60)
    env = {name: value for name, value in environment("").items() if name != "PYTHONPATH"}
    env["PATH"] = f"{folder}/bin:{env['PATH']}"
    subprocess.run(["bash", "-euc", install], env=env, check=True, timeout=110)
    return env


def blocks_of_zero_code() -> tuple[str, str]:
    (block,) = (block for block in blocks("sh") if str(block) == "README-1")
    install, _, serve = block.text.partition("\n")
    return install, serve


@pytest.mark.slow
def test_the_demo_from_a_clone(tmp_path: Path) -> None:
    """As the README says, from the files that git tracks, in an environment that has nothing else."""
    (command,) = (block.text for block in blocks("sh") if str(block) == "README-0")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(
        ["xargs", "-0", "cp", "--parents", "-t", str(tmp_path)], cwd=ROOT, input=listed, check=True
    )
    env = {name: value for name, value in environment("").items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "Everything that was sent was received, once each." in done.stdout, done.stderr


def test_no_word_of_a_block_is_left_out() -> None:
    known = {"python", "sh", "sh serve", "json", "ts"}
    for name, text in pages().items():
        assert set(re.findall(r"^```([^\n]+)$", text, re.MULTILINE)) <= known, name


@pytest.mark.parametrize("block", [*blocks("json")], ids=str)
def test_json_is_json(block: Block) -> None:
    text, decoder = block.text.strip(), json.JSONDecoder()
    while text:
        _, end = decoder.raw_decode(text)
        text = text[end:].strip()


def test_the_options_are_those_of_config() -> None:
    shown = re.search(r"<!-- options: .*? -->\n(.*?)\n<!-- end of options -->", page("options"), re.DOTALL)
    assert shown is not None
    assert shown[1] == option_table()


def test_the_front_page_is_short() -> None:
    assert len(README.split()) <= 700


def test_no_word_is_the_codes_own() -> None:
    for name, text in pages().items():
        assert re.findall(r"\b(?:lanes?|leases?|fold(?:ed|s)?|noise|twins?|outbox)\b", text) == [], name


def test_nothing_is_linked_that_the_package_index_would_not_find() -> None:
    for name, text in pages().items():
        links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")]
        # The picture is taken out of the description that the package index shows; see pyproject.toml.
        assert links == (["otel_analytics/docs/page.png"] if name == "README" else []), name
    assert (ROOT / "otel_analytics/docs/page.png").stat().st_size < 150_000


def test_what_pages_name_is_there() -> None:
    code = re.compile(r"`([^`\n]+)`")
    for name, text in pages().items():
        for quoted in code.findall(text):
            for topic in re.findall(r"otel-analytics docs ([a-z]+)", quoted):
                assert topic in topics(), (name, quoted)
            for path in re.findall(r"\bexamples/[\w./]*", quoted):
                assert (ROOT / path).exists(), (name, quoted)
            for api in re.findall(r"^(Analytics\w+|FlushOnShutdown|flush_on_sigterm)\b", quoted):
                assert api in __all__, (name, quoted)
    listed = re.search(r"\| topic \|.*?\n\n", README, re.DOTALL)
    assert listed is not None
    assert {*code.findall(listed[0])} == {*topics()} >= TOPICS_ASKED_FOR


def test_every_name_of_the_typescript_client_has_its_own_here() -> None:
    text = page("migration")
    for name in TYPESCRIPT_NAMES:
        assert re.search(rf"^\|[^|]*\b{name}\b", text, re.MULTILINE), name
    for method in re.findall(r"`(track_\w+)\(", text):
        assert hasattr(AnalyticsClient, method)
    for option in ("endpoint", "app_name", "write_key", "debug", "timeout_millis", "business_events"):
        assert f"`{option}" in text
        assert option in Config.__dataclass_fields__


def test_every_key_of_the_wire_has_its_origin_in_privacy() -> None:
    text = page("privacy")
    definitions = json.loads(page("schema"))["$defs"].values()
    keys = {key for body in definitions for key in body.get("properties", ())}
    wire = keys - {"metadata", "received", "failures", "index", "status", "reason"}
    for key in wire - {"metricType", "contentType"}:  # the names of events' types are the application's own
        assert re.search(rf"`(metadata\.)?{key}`", text), key


def test_a_command_line_shows_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {topic} " in listed and title in listed for topic, title in topics().items())
    assert main(["docs", "privacy"]) == 0
    assert capsys.readouterr().out == page("privacy")
    with pytest.raises(SystemExit):
        main(["docs", "nonsense"])


def test_in_a_terminal_the_manual_is_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["docs", "privacy"]) == 0
    assert "| field |" not in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["docs", "privacy"]) == 0
    assert "| field |" in capsys.readouterr().out


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "otel_analytics", "docs", "spool"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == page("spool")


def test_every_reason_of_a_loss_is_explained() -> None:
    assert {reason.value for reason in DropReason} <= {*re.findall(r"`(\w+)`", page("delivery"))}


def test_ci_runs_the_documented_test_command() -> None:
    (command,) = re.findall(r"```sh\n(python3 -m venv .*?pytest)\n```", README)
    ci = (ROOT / ".ci" / "run").read_text()
    assert "documented_test_command" in ci
    assert command.endswith(".venv/bin/pytest")
