"""The demo from beginning to end: start, drive, wait, report, stop."""

from __future__ import annotations

import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from otel_analytics.collector import DevCollector
from otel_analytics.collector.signals import stop_signals
from otel_analytics.demo import report
from otel_analytics.demo.report import Balance
from otel_analytics.demo.shop_process import Shop, ShopError, running_shop
from otel_analytics.demo.traffic import Sent, drive, plan
from otel_analytics.events import BUILT_IN_BUSINESS_EVENTS

_ZERO_CODE = "traced by opentelemetry-instrument with OTEL_TRACES_EXPORTER=analytics"
_ARRIVAL_TIMEOUT_MILLIS = 20_000
_SURPLUS_TIMEOUT_MILLIS = 700


def run_demo(*, requests: int, keep: bool, console: Console | None = None) -> bool:
    """Run the demo and print its report. Call it on the main thread.

    Args:
        requests: How many requests to send to the shop.
        keep: Leave shop and collector running until SIGINT or SIGTERM.
        console: Where to print; the standard output by default.

    Returns:
        Whether exactly what was sent has been received.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came before the report; everything is stopped.
    """
    console = Console() if console is None else console
    write_key = secrets.token_urlsafe(16)
    try:
        with _terminable(), DevCollector(write_key=write_key) as collector:
            console.print(f"Collector: {collector.url}", soft_wrap=True)
            with running_shop(collector.url, write_key) as shop:
                console.print(f"Shop: {shop.url}, {_ZERO_CODE}", soft_wrap=True)
                sent = _send(console, requests, shop)
                balance = _arrival(console, sent, collector)
                holds = _print_report(console, collector, balance, shop)
                if keep:
                    _keep(console, collector, shop)
    except ShopError as error:
        console.print(f"The demo failed: {error}", style="bold red", markup=False, soft_wrap=True)
        return False
    return holds


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the shop is stopped; by itself it ends a process at once."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _send(console: Console, requests: int, shop: Shop) -> Sent:
    with _progress(console) as progress:
        task = progress.add_task("Sending requests", total=requests)
        try:
            return drive(plan(requests), shop.url, lambda: progress.advance(task))
        except httpx.HTTPError as error:
            raise ShopError(f"{error!r}. The shop said:\n{shop.log_tail()}") from None


def _arrival(console: Console, sent: Sent, collector: DevCollector) -> list[Balance]:
    """Wait until everything has arrived, and a moment longer for what should not."""
    expected = sent.requests + sum(sent.business_events.values())
    with console.status("Waiting until everything has arrived"), suppress(TimeoutError):
        collector.wait_for(expected, _ARRIVAL_TIMEOUT_MILLIS)
        collector.wait_for(expected + 1, _SURPLUS_TIMEOUT_MILLIS)
    return _balance(sent, collector)


def _balance(sent: Sent, collector: DevCollector) -> list[Balance]:
    sent_types: Counter[str] = Counter()
    for name, count in sent.business_events.items():
        sent_types[BUILT_IN_BUSINESS_EVENTS[name].metric_type] += count
    received_types = {row.metric_type: row.count for row in collector.engagements()}
    return [
        Balance("views", sent.requests, collector.stats().kinds["view"].stored),
        *(
            Balance(
                f"engagements, {metric_type}", sent_types[metric_type], received_types.get(metric_type, 0)
            )
            for metric_type in sorted({*sent_types, *received_types})
        ),
    ]


def _print_report(console: Console, collector: DevCollector, balance: list[Balance], shop: Shop) -> bool:
    report.print_calls(console, collector.calls())
    report.print_engagements(console, collector.engagements())
    report.print_balance(console, balance)
    holds = all(row.holds for row in balance)
    if holds:
        console.print("[green]Everything that was sent was received, once each.[/]")
    else:
        report.explain_imbalance(console, balance, str(collector.stats()), shop.log_tail())
    return holds


def _keep(console: Console, collector: DevCollector, shop: Shop) -> None:
    console.print(f"Try the shop: {shop.url}/docs\nSee what arrives: {collector.url}\nCtrl-C stops both.")
    with stop_signals() as stop:
        stop.wait()


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
    )
