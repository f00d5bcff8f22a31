"""The collector as a running server: in a thread for tests and the demo, or in the foreground."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from otel_analytics.collector import summary
from otel_analytics.collector.app import build_app
from otel_analytics.collector.connections import BoundedServer, ConnectionLimits, listen
from otel_analytics.collector.intake import BatchLimits
from otel_analytics.collector.signals import stop_signals
from otel_analytics.collector.store import Stats, Store, StoreLimits
from otel_analytics.collector.visitors import is_loopback

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 on

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4380
MAX_BODY_BYTES = 2_000_000

_STOP_SECONDS = 5
_LAST_REQUESTS_SECONDS = 2


class DevCollector:
    """A collector in a background thread, as a context manager.

    It serves when ``__enter__`` returns and is stopped, within 5 s, by ``__exit__``; what it stored can be
    read inside the block. One object serves once.

    Args:
        host: The address to listen on. On a loopback address, only requests to such addresses and `localhost`
            are answered, and none from other machines' web pages.
        port: The port, 0 for a free one.
        write_key: What `X-Write-Key` must be; `None` asks for none.
        database: A SQLite file, kept afterwards and continued when opened again; `None` keeps all in memory.
        batch: The arrays that are taken and advertised; `None` takes single events only.
        max_body_bytes: Largest request body, before and after decompression.
        connections: How many there may be at a time, and how long a request may take.
        keep: How many events, and bytes of them, are kept; beyond that the oldest are dropped.

    Raises:
        StoreError: On entering, the database cannot be used.
        OSError: On entering, the address cannot be listened on.
    """

    def __init__(
        self,
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
        write_key: str | None = None,
        database: str | os.PathLike[str] | None = None,
        batch: BatchLimits | None = BatchLimits(),  # noqa: B008 - frozen
        max_body_bytes: int = MAX_BODY_BYTES,
        connections: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
        keep: StoreLimits = StoreLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.host = host
        self.port = port
        self._write_key = write_key
        self._database = database
        self._batch = batch
        self._max_body_bytes = max_body_bytes
        self._connections = connections
        self._keep = keep

    @property
    def url(self) -> str:
        """The base URL; while serving, with the real port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._store = Store(self._database, self._keep)
        try:
            listener = listen(self.host, self.port)
        except OSError:
            self._store.close()
            raise
        self.port = listener.getsockname()[1]
        app = build_app(
            self._store,
            write_key=self._write_key,
            batch=self._batch,
            max_body_bytes=self._max_body_bytes,
            locally=is_loopback(self.host),
        )
        self._server = _ThreadedServer(app, listener, self._connections)
        self._server.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()
        self._store.close()

    def events(self, kind: str | None = None, **filters: Any) -> list[dict[str, Any]]:
        """Return the stored bodies in arrival order.

        Args:
            kind: ``"view"`` or ``"engagement"``; both by default.
            **filters: `content_id`, `metric_type`, `user_id`, `event_id`, `since`, `until`, as in
                `GET /events`.

        Raises:
            ValueError: A filter is unknown or cannot have its value.
        """
        wanted = filters if kind is None else {"kind": kind, **filters}
        return [json.loads(event.body) for event in self._store.events(wanted)]

    def stats(self) -> Stats:
        """Return the counts of what came."""
        return self._store.stats()

    def calls(self) -> list[summary.Calls]:
        """Return the views by content, most frequent first: count, errors, median and 95th percentile."""
        return summary.calls(self._store)

    def engagements(self) -> list[summary.Engagements]:
        """Return the engagements by metric type, most frequent first."""
        return summary.engagements(self._store)

    def wait_for(self, count: int, timeout_millis: int = 10_000) -> list[dict[str, Any]]:
        """Wait until that many events are stored, duplicates not counted, and return all of them.

        Raises:
            TimeoutError: Fewer arrived in time; the message says how many.
        """
        stored = self._store.wait_until_stored(count, timeout_millis)
        if stored < count:
            raise TimeoutError(f"{stored} of {count} events stored after {timeout_millis} ms; {self.stats()}")
        return self.events()


def run(
    *, announce: Callable[[str], None], host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, **options: Any
) -> None:
    """Serve in the foreground until SIGINT or SIGTERM. Call it on the main thread.

    Args:
        announce: Is told what a person should know, a line at a time.
        host: The address to listen on.
        port: The port, 0 for a free one.
        **options: As for `DevCollector`.

    Raises:
        StoreError: The database cannot be used.
        OSError: The address cannot be listened on.
    """
    with stop_signals() as stop, DevCollector(host=host, port=port, **options) as collector:
        if not is_loopback(host):
            announce(_exposure(options.get("write_key")))
        announce(f"Collector at {collector.url} (Ctrl-C stops it)")
        stop.wait()
        stats = collector.stats()
    announce(
        f"Stopped: {stats.received} received, {stats.stored} stored, {stats.duplicates} duplicates, "
        f"{stats.rejected} rejected" + (f", {stats.dropped} dropped to make room" if stats.dropped else "")
    )


def _exposure(write_key: str | None) -> str:
    writing = "" if write_key else " and, without a write key, write to it"
    return f"WARNING: other machines can read this collector{writing}. It is made for development."


class _ThreadedServer:
    """uvicorn on a thread of its own: there it leaves the process's signal handlers alone."""

    def __init__(self, app: Any, listener: socket.socket, limits: ConnectionLimits) -> None:
        self._server = BoundedServer(app, limits, timeout_graceful_shutdown=_LAST_REQUESTS_SECONDS)
        self._listener = listener
        self._thread = threading.Thread(target=self._serve, name="dev-collector", daemon=True)

    def start(self) -> None:
        """Start; connections queue in the listener until the event loop runs, so there is no need to wait."""
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)

    def _serve(self) -> None:
        with self._listener:
            self._server.run(sockets=[self._listener])
