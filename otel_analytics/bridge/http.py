"""A bridge's HTTP: OTLP, as https://opentelemetry.io/docs/specs/otlp/#otlphttp has it, the relay, and health.

=====  ===========================  ==============================================================
POST   /v1/traces                   an ``ExportTraceServiceRequest``
POST   /v1/logs                     an ``ExportLogsServiceRequest``
POST   /analytics/track/view        see `bridge.relay`
POST   /analytics/track/engagement  the same
GET    /health                      200 while it takes requests, 503 while it is full or ending
=====  ===========================  ==============================================================

Of its answers only 503 asks to send again; 429 is none, since some exporters take it for final.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router, request_response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_analytics.bridge.intake import NoRoomError, Signal
from otel_analytics.bridge.otlp import Encoding, OtlpError
from otel_analytics.bridge.reception import Reception, UnknownSenderError
from otel_analytics.bridge.relay import Relay
from otel_analytics.collector.bodies import content_type, decoded, read_body
from otel_analytics.collector.refusal import Refusal
from otel_analytics.collector.visitors import locals_only
from otel_analytics.contract import PATHS
from otel_analytics.errors import AnalyticsError

_RETRY_SECONDS: Final = 1
_ENCODINGS: Final[Mapping[str, Encoding]] = {
    "application/x-protobuf": Encoding.PROTO,
    "application/json": Encoding.JSON,
}
_TYPES: Final = {encoding: name for name, encoding in _ENCODINGS.items()}
_PATHS: Final = {Signal.TRACES: "/v1/traces", Signal.LOGS: "/v1/logs"}
_STATUSES: Final[Mapping[type[AnalyticsError], int]] = {
    OtlpError: 400,
    UnknownSenderError: 401,
    NoRoomError: 503,
}
_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer"},
    503: {"Retry-After": str(_RETRY_SECONDS)},
}
REJECTED: Final = "spans without a valid trace id and span id"


def build_app(reception: Reception, *, locally: bool) -> ASGIApp:
    """Return a bridge as an ASGI application.

    Args:
        reception: Takes what comes.
        locally: Whether it is for this machine only, see `locals_only`.
    """
    relay = Relay(reception)
    routes = [
        *(Route(path, partial(_otlp, reception, of), methods=["POST"]) for of, path in _PATHS.items()),
        *(Route(path, partial(_relayed, relay, kind), methods=["POST"]) for kind, path in PATHS.items()),
        Route("/health", partial(_health, reception)),
    ]
    # No `Starlette` object, as in the dev collector.
    router = _counting(reception, Router(routes, redirect_slashes=False, default=request_response(_unknown)))
    handlers: Any = {Refusal: _turned_away, ClientDisconnect: _gone}
    return ExceptionMiddleware(locals_only(router) if locally else router, handlers=handlers)


async def _otlp(reception: Reception, signal: Signal, request: Request) -> Response:
    encoding = _ENCODINGS.get(content_type(request.headers), Encoding.JSON)
    limit = reception.limits.body_bytes
    try:
        reception.admit(request.headers.get("authorization", ""))
        sent = await read_body(request, limit, _ENCODINGS)
        body = decoded(sent, request.headers.get("content-encoding", ""), limit)
        rejected = await reception.take(body, signal, encoding)
    except Refusal as refusal:
        return _status(refusal, encoding)
    except AnalyticsError as error:
        return _status(_refusal(error), encoding)
    return Response(success(signal, rejected, encoding), media_type=_TYPES[encoding])


async def _relayed(relay: Relay, kind: Any, request: Request) -> Response:
    try:
        return JSONResponse(await relay.take(kind, request), headers=relay.headers)
    except Refusal as refusal:
        turned_down = refusal
    except AnalyticsError as error:
        turned_down = _refusal(error)
    headers = {**relay.headers, **_HEADERS.get(turned_down.status, {})}
    return JSONResponse({"errors": turned_down.errors}, turned_down.status, headers)


async def _health(reception: Reception, _: Request) -> Response:
    state = reception.state
    return JSONResponse({"status": state}, 200 if state == "ok" else 503)


async def _unknown(request: Request) -> Response:
    encoding = _ENCODINGS.get(content_type(request.headers), Encoding.JSON)
    return _status(Refusal(404, "a bridge takes traces and logs, at /v1/traces and /v1/logs"), encoding)


async def _turned_away(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 - registered for nothing else
    return _status(refusal, Encoding.JSON)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody is left to read it


def _refusal(error: AnalyticsError) -> Refusal:
    return Refusal(_STATUSES.get(type(error), 500), str(error))


def success(signal: Signal, rejected: int, encoding: Encoding) -> bytes:
    """Return the body of an answer to what was taken, all of it or in part.

    Args:
        signal: What was sent.
        rejected: How much of it was not taken.
        encoding: How it is written.
    """
    if encoding is Encoding.JSON:
        partly = {"rejectedSpans": str(rejected), "errorMessage": REJECTED}
        return json.dumps({"partialSuccess": partly} if rejected else {}).encode()
    if signal is Signal.LOGS:
        return bytes(ExportLogsServiceResponse().SerializeToString())
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = REJECTED
    return bytes(answer.SerializeToString())


def _status(refusal: Refusal, encoding: Encoding) -> Response:
    """Return a ``google.rpc.Status`` with nothing but its message, as the specification has it."""
    message = "; ".join(refusal.errors)
    body = json.dumps({"message": message}).encode()
    if encoding is Encoding.PROTO:
        text = message.encode()[:_LONGEST_MESSAGE]
        body = bytes([_MESSAGE_FIELD, *_varint(len(text))]) + text
    headers = _HEADERS.get(refusal.status, {})
    return Response(body, refusal.status, headers, media_type=_TYPES[encoding])


_LONGEST_MESSAGE: Final = 1_000
_MESSAGE_FIELD: Final = 2 << 3 | 2
"""Number 2, of bytes: the one field that is needed of a message that the extra does not bring."""


def _varint(number: int) -> list[int]:
    return [number] if number < 0x80 else [number & 0x7F | 0x80, *_varint(number >> 7)]  # noqa: PLR2004


def _counting(reception: Reception, app: ASGIApp) -> ASGIApp:
    """Return the application with the bytes of each request held from when they come until it is answered."""

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as held:

            async def counted() -> Message:
                message = await receive()
                held.enter_context(reception.hold(len(message.get("body", b""))))
                return message

            await app(scope, counted, send)

    return counting
