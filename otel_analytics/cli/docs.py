"""``otel-analytics docs``: the manual, installed with the package and so of the same version."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from importlib.resources import files

_SUFFIXES = (".md", ".json")
_SCHEMA_TITLE = "The JSON Schema of the contract's bodies"


def topics() -> dict[str, str]:
    """Return the title of each topic, by its name."""
    return {name: _title(name) for name in sorted(_pages())}


def page(topic: str) -> str:
    """Return a topic's text: Markdown, or JSON.

    Args:
        topic: A name of `topics`.
    """
    return (files("otel_analytics.docs") / _pages()[topic]).read_text(encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    choices = sorted(_pages())
    parser.add_argument("topic", nargs="?", choices=choices, metavar="TOPIC", help="one of those it lists")


def run(options: argparse.Namespace) -> int:
    """Print a topic, or which there are."""
    if options.topic is None:
        print("otel-analytics docs TOPIC shows one of:\n")
        for name, title in topics().items():
            print(f"  {name:<12}{title}")
    elif _is_rich(options.topic):
        _print_rich(page(options.topic))
    else:
        print(page(options.topic), end="")
    return 0


def _pages() -> dict[str, str]:
    names = (entry.name for entry in files("otel_analytics.docs").iterdir())
    return {name.rpartition(".")[0]: name for name in names if name.endswith(_SUFFIXES)}


def _title(topic: str) -> str:
    first, _, _ = page(topic).partition("\n")
    return first[2:] if first.startswith("# ") else _SCHEMA_TITLE


def _is_rich(topic: str) -> bool:
    """Whether a person reads it, and there is something to set it with; a pipe gets the text as it is."""
    is_markdown = _pages()[topic].endswith(".md")
    return is_markdown and sys.stdout.isatty() and importlib.util.find_spec("rich") is not None


def _print_rich(markdown: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.markdown import Markdown  # noqa: PLC0415 - the same

    Console().print(Markdown(markdown))
