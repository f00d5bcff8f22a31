"""``otel-analytics spool``: the words around `delivery.spool.admin`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from otel_analytics.client import AnalyticsClient
from otel_analytics.contract import Kind, rfc3339
from otel_analytics.delivery.queue.ledger import LedgerSnapshot
from otel_analytics.delivery.spool.admin import (
    SpooledEvent,
    SpoolError,
    Status,
    events,
    purge,
    replay,
    status,
)
from otel_analytics.escaping import escaped

Say = Callable[[str], None]

_PROGRESS_SECONDS = 0.5
_HOUR = 3_600.0
_LONGEST_AGE_HOURS = 87_600  # ten years, the most the option takes
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def run(options: argparse.Namespace, say: Say) -> bool:
    """Do what the command line says.

    Args:
        options: `action`, `path`, and those of the action.
        say: Takes a line of the result; it holds nothing that a terminal obeys.

    Returns:
        Whether all is done; false where `replay` leaves or loses something.

    Raises:
        ConfigError: An option of `replay` has a value it cannot have.
        SpoolError: There is no such spool, or `purge` was not confirmed.
    """
    # The spool's texts came from other programs, and a terminal obeys what it is shown.
    return _ACTIONS[options.action](options, lambda line: say(escaped(line)))


def _status(options: argparse.Namespace, say: Say) -> bool:
    now = status(options.path)
    for line in [_as_json(now)] if options.json else _lines(now):
        say(line)
    return True


def _list(options: argparse.Namespace, say: Say) -> bool:
    for event in events(options.path, _kinds(options), options.limit):
        say(_event_as_json(event) if options.json else _event_line(event))
    return True


def _replay(options: argparse.Namespace, say: Say) -> bool:
    before = status(options.path)
    client = AnalyticsClient(
        options.endpoint,
        write_key=options.write_key,
        spool_path=str(options.path),
        # How old an event may get is for the workers to say, by an option that this process does not know.
        max_spool_age_hours=_LONGEST_AGE_HOURS,
    )
    say(f"replaying {before.ledger.pending:,} events to {client.config.endpoint}")
    sent = replay(options.path, client, options.patience, lambda now: say(_progress(now, options.path)))
    after = status(options.path)
    say(_progress(sent, options.path))
    if after.held:
        say(f"{after.held:,} of them are held by {after.processes:,} running process(es), which send them")
    if sent.dropped:
        say("dropped: " + _counted(sent.dropped))
    return not after.ledger.pending and not sent.dropped


def _purge(options: argparse.Namespace, say: Say) -> bool:
    now = status(options.path)
    kinds = _kinds(options)
    which = f"events older than {options.older_than:g} h" if options.older_than else "events"
    question = f"Throw {which} of {' and '.join(kinds)} away, of {now.ledger.pending:,} in {options.path}?"
    if not (options.yes or _confirmed(question)):
        raise SpoolError("nothing was thrown away; --yes does so without asking")
    before = time.time() - (options.older_than or 0) * _HOUR
    say_seldom = _seldom(say)
    count = purge(options.path, kinds, before, lambda so_far: say_seldom(f"{so_far:,} thrown away so far"))
    say(f"{count:,} events thrown away, {status(options.path).ledger.pending:,} left")
    return True


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Say], bool]] = {
    "status": _status,
    "list": _list,
    "replay": _replay,
    "purge": _purge,
}


def _kinds(options: argparse.Namespace) -> Sequence[Kind]:
    return [Kind(options.kind)] if options.kind else list(Kind)


def _confirmed(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{escaped(question)} [y/N] ").strip().lower() in {"y", "yes"}


def _seldom(say: Say) -> Say:
    """Return what says a line only where the last one is half a second old."""
    said_at = time.monotonic()

    def say_seldom(line: str) -> None:
        nonlocal said_at
        if time.monotonic() >= said_at + _PROGRESS_SECONDS:
            said_at = time.monotonic()
            say(line)

    return say_seldom


def _lines(now: Status) -> list[str]:
    ledger = now.ledger
    reasons = _counted(ledger.dropped)
    lines = [
        f"accepted   {ledger.accepted:,}",
        f"delivered  {ledger.delivered:,}",
        f"dropped    {sum(ledger.dropped.values()):,}" + (f" ({reasons})" if reasons else ""),
        f"pending    {ledger.pending:,}",
    ]
    for kind, waiting in now.waiting.items():
        if waiting.oldest is not None:
            age = _duration(time.time() - waiting.oldest)
            lines.append(
                f"  {waiting.count:,} of kind {kind.value}: {waiting.bytes:,} bytes, the oldest {age} old"
            )
    if now.ledger.pending:
        free = now.ledger.pending - now.held
        lines.append(f"  {now.held:,} held by {now.processes:,} running process(es), {free:,} by nobody")
    if now.damaged:
        lines.append(f"damaged    {now.damaged:,} file(s), set aside or unreadable")
    return lines


def _counted(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))


def _as_json(now: Status) -> str:
    kinds = {kind.value: asdict(waiting) for kind, waiting in now.waiting.items()}
    ledger = {name: value for name, value in asdict(now.ledger).items() if name != "noted"}
    counts = {"held": now.held, "processes": now.processes, "damaged": now.damaged}
    return json.dumps({**ledger, "kinds": kinds, **counts})


def _event_line(event: SpooledEvent) -> str:
    what = event.body.get("contentId") or f"{event.body.get('metricType')} {event.body.get('targetId')}"
    holder = "held" if event.is_held else "free"
    return f"{_time(event)}  {event.kind.value:<10}  {holder}  {event.event_id}  {what}"


def _event_as_json(event: SpooledEvent) -> str:
    return json.dumps(
        {
            "kind": event.kind.value,
            "eventId": event.event_id,
            "acceptedAt": _time(event),
            "held": event.is_held,
            "body": event.body,
        },
        ensure_ascii=False,
    )


def _time(event: SpooledEvent) -> str:
    return rfc3339(round(event.accepted_at * 1e9))


def _progress(now: LedgerSnapshot, path: Path) -> str:
    dropped = sum(now.dropped.values())
    return f"{now.delivered:,} delivered, {dropped:,} dropped, {status(path).ledger.pending:,} left"


def _duration(seconds: float) -> str:
    """Return the largest unit that fits, and the next: ``3 d 4 h``."""
    left, parts = max(int(seconds), 0), list[str]()
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
