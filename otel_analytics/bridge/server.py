"""A bridge as a running server: one thread, one event loop, which owns what is taken.

It ends in an order that loses nothing: no longer healthy, so that others are sent to; a while for the server
spans of what is held; nothing taken any more, and all that waits let go; what was held is answered; and then
the client delivers what it has, or leaves it in its spool.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_analytics.bridge.grpc import GrpcServer
from otel_analytics.bridge.http import build_app
from otel_analytics.bridge.reception import Limits, Reception
from otel_analytics.client import AnalyticsClient
from otel_analytics.collector.connections import BoundedServer, ConnectionLimits, listen
from otel_analytics.collector.signals import stop_signals
from otel_analytics.collector.visitors import is_loopback

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 on

_ANSWER_SECONDS: Final = 2
_IDLE_SECONDS: Final = 20
_STOP_SECONDS: Final = 15
_EXPOSED: Final = "WARNING: other machines can send events to this bridge, which has no token."


class Address(NamedTuple):
    """Where to listen; port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Bridge:
    """Takes OTLP and the contract's events in a background thread; a context manager.

    It listens when ``__enter__`` returns. ``__exit__`` ends it, within seconds; the client is the caller's,
    to be shut down afterwards.

    Args:
        client: Delivers.
        otlp: Where to take OTLP/HTTP and the contract's events; `None`: nowhere.
        otlp_grpc: Where to take OTLP/gRPC.
        token: What senders must show, as ``Authorization: Bearer`` or ``X-Write-Key``; `None` asks for none.
        limits: What is taken at most.
        ended: Is set when it has stopped serving, for whatever reason.

    Raises:
        OSError: On entering, an address cannot be listened on.
    """

    def __init__(
        self,
        client: AnalyticsClient,
        *,
        otlp: Address | None = None,
        otlp_grpc: Address | None = None,
        token: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        ended: threading.Event | None = None,
    ) -> None:
        self.otlp = otlp
        self.otlp_grpc = otlp_grpc
        self._client = client
        self._token = token
        self._limits = limits
        self._ended = ended or threading.Event()
        self._listening = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="otel-analytics-bridge", daemon=True)

    @property
    def addresses(self) -> Sequence[Address]:
        """Where it listens, with the real ports while it serves."""
        return [each for each in (self.otlp, self.otlp_grpc) if each is not None]

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - raised where it is waited for
            self._failure = failure
        finally:
            self._listening.set()
            self._ended.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        reception = Reception(self._client, self._token, self._limits)
        stopping = asyncio.create_task(self._stopping.wait())
        async with AsyncExitStack() as servers:
            ends: list[asyncio.Task[Any]] = [stopping]
            if self.otlp_grpc is not None:
                grpc = GrpcServer(reception)
                servers.push_async_callback(grpc.stop, _ANSWER_SECONDS)
                with _naming(self.otlp_grpc):
                    port = await grpc.start(str(self.otlp_grpc))
                self.otlp_grpc = self.otlp_grpc._replace(port=port)
            if self.otlp is not None:
                with _naming(self.otlp):
                    http = _HttpServer(reception, self.otlp)
                servers.push_async_callback(http.stop)
                self.otlp = http.address
                ends.append(http.serving)
            self._client.flush(0)  # begins to deliver what a spool has of another process
            self._listening.set()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await reception.end()


@contextmanager
def _naming(address: Address) -> Iterator[None]:
    """Have an error say where it is that nobody can listen."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{address}: {error.strerror}") from None


class _HttpServer:
    """Serves on the running loop until it is stopped."""

    def __init__(self, reception: Reception, address: Address) -> None:
        self._listener = listen(*address)
        self.address = address._replace(port=self._listener.getsockname()[1])
        limits = reception.limits
        # A page in a browser cannot know a token.
        locally = is_loopback(address.host) and not reception.has_token
        self._server = BoundedServer(
            build_app(reception, locally=locally),
            ConnectionLimits(limits.connections, limits.request_seconds + reception.longest_wait),
            "the bridge",
            timeout_graceful_shutdown=_ANSWER_SECONDS,
            # Longer than exporters pause: what closes on an idle one loses the request that is just sent.
            timeout_keep_alive=_IDLE_SECONDS,
        )
        self.serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        self._server.should_exit = True
        await self.serving
        self._listener.close()


def serve(client: AnalyticsClient, *, announce: Callable[[str], None], **options: object) -> bool:
    """Serve in the foreground until SIGINT or SIGTERM, and shut the client down. Call it on the main thread.

    Args:
        client: Delivers.
        announce: Is told what a person should know, a line at a time.
        **options: As for `Bridge`.

    Returns:
        Whether nothing was lost at the end.

    Raises:
        OSError: An address cannot be listened on.
    """
    # It would say of each request that is no HTTP that it is none.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    with stop_signals() as stop:
        with Bridge(client, ended=stop, **options) as bridge:  # type: ignore[arg-type]
            if not options.get("token") and not all(is_loopback(each.host) for each in bridge.addresses):
                announce(_EXPOSED)
            announce(_where(bridge, client))
            stop.wait()
        return client.shutdown()


def _where(bridge: Bridge, client: AnalyticsClient) -> str:
    at = {"OTLP/HTTP and relay at http://": bridge.otlp, "OTLP/gRPC at ": bridge.otlp_grpc}
    said = ", ".join(f"{name}{address}" for name, address in at.items() if address is not None)
    return f"Bridge: {said}, to {client.config.endpoint} (Ctrl-C stops it)"
