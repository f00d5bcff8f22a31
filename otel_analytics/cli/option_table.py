"""The options as a Markdown table, for the manual: ``python -m otel_analytics.cli.option_table``."""

from __future__ import annotations

import sys

from otel_analytics.config import describe_options


def option_table() -> str:
    """Return a row for each option: its name, default and what it does."""
    rows = ["| option | default | |", "|---|---|---|"]
    for option in describe_options():
        unit = f" {option['unit']}" if option["unit"] else ""
        rows.append(f"| `{option['name']}` | `{option['default']}`{unit} | {option['help']} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(option_table() + "\n")
