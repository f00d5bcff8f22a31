"""One request, one view: the second server span of a request is recognised where it stands alone.

Two instrumentations make one. FastAPI and Starlette can trace themselves (scopes ``fastapi``, ``starlette``):
beside the official instrumentation, or mounted in an application that it wraps, the same request has a second
server span, a root or a sibling. The two know each other only by method, path, status and time. Where one is
the other's child, `identity` knows by the structure. AWS Lambda's instrumentation may know no path; but a
function serves one request at a time, so that method, status and time say enough there.

aiohttp's instrumentation gives a sub-application's request two roots, one in the other. The outer span ends
right after the inner one and encloses it; nothing else tells it from a second request for the same path. But
a sub-application's requests always come in such pairs: once one came alone, its endpoint has no pairs, and
all its spans are views. In both cases whichever ends second gives no view.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Final, NamedTuple

from otel_analytics.mapping import semconv
from otel_analytics.mapping.calls import Call
from otel_analytics.mapping.endpoint import raw_path
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.reading import SpanReading
from otel_analytics.mapping.values import first_text

_SELF_TRACING: Final = frozenset({"fastapi", "starlette"})
_NESTING: Final = frozenset({"opentelemetry.instrumentation.aiohttp_server"})
_OF_FUNCTIONS: Final = frozenset({"opentelemetry.instrumentation.aws_lambda"})
"""For a path these have the API gateway's resource, such as ``/{proxy+}``, where its payload is 1.0's."""
_DOUBLING: Final = _SELF_TRACING | _NESTING
_MOST_PATHS = 256
_MOST_PER_PATH = 64
_MOST_UNPAIRED = 4096

_Times = tuple[int, int]


class SecondSpans:
    """Remembers, briefly, requests that may have a second server span.

    Without a lock, so that a fork cannot inherit a held one: every step is a single operation of a built-in
    collection, and the worst of a race is a second span not recognised.
    """

    def __init__(self) -> None:
        self._waiting: dict[Any, deque[_Times]] = {}
        self._nesting = _NestingSpans()

    def is_second(self, call: Call, reading: SpanReading) -> bool:
        """Whether another server span of the same request has been seen.

        Args:
            call: What the span describes.
            reading: A server span.
        """
        span, scope = reading.span, reading.span.instrumentation_scope
        if scope is not None and scope.name in _NESTING:
            return self._nesting.is_outer(call, reading)
        inner = scope is not None and scope.name in _SELF_TRACING
        if not (inner or call.mounted or self._waiting):
            return False
        times = span.start_time or 0, span.end_time or 0
        request = call.method, raw_path(first_text(reading.attributes, semconv.PATH)), call.status
        if self._take((*request, not inner), times):
            return True
        if scope is not None and scope.name in _OF_FUNCTIONS:
            return self._take_any(call, times)
        if not (inner or call.mounted):
            return False
        if len(self._waiting) >= _MOST_PATHS:
            self._waiting.clear()  # a second span ends within milliseconds
        self._waiting.setdefault((*request, inner), deque(maxlen=_MOST_PER_PATH)).append(times)
        return False

    def is_single(self, call: Call, span: Span) -> bool:
        """Whether a server span's request has no other one, as far as can be told beforehand."""
        scope = span.instrumentation_scope
        return not (self._waiting or call.mounted or (scope and scope.name in _DOUBLING))

    def _take_any(self, call: Call, times: _Times) -> bool:
        """Take a self-traced request whatever its path is."""
        alike = [
            key for key in tuple(self._waiting) if (key[0], *key[2:]) == (call.method, call.status, True)
        ]
        return any(self._take(key, times) for key in alike)

    def _take(self, key: Any, times: _Times) -> bool:
        waiting = self._waiting.get(key)
        for other in tuple(waiting or ()):
            if waiting and times[0] <= other[1] and other[0] <= times[1]:
                with suppress(ValueError):  # another thread's second span
                    waiting.remove(other)
                    return True
        return False


class _Request(NamedTuple):
    what: tuple[object, ...]
    application: tuple[str, str]
    start: int
    end: int
    paired: bool = False

    def encloses(self, inner: _Request) -> bool:
        return self.what == inner.what and self.start <= inner.start and inner.end <= self.end


class _NestingSpans:
    """Remembers the last server span, and which applications' endpoints have no pairs."""

    def __init__(self) -> None:
        self._last: _Request | None = None
        self._unpaired: set[tuple[str, str]] = set()

    def is_outer(self, call: Call, reading: SpanReading) -> bool:
        """Whether a span encloses the span before it and is of the same request."""
        last, span = self._last, reading.span
        path = raw_path(first_text(reading.attributes, semconv.PATH))
        # Requests that no route took share an endpoint, but not the application that did not know them.
        application = call.endpoint, path.split("/", 2)[1] if "/" in path else ""
        what = call.method, path, call.status
        request = _Request(what, application, span.start_time or 0, span.end_time or 0)
        paired = last is not None and application not in self._unpaired and request.encloses(last)
        if last is not None and not last.paired and not paired and len(self._unpaired) < _MOST_UNPAIRED:
            self._unpaired.add(last.application)
        self._last = request._replace(paired=paired)
        return paired
