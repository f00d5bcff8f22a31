"""``otel-analytics tail``: a line for each event that arrives at a running dev collector."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx

from otel_analytics.config import Config
from otel_analytics.delivery.http.reasons import one_line
from otel_analytics.errors import AnalyticsError

Say = Callable[[str], None]

_POLL_SECONDS: Final = 0.25
_PAGE: Final = 500
_LARGEST_PAGE: Final = 10_000
_TIMEOUT_SECONDS: Final = 5.0


class TailError(AnalyticsError):
    """There is no dev collector; the message says where."""


class Tail:
    """Reads what a dev collector has stored since it was read last.

    A full collector forgets its oldest events, so that places move: the newest are read again each time, and
    those that were there before are left out.

    Args:
        endpoint: The collector's base URL.
    """

    def __init__(self, endpoint: str) -> None:
        self._url = f"{endpoint}/events"
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS)
        self._total = 0
        self._shown: set[str] = set()

    def skip(self) -> None:
        """Leave out what is there already.

        Raises:
            TailError: Nobody answers there as the dev collector does.
        """
        self.lines()

    def lines(self) -> list[str]:
        """Return a line for each new event.

        Raises:
            TailError: Nobody answers there as the dev collector does.
        """
        try:
            total = self._read(0, 0)["total"]
            page = min(max(_PAGE, total - self._total + _PAGE), _LARGEST_PAGE)
            events = self._read(page, max(total - page, 0))["events"]
            keyed = [(str(event["body"]) + event["receivedAt"], event) for event in events]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise TailError(f"no dev collector at {self._url}: {one_line(str(error))}") from None
        new = [_line(event) for key, event in keyed if key not in self._shown]
        self._total, self._shown = total, {key for key, _ in keyed}
        return new

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _read(self, limit: int, offset: int) -> Any:
        answer = self._client.get(self._url, params={"limit": limit, "offset": offset})
        return answer.raise_for_status().json()


def run(options: argparse.Namespace, say: Say) -> bool:
    """Show what arrives until interrupted.

    Args:
        options: `endpoint`, or `None`.
        say: Takes a line, in which nothing is that a terminal obeys.

    Raises:
        ConfigError: The endpoint is none.
        TailError: Nobody answers there as the dev collector does.
    """
    tail = Tail(Config.resolve(endpoint=options.endpoint).endpoint)
    tail.skip()
    follow(tail, say, threading.Event())
    return True


def follow(tail: Tail, say: Say, stopped: threading.Event) -> None:
    """Show what arrives until it is stopped, and then what has arrived by then."""
    is_last = False
    while not is_last:
        is_last = stopped.wait(_POLL_SECONDS)
        for line in tail.lines():
            say(line)


def _line(event: Mapping[str, Any]) -> str:
    body = event["body"]
    metadata = body.get("metadata") or {}
    what = body.get("contentId") or f"{body.get('metricType')} {body.get('targetId')}"
    parts = [
        event["receivedAt"][11:19],
        str(event["kind"]),
        str(metadata.get("businessEventType", "")),
        str(what),
        str(metadata.get("statusCode", "")),
        f"user {body['userId']}" if body.get("userId") else "",
        f"{body['duration']} ms" if "duration" in body else "",
    ]
    return one_line(" ".join(filter(None, parts)))
