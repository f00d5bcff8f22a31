"""One request, one view: the second server span of a mounted application's request is recognised.

FastAPI traces itself where nothing else does (scope ``fastapi``). Mounted in an application that the official
instrumentation wraps, it gives the same request a second server span: a root, or a sibling, never a child.
The two know each other only by method, path, status and time. Whichever ends second gives no view.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Final

from otel_analytics.mapping import semconv
from otel_analytics.mapping.calls import Call
from otel_analytics.mapping.endpoint import raw_path
from otel_analytics.mapping.nested import SCOPES as NESTING_SCOPES
from otel_analytics.mapping.nested import Nested
from otel_analytics.mapping.reading import Source
from otel_analytics.mapping.values import first_text

_SELF_TRACING: Final = frozenset({"fastapi"})
_MOST_PATHS = 256
_MOST_PER_PATH = 64

_Times = tuple[int, int]


class Twins:
    """Remembers, briefly, requests that may have a second server span.

    Without a lock, so that a fork cannot inherit a held one: every step is a single operation of a built-in
    collection, and the worst of a race is a twin not recognised.
    """

    def __init__(self) -> None:
        self._waiting: dict[Any, deque[_Times]] = {}
        self._nested = Nested()

    def is_second(self, call: Call, source: Source) -> bool:
        """Whether another server span of the same request has been seen.

        Args:
            call: What the span describes.
            source: A server span.
        """
        span, scope = source.span, source.span.instrumentation_scope
        if scope is not None and scope.name in NESTING_SCOPES:
            return self._nested.is_outer(call, source)
        inner = scope is not None and scope.name in _SELF_TRACING
        if not (inner or call.mounted):
            return False
        times = span.start_time or 0, span.end_time or 0
        request = call.method, raw_path(first_text(source.attributes, semconv.PATH)), call.status
        if self._take((*request, not inner), times):
            return True
        if len(self._waiting) >= _MOST_PATHS:
            self._waiting.clear()  # a twin ends within milliseconds
        self._waiting.setdefault((*request, inner), deque(maxlen=_MOST_PER_PATH)).append(times)
        return False

    def _take(self, key: Any, times: _Times) -> bool:
        waiting = self._waiting.get(key)
        for other in tuple(waiting or ()):
            if waiting and times[0] <= other[1] and other[0] <= times[1]:
                with suppress(ValueError):  # another thread's twin
                    waiting.remove(other)
                    return True
        return False
