"""What README and manual hold, for the tests that run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from otel_analytics.cli.docs import page, topics

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

_BLOCK = re.compile(
    r"^(?P<fence>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block of a page; ``number`` counts those of its language there."""

    page: str
    language: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def pages() -> dict[str, str]:
    """Return the README and each topic that is prose."""
    return {"README": README, **{topic: page(topic) for topic in topics() if topic != "schema"}}


def blocks(language: str) -> Iterator[Block]:
    for name, text in pages().items():
        found = [block["text"] for block in _BLOCK.finditer(text) if block["language"] == language]
        yield from (Block(name, language, number, block) for number, block in enumerate(found))
