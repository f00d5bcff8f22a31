"""What clients do to an application, and what each of them saw.

Each request is a trace of its own, so that its views are found by trace id, however many there are.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import httpx
from websockets.sync.client import connect

QUERY = "?token=secret"
_TIMEOUT_SECONDS = 10
# A server may close after an error, while the next request is on its way.
_NO_KEEP_ALIVE = httpx.Limits(max_keepalive_connections=0)


class Ask(NamedTuple):
    """A request: what is sent, and the route it is for; an empty route is none."""

    name: str
    method: str
    target: str
    route: str


ASKS = (
    Ask("item", "GET", "/items/42", "item"),
    Ask("order", "POST", "/orders", "order"),
    Ask("missing", "GET", "/nothing/here", ""),
    Ask("wrong_method", "DELETE", "/orders", "order"),
    Ask("boom", "GET", "/boom", "boom"),
    Ask("head", "HEAD", "/items/42", "item"),
    Ask("stream", "GET", "/stream", "stream"),
    Ask("disconnect", "GET", "/slow", "slow"),
    Ask("unicode", "GET", "/uni/caf%C3%A9", "uni"),
    Ask("malformed", "GET", "/uni/%ff%zz", "uni"),
    Ask("absolute", "GET", "http://user:secret@127.0.0.1/items/42", "item"),
    Ask("unknown_method", "FOO", "/items/42", "item"),
    Ask("mounted", "GET", "/v2/things/42", "mounted"),
)
WEBSOCKET = Ask("websocket", "WS", "/ws/blue", "ws")


class Seen(NamedTuple):
    """A request and its response.

    Args:
        ask: The request.
        trace_id: The trace it began, 32 hex digits.
        status: An HTTP status or gRPC code; `None` where the connection broke.
    """

    ask: Ask
    trace_id: str
    status: int | None


def http_traffic(url: str, **options: Any) -> Iterator[Seen]:
    with httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS, limits=_NO_KEEP_ALIVE, **options) as client:
        for ask in ASKS:
            trace_id = _new_trace_id()
            yield Seen(ask, trace_id, _answer(client, ask, trace_id))


def websocket_traffic(url: str) -> Iterator[Seen]:
    trace_id = _new_trace_id()
    address = f"ws{url.removeprefix('http')}{WEBSOCKET.target}{QUERY}"
    with connect(address, additional_headers=_trace_headers(trace_id)) as websocket:
        websocket.send("hello")
        websocket.recv(_TIMEOUT_SECONDS)
    yield Seen(WEBSOCKET, trace_id, 101)


def grpc_traffic(url: str) -> Iterator[Seen]:
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        for name in ("Get", "Order", "Missing", "Boom", "Stream", "Nothing"):
            ask = Ask(name.lower(), "RPC", f"/shop.Orders/{name}", name)
            trace_id = _new_trace_id()
            yield Seen(ask, trace_id, _code(channel, ask, trace_id))


def _answer(client: httpx.Client, ask: Ask, trace_id: str) -> int | None:
    # As the `target` extension, since a URL would be put into order before it is sent.
    extensions = {"target": (ask.target + QUERY).encode()}
    try:
        with client.stream(
            ask.method, "/", headers=_trace_headers(trace_id), extensions=extensions
        ) as response:
            if ask.name == "disconnect":
                next(response.iter_raw())
            else:
                response.read()
            return response.status_code
    except httpx.TransportError:
        return None


def _code(channel: grpc.Channel, ask: Ask, trace_id: str) -> int:
    metadata = tuple(_trace_headers(trace_id).items())
    call: Callable[..., Any] = channel.unary_unary(ask.target)
    if ask.route == "Stream":
        call = channel.unary_stream(ask.target)
    try:
        answer = call(b"", metadata=metadata, timeout=_TIMEOUT_SECONDS)
        list(answer)  # a stream ends with its last part
    except grpc.RpcError as error:
        code: int = error.code().value[0]
        return code
    return 0


def _new_trace_id() -> str:
    return secrets.token_hex(16)


def _trace_headers(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
