"""The README keeps its word: its table, its code and what that prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from otel_analytics.cli.option_table import option_table
from otel_analytics.testing import FaultyCollector

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_options_are_those_of_config() -> None:
    shown = re.search(r"<!-- options: .*? -->\n(.*?)\n<!-- end of options -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == option_table()


def test_the_ten_lines_print_what_is_shown() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (printed,) = re.findall(r"it prints\n\n```\n(.*?)```", README, re.DOTALL)
    with FaultyCollector() as collector:
        program = code.replace("http://localhost:4380", collector.url)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert collector.bodies("view")[0]["contentId"] == "POST:/orders"
        assert collector.bodies("engagement")[0]["targetId"] == "order-42"
    assert done.stdout == printed


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(((?:examples|tests)/[^)]+)\)", README):
        assert (Path(__file__).parent.parent / link).is_file(), link


def test_ci_runs_the_documented_test_command() -> None:
    (command,) = re.findall(r"```sh\n(python3 -m venv .*?pytest)\n```", README)
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert "documented_test_command" in ci
    assert command.endswith(".venv/bin/pytest")
