"""What the demo prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from otel_analytics.collector.summary import Calls, Engagements


class Balance(NamedTuple):
    """What was sent and what the collector stored, of one kind of event."""

    kind: str
    sent: int
    received: int

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and nothing came twice."""
        return self.sent == self.received


def print_calls(console: Console, calls: Sequence[Calls]) -> None:
    """Print the calls by endpoint."""
    table = _table("Calls by endpoint", "Endpoint", "Calls", "Errors", "Median", "95th percentile")
    for row in calls:
        table.add_row(
            Text(row.content_id),
            str(row.count),
            Text(f"{row.error_share:.0%}", style="red" if row.errors else ""),
            _millis(row.median_millis),
            _millis(row.p95_millis),
        )
    console.print(table)


def print_engagements(console: Console, engagements: Sequence[Engagements]) -> None:
    """Print the engagements by metric type."""
    table = _table("Engagements by type", "Type", "Events", "Users")
    for row in engagements:
        table.add_row(Text(row.metric_type), str(row.count), str(row.users))
    console.print(table)


def print_balance(console: Console, balance: Sequence[Balance]) -> None:
    """Print what was sent and what arrived."""
    table = _table("Sent = received", "", "Sent", "Received", "Equal")
    for row in balance:
        verdict = Text("yes", style="green") if row.holds else Text("NO", style="bold red")
        table.add_row(row.kind, str(row.sent), str(row.received), verdict)
    console.print(table)


def explain_imbalance(console: Console, balance: Sequence[Balance], complaints: str, shop_log: str) -> None:
    """Say what is missing or too much, and what collector and shop said of it."""
    for row in balance:
        if not row.holds:
            difference = row.received - row.sent
            what = "too many" if difference > 0 else "missing"
            console.print(f"[bold red]{abs(difference)} {row.kind} {what}.[/]")
    console.print(Text(f"The collector counted: {complaints}"))
    console.print(Text(f"The shop's last words:\n{shop_log or '(none)'}"))


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _millis(duration: float | None) -> str:
    return "" if duration is None else f"{duration:,.1f} ms"
