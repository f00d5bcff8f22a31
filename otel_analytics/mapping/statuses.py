"""How an API call ended: an HTTP status or an RPC code.

Where instrumentations are silent or wrong, the rules here say what a reader of the figures expects:

* without any status a span that failed is an unhandled exception: HTTP 500, gRPC 2 (`UNKNOWN`);
* but an exception by which a framework answers is none: the client saw the status that it carries, be it
  recorded as 500 (Tornado, Falcon) or not at all (an exception that leaves the instrumented application);
* a client that left in the middle of the response is no 500, though writing to it raises: nobody knows what
  it saw, so there is no status;
* gRPC for Python leaves status 0 on a call whose handler raised: an exception as the span's last event is 2;
* a websocket's handshake has status 101, though ASGI instrumentations write 200.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from otel_analytics.mapping import semconv
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.values import Attributes, as_text, first_int, first_text

Status = int | str | None
"""An int for HTTP and gRPC, another RPC system's own text, `None` where nobody knows."""

SWITCHING_PROTOCOLS: Final = 101
NO_SUCH_ROUTE: Final = frozenset({404, 405})
UNIMPLEMENTED: Final = 12
NO_SUCH_METHOD: Final = frozenset({UNIMPLEMENTED, -32601, "-32601"})
"""What gRPC, and JSON-RPC 2.0 in its section 5.1, answer to a method that nobody implements."""
NO_SUCH_NAME: Final = frozenset({-32602, "-32602", "NotFoundError", "MCPError", "McpError"})
"""What MCP ("Unknown tools", "Invalid prompt name": invalid params) and FastMCP answer to a name a client
made up; invalid params may also be those of a tool that there is. FastMCP before 4.2 has an error's class
instead of its code."""

GRPC_CODES: Final[Mapping[str, int]] = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": UNIMPLEMENTED,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
"""gRPC's status codes, which the newest convention writes as names."""

