"""The page at `/`: what arrived, as plain HTML without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from otel_analytics.collector.store import Stats, Store, StoredEvent
from otel_analytics.collector.summary import Calls, Engagements, calls, engagements
from otel_analytics.contract import rfc3339
from otel_analytics.escaping import escaped

_MOST_ROWS = 200
_LATEST_EVENTS = 25
_LONGEST_TEXT = 160

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; --bad: #c33; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td.n, th.n { text-align: right; } td.bad, p.bad { color: var(--bad); }
p.none, caption { color: var(--faint); text-align: left; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""The page's own headers: nothing but its one style sheet may load, so nothing an event holds can run."""

_REFUSAL_HINTS = {
    401: "the exporter's write key is not this collector's",
    403: "from a web page of another machine",
    413: "more than one request may hold",
    415: "no JSON, an unknown encoding, or an array while batches are off",
    421: "to a host other than localhost, which is all that this address serves",
}


class _Column(NamedTuple):
    title: str
    style: str = ""


def render(store: Store, url: str) -> str:
    """Return the page.

    Args:
        store: What to show.
        url: The collector's own base URL, for the hint on an empty page.
    """
    stats = store.stats()
    sections = _sections(store) if stats.stored else _getting_started(url)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>otel-analytics collector</title><style>{_STYLE}</style></head><body>"
        f"<h1>otel-analytics collector</h1>{_counts(stats)}{_refusals(stats)}{sections}</body></html>"
    )


def _sections(store: Store) -> str:
    latest = store.events({}, limit=_LATEST_EVENTS, newest_first=True)
    return (
        _table("Calls by endpoint", _CALL_COLUMNS, map(_call_row, calls(store, limit=_MOST_ROWS)))
        + _table(
            "Engagements by type",
            _ENGAGEMENT_COLUMNS,
            map(_engagement_row, engagements(store, limit=_MOST_ROWS)),
        )
        + _table("Latest events", _EVENT_COLUMNS, map(_event_row, latest))
    )


def _getting_started(url: str) -> str:
    return (
        '<p class="none">Nothing has been stored yet. Point an exporter here: '
        f"<code>OTEL_TRACES_EXPORTER=analytics OTEL_EXPORTER_ANALYTICS_ENDPOINT={escape(url)}</code></p>"
    )


def _counts(stats: Stats) -> str:
    dropped = f"<p>{stats.dropped} older events were dropped to make room; they are not below.</p>"
    return (
        f"<p>{stats.received} received: {stats.stored} stored, {stats.duplicates} duplicates, "
        f"{stats.rejected} rejected.</p>{dropped if stats.dropped else ''}"
    )


def _refusals(stats: Stats) -> str:
    return "".join(
        f'<p class="bad">{requests} requests refused with {status}: '
        f"{_REFUSAL_HINTS.get(status, 'see the response')}.</p>"
        for status, requests in sorted(stats.refused.items())
    )


def _table(title: str, columns: Sequence[_Column], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{_cells('td', columns, row)}</tr>" for row in rows)
    heading = f"<h2>{title}</h2>"
    if not body:
        return f'{heading}<p class="none">None yet.</p>'
    head = _cells("th", columns, [column.title for column in columns])
    return f"{heading}<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cells(tag: str, columns: Sequence[_Column], texts: Sequence[str]) -> str:
    """Every text that reaches the page goes through here, and is escaped here."""
    return "".join(
        f'<{tag} class="{column.style}">{escape(_brief(escaped(text)))}</{tag}>'
        for column, text in zip(columns, texts, strict=True)
    )


_CALL_COLUMNS = (
    _Column("Endpoint"),
    _Column("Calls", "n"),
    _Column("Errors", "n"),
    _Column("Median", "n"),
    _Column("95th percentile", "n"),
)
_ENGAGEMENT_COLUMNS = (_Column("Type"), _Column("Events", "n"), _Column("Users", "n"))
_EVENT_COLUMNS = (
    _Column("Received"),
    _Column("Kind"),
    _Column("What"),
    _Column("User"),
    _Column("Status", "n"),
    _Column("Duration", "n"),
)


def _call_row(row: Calls) -> list[str]:
    share = f"{row.error_share:.1%}"
    return [row.content_id, str(row.count), share, _millis(row.median_millis), _millis(row.p95_millis)]


def _engagement_row(row: Engagements) -> list[str]:
    return [row.metric_type, str(row.count), str(row.users)]


def _event_row(event: StoredEvent) -> list[str]:
    body = json.loads(event.body)
    metadata = body.get("metadata", {})
    return [
        rfc3339(event.received_millis * 1_000_000),
        event.kind,
        body.get("contentId") or f"{body['metricType']} \N{RIGHTWARDS ARROW} {body['targetId']}",
        body.get("userId", ""),
        str(metadata.get("statusCode", "")),
        _millis(body.get("duration")),
    ]


def _millis(duration: float | None) -> str:
    return "" if duration is None else f"{duration:,.1f} ms"


def _brief(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
