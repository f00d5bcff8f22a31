"""The last seconds before a process ends by SIGTERM, or an ASGI application by its lifespan.

Servers end on SIGTERM without ``atexit``: uvicorn, werkzeug and waitress let the signal's default action
kill the process, and with it goes what waits in `BatchSpanProcessor`. `flush_on_sigterm` puts itself where
only the default action is, flushes, and lets the signal do what it would have done: the exit status stays.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from types import FrameType
from typing import Any

from opentelemetry import trace

from otel_analytics import process
from otel_analytics.delivery.delivery import Delivery

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApplication = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def flush_on_sigterm(timeout_millis: float = 5_000) -> bool:
    """Shut the global tracer provider down on SIGTERM, then die of the signal as before.

    Does nothing where somebody handles SIGTERM already: such a program ends by itself, ``atexit`` follows.
    The environment path (``OTEL_TRACES_EXPORTER=analytics``) calls this by itself. gunicorn resets signals in
    each worker; there ``GUNICORN_CMD_ARGS="--config python:otel_analytics.sdk.gunicorn"`` calls it again.

    Args:
        timeout_millis: Longest delay of the process's end, milliseconds.

    Returns:
        Whether the handler was set: only the main thread may, and only the default action is replaced.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGTERM, partial(_flush_and_die, timeout_millis / 1000))
    return True


class FlushOnShutdown:
    """ASGI middleware that flushes the tracer provider when the application's lifespan ends.

    For those who prefer code to signals::

        app = FlushOnShutdown(app)

    Args:
        app: An ASGI application (ASGI specification, version 3).
        timeout_millis: Longest delay of the shutdown, milliseconds.
    """

    def __init__(self, app: AsgiApplication, timeout_millis: float = 5_000) -> None:
        self._app = app
        self._timeout_millis = timeout_millis

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve; in the lifespan's own scope, flush before the shutdown is reported complete."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def flush_then_send(message: MutableMapping[str, Any]) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                # The event loop has no requests left to serve, so nobody is kept waiting.
                flush_all(self._timeout_millis)
            await send(message)

        await self._app(scope, receive, flush_then_send)


def flush_all(timeout_millis: float = 5_000) -> None:
    """Flush the global tracer provider, then every client: for hooks that are called before a process ends.

    Args:
        timeout_millis: Longest wait, milliseconds.
    """
    _within(timeout_millis / 1000, partial(_flush_all, timeout_millis))


def _flush_and_die(seconds: float, number: int, _: FrameType | None) -> None:
    # The interrupted code may hold any lock, so the work is another thread's, and waiting for it has an end.
    _within(seconds, _provider_method("shutdown"))
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _flush_all(timeout_millis: float) -> None:
    # `BatchSpanProcessor` hands its spans to the exporter, but does not have the exporter flush.
    _provider_method("force_flush")()
    for delivery in process.residents(Delivery):
        delivery.flush(timeout_millis / 1000)


def _within(seconds: float, work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, name="otel-analytics-ending", daemon=True)
    thread.start()
    thread.join(seconds)


def _provider_method(name: str) -> Callable[[], object]:
    """Return a method of the global provider, which has none of these where no SDK is set up."""
    method: Callable[[], object] = getattr(trace.get_tracer_provider(), name, lambda: None)
    return method