FAILURES: Final = frozenset(
    (
        *range(500, 600),
        *(GRPC_CODES[name] for name in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED")),
        *(GRPC_CODES[name] for name in ("INTERNAL", "UNAVAILABLE", "DATA_LOSS")),
    )
)
"""Statuses that are the server's fault (semantic conventions for HTTP and gRPC spans, "Status")."""

_HTTP_STATUSES = range(100, 1000)
_ACCEPTED_WEBSOCKET = 200
_HTTP_CRASH = 500
_CLIENT_LEFT = frozenset(
    {
        *("BrokenPipeError", "ConnectionResetError", "ConnectionAbortedError"),
        *(
            "ClientConnectionResetError",
            "StreamClosedError",
            "ClientDisconnect",
        ),  # aiohttp, Tornado, Starlette
    }
)
"""Exceptions of writing to a client that is gone."""
_ANSWERS: Final = (
    *("tornado.web.", "falcon.", "starlette.exceptions.", "fastapi.exceptions.", "litestar.exceptions."),
    *("werkzeug.exceptions.", "connexion.exceptions.", "aiohttp.web_exceptions.", "pyramid.httpexceptions."),
    *("webob.exc.", "sanic.exceptions.", "blacksheep.exceptions.", "bottle.", "cherrypy._cperror."),
)
"""Modules of exceptions by which frameworks answer; those of HTTP clients tell of somebody else's answer."""
# Tornado begins with `HTTP 400: `, Falcon with `<HTTPForbidden: 403 `, CherryPy with `(404, `.
_LEADING_CODE = re.compile(r"(?:HTTP |<\w+: |\()?([2-5]\d\d)\b")
_CODES_BY_NAME: Final = {name.replace("_", ""): int(code) for name, code in HTTPStatus.__members__.items()}
_RPC_CRASH = GRPC_CODES["UNKNOWN"]
_HTTP_OK = 200
_CODES_OF_HTTP: Final[Mapping[int, int]] = {
    400: GRPC_CODES["INTERNAL"],
    401: GRPC_CODES["UNAUTHENTICATED"],
    403: GRPC_CODES["PERMISSION_DENIED"],
    404: UNIMPLEMENTED,
    **dict.fromkeys((429, 502, 503, 504), GRPC_CODES["UNAVAILABLE"]),
}
"""What an answer that is none of the protocol means (gRPC, "HTTP to gRPC Status Code Mapping"; Connect has
the same)."""
_LONGEST_CODE = 64


def http_status(attributes: Attributes, span: Span) -> int | None:
    """Return the status of an HTTP request or a function's invocation."""
    status = first_int(attributes, semconv.HTTP_STATUS)
    if status not in _HTTP_STATUSES:
        status = _HTTP_CRASH if _outcome(span) == "ERROR" else None
    if status != _HTTP_CRASH:
        return status
    return None if _client_left(span) else _answered(span) or _HTTP_CRASH


def websocket_status(attributes: Attributes, span: Span) -> int | None:
    """Return the status of a websocket's handshake; `None` for one rejected, or accepted in silence."""
    status = http_status(attributes, span)
    return SWITCHING_PROTOCOLS if status == _ACCEPTED_WEBSOCKET else status


def rpc_status(attributes: Attributes, span: Span) -> Status:
    """Return a remote procedure call's code; of what something before it answered, by its HTTP status."""
    code = _rpc_code(attributes)
    if code == 0:
        return _RPC_CRASH if _raised(span) else 0
    if code is not None:
        return code
    http = first_int(attributes, semconv.HTTP_STATUS)
    if http is not None and http in _HTTP_STATUSES and http != _HTTP_OK:
        return _CODES_OF_HTTP.get(http, _RPC_CRASH)
    return _RPC_CRASH if _outcome(span) == "ERROR" else None


def mcp_status(attributes: Attributes, span: Span) -> Status:
    """Return an MCP request's JSON-RPC code, else the kind of its error; `None` for a success."""
    code = _rpc_code(attributes)
    if code is not None:
        return code
    return (
        first_text(attributes, semconv.ERROR_TYPE)[:_LONGEST_CODE] or None
        if _outcome(span) == "ERROR"
        else None
    )


def _rpc_code(attributes: Attributes) -> Status:
    """Return a number, also where it is written as digits or by its name, or the text of another system."""
    for key in semconv.RPC_STATUS:
        value = attributes.get(key)
        if type(value) is int:
            return value
        text = as_text(value)[:_LONGEST_CODE]
        if text.isascii() and text.isdigit():
            return int(text[:9])
        if text:
            return GRPC_CODES.get(text.upper(), text)
    return None


def _answered(span: Span) -> int | None:
    """Return the status of the answer that a framework makes of the span's last exception, if it does."""
    raised = (event for event in reversed(span.events) if event.name == semconv.EXCEPTION_EVENT)
    attributes = getattr(next(raised, None), "attributes", None) or {}
    kind = first_text(attributes, semconv.EXCEPTION_TYPE)
    if not kind.startswith(_ANSWERS):
        return None
    code = _LEADING_CODE.match(first_text(attributes, semconv.EXCEPTION_MESSAGE))
    if code:
        return int(code[1])
    name = kind.rpartition(".")[2].upper().removeprefix("HTTP").removesuffix("EXCEPTION")
    return _CODES_BY_NAME.get(name)


def _client_left(span: Span) -> bool:
    """Whether the last thing that happened is that the client was found gone."""
    events = span.events
    if not events or events[-1].name != semconv.EXCEPTION_EVENT:
        return False
    kind = first_text(events[-1].attributes or {}, semconv.EXCEPTION_TYPE)
    return kind.rpartition(".")[2] in _CLIENT_LEFT


def _outcome(span: Span) -> str:
    return str(span.status.status_code.name)


def _raised(span: Span) -> bool:
    """Whether the last thing that happened is an exception; one that was handled has something after it."""
    events = span.events
    return bool(events) and events[-1].name == semconv.EXCEPTION_EVENT and _outcome(span) == "UNSET"
