"""Print the accuracy of each framework in each mode: ``python tests/live/report.py [names...]``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from applications import APPLICATIONS, GRPC
from observing import MODES, Observed, observe

COLUMNS = (
    *("framework", "mode", "requests", "with a span", "views"),
    *("endpoint", "status", "address", "user", "leaks"),
)
FIELDS = (0, 1, 2, 4)


def row(observed: Observed) -> list[int]:
    """Return requests, views, how many have the right endpoint, status, address and user, and leaks."""
    pairs = [pair for one in observed.requests for pair in zip(one.expected, one.got, strict=False)]
    right = [sum(expected[field] == got[field] for expected, got in pairs) for field in FIELDS]
    expected = sum(len(one.expected) for one in observed.requests)
    return [len(observed.requests), expected, len(observed.views), *right, observed.leaks()]


def differences(observed: Observed) -> Iterator[str]:
    for one in observed.requests:
        if list(one.got) != list(one.expected):
            yield f"    {one.ask.name}: expected {one.expected}, got {one.got}"


def main(names: list[str]) -> None:
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for name in names or [*APPLICATIONS, *GRPC]:
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                observed = observe(name, mode, Path(folder))
            print("| " + " | ".join(map(str, (name, mode, *row(observed)))) + " |", flush=True)
            for line in differences(observed):
                print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
