"""A request to the collector and back; the only module that imports httpx.

httpx's transport is used below its client: no INFO line for each request, no redirects followed, no cookies
kept, and a third of the time. A transport belongs to one thread and holds one keep-alive connection.
Failures are values.
"""

from __future__ import annotations

import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import httpx

from otel_analytics.contract import PATHS, WRITE_KEY
from otel_analytics.delivery.http.wire import Answer, NoAnswer, Request

_MAX_ANSWER_BYTES = 1_000_000  # an acknowledgement that lists every event of a batch is far below that
_KEEP_ALIVE_SECONDS = 30.0
_CHUNK = 262_144
# For plain HTTP, where none is used: httpx would load all certificates for it. Made here: see `prepare_tls`.
_TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNREACHED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class Transport:
    """One connection to the collector.

    Args:
        endpoint: Base URL, without a trailing slash.
        write_key: Sent as ``X-Write-Key``.
        clock: Monotonic seconds.
    """

    def __init__(
        self, endpoint: str, write_key: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._urls = {path: httpx.URL(endpoint + path) for path in PATHS.values()}
        self._key_header = {WRITE_KEY: write_key} if write_key else {}
        self._clock = clock
        self._endpoint = httpx.URL(endpoint)
        self._connection: httpx.HTTPTransport | None = None
        self._stream: Any = None
        self._deadline = 0.0
        self._is_fresh = True
        self._is_forgotten = False

    def send(self, request: Request, timeout: float) -> Answer | NoAnswer:
        """Send a request and wait for the answer, connecting included, at most ``timeout`` seconds."""
        self._deadline = self._clock() + timeout
        self._is_fresh = False
        result = self._attempt(request)
        if isinstance(result, NoAnswer) and result.reached and not self._is_fresh and self._remaining() > 0:
            # The server closed the idle connection just as we used it: that says nothing about its health.
            result = self._attempt(request)
        return result

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def forget(self) -> None:
        """Let go of the socket in a forked child: it is the parent's, which keeps it."""
        self._is_forgotten = True
        descriptor = -1 if self._stream is None else self._stream.get_extra_info("socket").fileno()
        if descriptor >= 0:
            # Not closed: gevent would take it off the event loop, which right after a fork is the parent's.
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, descriptor, inheritable=False)
            os.close(nothing)

    def _attempt(self, request: Request) -> Answer | NoAnswer:
        try:
            self._refuse_forgotten()
            response = self._connected().handle_request(self._outgoing(request))
            try:
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, headers, self._read(response))
            finally:
                response.close()
        except httpx.TimeoutException as error:
            reached = not isinstance(error, _UNREACHED)
            return NoAnswer("no answer in time" if reached else "no connection in time", reached=reached)
        except (httpx.RequestError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
            return NoAnswer(_describe(error), reached=not isinstance(error, _UNREACHED))

    def _connected(self) -> httpx.HTTPTransport:
        """Return the connection; made here, so that bad certificates or proxies are a failed request."""
        if self._connection is None:
            self._connection = httpx.HTTPTransport(
                verify=_context_for(self._endpoint),
                limits=httpx.Limits(
                    max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEP_ALIVE_SECONDS
                ),
                proxy=_proxy_for(self._endpoint),
            )
        return self._connection

    def _outgoing(self, request: Request) -> httpx.Request:
        remaining = max(self._remaining(), 0.001)
        return httpx.Request(
            "POST",
            self._urls[request.path],
            headers={**request.headers, **self._key_header, "Content-Length": str(len(request.body))},
            content=_chunks(request.body),
            extensions={
                "timeout": dict.fromkeys(("connect", "read", "write", "pool"), remaining),
                "trace": self._on_trace,
            },
        )

    def _read(self, response: httpx.Response) -> bytes:
        """Read the body as far as it can matter; the rest stays unread and the connection is closed."""
        body = b""
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES:
                break
        return body

    def _remaining(self) -> float:
        return self._deadline - self._clock()

    def _on_trace(self, event: str, info: dict[str, Any]) -> None:
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._is_fresh = True
            self._stream = info["return_value"]
            self._bound(self._stream)

    def _bound(self, stream: Any) -> None:
        """Hold every read and write of a connection to the deadline of the whole request.

        httpx's timeouts begin anew with each read, so an answer that drips in byte by byte would never end.
        """
        for name in ("read", "write"):
            setattr(stream, name, self._within_deadline(getattr(stream, name)))

    def _within_deadline(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def bounded(argument: Any, timeout: float | None = None) -> Any:  # noqa: ARG001 - httpcore's signature
            self._refuse_forgotten()
            return operation(argument, timeout=max(self._remaining(), 0.001))

        return bounded

    def _refuse_forgotten(self) -> None:
        if self._is_forgotten:
            raise ConnectionAbortedError("this process has been forked")


def _import_everything() -> None:
    """Have httpx and the codec of host names import now what they would import at the first request.

    That would be on a sending thread, and a fork while a thread imports leaves the child a half-made module.
    """
    httpx.HTTPTransport(verify=_TRUSTING_NOBODY).close()
    "localhost".encode("idna")


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def prepare_tls(endpoint: str) -> None:
    """Load the certificates that an endpoint needs now, on the thread that configures.

    On a sending thread a fork could meet it: OpenSSL's locks, held in that moment, stay held in the child.
    What is wrong with the certificates is said by the first request.
    """
    with suppress(OSError, ValueError):
        _context_for(httpx.URL(endpoint))


def _context_for(endpoint: httpx.URL) -> ssl.SSLContext:
    return _tls_context() if endpoint.scheme == "https" else _TRUSTING_NOBODY


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Load the certificates once: it takes tens of milliseconds, and honours SSL_CERT_FILE."""
    return httpx.create_ssl_context()


def _proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for a URL (``HTTPS_PROXY``, ``NO_PROXY``, ...)."""
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(url.host):
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def parse_endpoint(text: str) -> httpx.URL | None:
    """Parse a base URL as `Transport` and the socket below it will; `None` where either would fail."""
    try:
        for path in PATHS.values():
            httpx.URL(text.rstrip("/") + path)
        url = httpx.URL(text)
        url.host.encode("idna")  # decodes xn-- on the way, as looking for a proxy does
        url.raw_host.decode("ascii").encode("idna")  # as the look-up of the address does
    except (httpx.InvalidURL, ValueError):
        return None
    return url


_import_everything()
