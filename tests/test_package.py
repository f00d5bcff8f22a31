"""What the package promises about itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, requires
from pathlib import Path
from types import ModuleType

import pytest

import otel_analytics

PACKAGE = Path(otel_analytics.__file__).parent
PURE = [
    "mapping",
    "events.py",
    "encoding.py",
    "contract.py",
    "delivery/http/wire.py",
    "delivery/http/negotiation.py",
    "delivery/schedule.py",
    "delivery/life.py",
    "delivery/throttle.py",
    "delivery/backoff.py",
    "delivery/settlement.py",
]
IMPURE_MODULES = {"time", "random", "threading", "os", "socket", "httpx", "httpcore", "asyncio"}


def imports_of(path: Path) -> set[str]:
    """Return top-level names of run-time imports; those under TYPE_CHECKING do not count."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def files_of(place: str) -> list[Path]:
    path = PACKAGE / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def test_exports_are_sorted_and_complete() -> None:
    assert otel_analytics.__all__ == sorted(otel_analytics.__all__)
    assert dir(otel_analytics) == otel_analytics.__all__
    for name in otel_analytics.__all__:
        getattr(otel_analytics, name)  # each is imported when it is asked for
    public = {
        name
        for name, value in vars(otel_analytics).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public - {"TYPE_CHECKING", "import_module"} == set(otel_analytics.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        otel_analytics.nonsense  # noqa: B018 - the look is the test


def test_the_mapping_loads_neither_http_nor_sdk_nor_database() -> None:
    program = "import sys, otel_analytics.mapping.spans; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert not modules & {"httpx", "httpcore", "opentelemetry.sdk", "sqlite3", "ssl", "threading.local"}


def test_pure_modules_have_no_clock_no_thread_no_io() -> None:
    for place in PURE:
        for path in files_of(place):
            roots = {name.split(".")[0] for name in imports_of(path)}
            assert not roots & (IMPURE_MODULES | {"opentelemetry"}), path


def test_only_the_wire_imports_httpx_and_what_comes_with_it() -> None:
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in files_of(".")
        if not {"demo", "cli"} & {*path.parts}
        and {name.split(".")[0] for name in imports_of(path)} & {"httpx", "httpcore", "h11"}
    ]
    assert sorted(users) == ["delivery/http/connection.py", "delivery/http/transport.py"]


def test_the_core_needs_three_packages() -> None:
    core = {
        re.split(r"[^\w-]", line)[0] for line in requires("otel-analytics") or () if "extra ==" not in line
    }
    assert core == {"httpx", "opentelemetry-api", "opentelemetry-sdk"}
    # What needs an extra, or is loaded by the very package it imports.
    third_party = {
        name.split(".")[0]
        for path in files_of(".")
        if not {"bridge", "collector", "demo", "docs.py", "celery.py"} & {*path.relative_to(PACKAGE).parts}
        for name in imports_of(path)
    } - sys.stdlib_module_names
    assert third_party == {"h11", "httpcore", "httpx", "opentelemetry", "otel_analytics", "socksio"}
    assert any(line.startswith("httpcore") for line in requires("httpx") or ())
    assert any(line.startswith("socksio") and "extra ==" in line for line in requires("httpx") or ())
    assert any(line.startswith("h11") for line in requires("httpcore") or ())


def test_the_entry_point_is_an_exporter() -> None:
    (entry,) = entry_points(group="opentelemetry_traces_exporter", name="analytics")
    assert entry.load().__name__ == "AutoconfiguredSpanExporter"


@pytest.mark.slow
def test_the_wheel_has_the_manual_and_a_description_without_dead_links(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*build, str(PACKAGE.parent)], check=True, timeout=110)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        description = content.read(metadata).decode()
    assert {f"otel_analytics/docs/{path.name}" for path in (PACKAGE / "docs").glob("*.*")} <= {*names}
    assert "# otel-analytics" in description
    assert re.findall(r"\]\((?!https://)[^)]*\)", description) == []
