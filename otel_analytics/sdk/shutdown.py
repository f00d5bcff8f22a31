"""The last seconds before a process ends by SIGTERM, or an ASGI application by its lifespan.

Servers end on SIGTERM without ``atexit``: uvicorn, werkzeug and waitress let the signal's default action
kill the process, and with it goes what waits in `BatchSpanProcessor`. `flush_on_sigterm` puts itself where
only the default action is, flushes, and lets the signal do what it would have done: the exit status stays.

CPython calls a handler between two steps of Python code, so a call into C that takes long delays it by as
much.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from opentelemetry import trace

from otel_analytics import process
from otel_analytics.delivery.delivery import Delivery
from otel_analytics.delivery.logs import log_safely
from otel_analytics.errors import FOREIGN_ERRORS
from otel_analytics.sdk.intake import SpanIntake

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApplication = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def flush_on_sigterm(timeout_millis: float = 5_000) -> bool:
    """On SIGTERM shut the global tracer provider down, flush every client, and die of the signal as before.

    A second SIGTERM kills at once, and so does the first in a child of `multiprocessing` that has this
    handler from its parent, by which it is told to end. Process 1, for which the kernel ignores default
    actions, exits with the status a shell shows for the signal.

    Does nothing where somebody handles SIGTERM already: such a program ends by itself, ``atexit`` follows.
    The environment path (``OTEL_TRACES_EXPORTER=analytics``) calls this by itself, and again in uvicorn's
    workers under gunicorn, which reset their signals; see `sdk.gunicorn`. An application that gunicorn loads
    before it forks (``--preload``) and that is set up in code calls this in gunicorn's ``post_worker_init``.

    Args:
        timeout_millis: Longest delay of the process's end, milliseconds.

    Returns:
        Whether the handler was set: only the main thread may, and only the default action is replaced.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGTERM, partial(_flush_and_die, timeout_millis, os.getpid()))
    return True


def armed_timeout_millis() -> float | None:
    """Return the ``timeout_millis`` of `flush_on_sigterm`'s handler, none where that is not set."""
    handler = signal.getsignal(signal.SIGTERM)
    if not (isinstance(handler, partial) and handler.func is _flush_and_die):
        return None
    timeout_millis: float = handler.args[0]
    return timeout_millis


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


def _flush_and_die(timeout_millis: float, installed_in: int, number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    seconds = timeout_millis / 1000
    is_inherited = installed_in != os.getpid()
    if not (is_inherited and process.is_child_of_multiprocessing()):
        # The provider's shutdown, at the same time as other clients' flush: a hanging collector is not
        # everybody's.
        _within(seconds, _provider_method("shutdown"), *_flushes(seconds))
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # still here: process 1


def _flush_all(timeout_millis: float) -> None:
    # `BatchSpanProcessor` hands its spans to the exporter, but does not have the exporter flush.
    _provider_method("force_flush")()
    _within(timeout_millis / 1000, *_flushes(timeout_millis / 1000))


def _flushes(seconds: float) -> list[Callable[[], object]]:
    flushes: list[Callable[[], object]] = [
        partial(delivery.flush, seconds) for delivery in process.residents(Delivery)
    ]
    # Where nothing has left yet, all there is may wait for a server span, before any delivery is made.
    return flushes + [intake.at_exit for intake in process.residents(SpanIntake)]


def _within(seconds: float, *works: Callable[[], object]) -> None:
    """Do several things at once, on other threads: the interrupted code may hold any lock."""
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=_safely, args=(work,), daemon=True) for work in works]
    with suppress(RuntimeError):  # the interpreter is ending, and starts none any more
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))


def _safely(work: Callable[[], object]) -> None:
    try:
        work()
    except FOREIGN_ERRORS:  # a processor or exporter beside ours
        log_safely(logging.ERROR, "what ends with the process raised", exc_info=True)


def _provider_method(name: str) -> Callable[[], object]:
    """Return a method of the global provider, which has none of these where no SDK is set up."""
    method: Callable[[], object] = getattr(trace.get_tracer_provider(), name, lambda: None)
    return method
