"""One request, one view, where each of two nested applications leaves a server span of its own, both roots.

aiohttp's instrumentation does that for a sub-application. The outer span ends right after the inner one and
encloses it; nothing else tells it from a second request for the same path. But a sub-application's requests
always come in such pairs: once one came alone, its endpoint has no pairs, and all its spans are views.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_analytics.mapping import semconv
from otel_analytics.mapping.calls import Call
from otel_analytics.mapping.endpoint import raw_path
from otel_analytics.mapping.reading import Source
from otel_analytics.mapping.values import first_text

SCOPES: Final = frozenset({"opentelemetry.instrumentation.aiohttp_server"})
"""Instrumentations that nest server spans."""

_MOST_SINGLE = 4096


class _Request(NamedTuple):
    what: tuple[object, ...]
    place: tuple[str, str]
    start: int
    end: int
    paired: bool = False


class Nested:
    """Remembers the last server span, and which endpoints have no pairs; without a lock, as `Twins`."""

    def __init__(self) -> None:
        self._last: _Request | None = None
        self._single: set[tuple[str, str]] = set()

    def is_outer(self, call: Call, source: Source) -> bool:
        """Whether a span of one of the `SCOPES` encloses the span before it and is of the same request."""
        last, span = self._last, source.span
        path = raw_path(first_text(source.attributes, semconv.PATH))
        # Requests that no route took share an endpoint, but not the application that did not know them.
        place = call.endpoint, path.split("/", 2)[1] if "/" in path else ""
        request = _Request((call.method, path, call.status), place, span.start_time or 0, span.end_time or 0)
        paired = last is not None and place not in self._single and _encloses(request, last)
        if last is not None and not last.paired and not paired and len(self._single) < _MOST_SINGLE:
            self._single.add(last.place)
        self._last = request._replace(paired=paired)
        return paired


def _encloses(outer: _Request, inner: _Request) -> bool:
    return outer.what == inner.what and outer.start <= inner.start and inner.end <= outer.end
