"""The example's fleet, each part a process: what its services were asked for is counted once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from brokers import tansu
from object_storage import object_storage
from serving import EXAMPLES

FLEET = EXAMPLES / "fleet"
CALLS = 90


@pytest.fixture
def node_service(tmp_path: Path) -> Path:
    """Install the Node service's packages beside a copy of it."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no npm: the fleet's Node service cannot be installed")
    folder = tmp_path / "node_service"
    shutil.copytree(FLEET / "node_service", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install the Node service's packages: {installed.stderr[-500:]}")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(540)
def test_every_call_is_counted_once_though_a_bridge_is_killed_and_the_broker_restarted(
    node_service: Path, tmp_path: Path
) -> None:
    tansu()
    if find_spec("rotel") is None:
        pytest.skip("no collector: rotel has no wheel for this platform")
    logs = tmp_path / "logs"
    logs.mkdir()
    options = ["--node", str(node_service), "--calls", str(CALLS), "--logs", str(logs)]
    with object_storage() as storage:
        options += ["--storage", "s3://fleet/", "--kill-bridge", "--restart-broker"]
        run = subprocess.run(
            [sys.executable, str(FLEET / "run.py"), *options],
            env={**os.environ, **storage},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "killed a bridge" in said
    assert "killed the broker, and started it again" in said
    rows = re.findall(r"^(\S+-shop) +(\S+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", said, re.MULTILINE)
    assert sorted(rows) == [
        ("node-shop", "Node.js", "180", "180", "0", "0", "60"),
        ("python-shop", "Python", "90", "90", "0", "0", "30"),
    ]
    assert re.search(r"counted once by their ids: \d+$", said, re.MULTILINE)
