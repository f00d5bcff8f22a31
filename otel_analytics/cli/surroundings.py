"""What of OpenTelemetry is installed here, and what is missing: for `doctor` and `run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from typing import Final

_INSTRUMENTATIONS: Final[Mapping[str, str]] = {
    "fastapi": "fastapi",
    "flask": "flask",
    "django": "django",
    "starlette": "starlette",
    "aiohttp": "aiohttp-server",
    "tornado": "tornado",
    "falcon": "falcon",
    "pyramid": "pyramid",
    "grpcio": "grpc",
    "celery": "celery",
}
"""A framework's distribution to the end of its instrumentation's name."""
_WITHIN: Final[Mapping[str, str]] = {"starlette": "fastapi"}
"""Frameworks that another one brings along, whose instrumentation is then the one to have."""


def is_installed(name: str) -> bool:
    """Whether a distribution is installed."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def missing_instrumentations() -> Sequence[tuple[str, str]]:
    """Return each framework that is installed without its instrumentation, with that one's distribution."""
    packages = {
        framework: f"opentelemetry-instrumentation-{name}"
        for framework, name in _INSTRUMENTATIONS.items()
        if is_installed(framework)
    }
    return [
        (framework, package)
        for framework, package in packages.items()
        if _WITHIN.get(framework) not in packages and not is_installed(package)
    ]


def is_entry_point(group: str, name: str) -> bool:
    """Whether an installed package offers a name in a group of entry points."""
    return bool(tuple(entry_points(group=group, name=name)))
