"""What API call a server span describes: its method, its endpoint and how it ended.

A websocket has no method and is `WS`. A path without a route earns its endpoint by an answer below 400; until
then, as an RPC method that nobody implements and a websocket without a route that never spoke, it is
`{unmatched}`, with 404 and 405 always. So does the name of an MCP tool that the server may not have.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from otel_analytics.mapping import semconv
from otel_analytics.mapping.endpoint import (
    LONGEST,
    UNKNOWN,
    UNMATCHED,
    EndpointCap,
    Place,
    Trust,
    place_of,
)
from otel_analytics.mapping.privacy import bare_text
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.statuses import (
    NO_SUCH_METHOD,
    NO_SUCH_NAME,
    NO_SUCH_ROUTE,
    SWITCHING_PROTOCOLS,
    Status,
    http_status,
    mcp_status,
    rpc_status,
    websocket_status,
)
from otel_analytics.mapping.values import Attributes, as_text, first_text, has_any

RPC: Final = "RPC"
WEBSOCKET: Final = "WS"
MCP: Final = "MCP"
FUNCTION: Final = "FAAS"
OTHER_METHOD: Final = "_OTHER"

KNOWN_METHODS: Final = frozenset(
    {
        *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"),
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"),  # WebDAV, RFC 4918
        *("REPORT", "SEARCH", "MKCALENDAR", "ACL", "LINK", "UNLINK"),  # others in IANA's registry
    }
)
"""Methods that stay as they are; a stranger may send any word, so the rest is `_OTHER`."""

_ANSWERED_FOR_ANY_PATH: Final = frozenset({"OPTIONS"})
_REFUSED: Final = 400
_BELIEVED: Final = frozenset({Trust.TEMPLATE, Trust.FALLBACK})
_MAY_BE_NO_ROUTE: Final = frozenset({Trust.FALLBACK, Trust.PATH})
_ROUTES: Final = frozenset({Trust.TEMPLATE, Trust.ROUTE, Trust.LOOKALIKE})

_MARKS: Final = frozenset((*semconv.HTTP, *semconv.RPC_SYSTEM, *semconv.MCP_METHOD, *semconv.FAAS))
_OVER_HTTP: Final = (*semconv.RPC_SYSTEM, *semconv.MCP_METHOD)
_OF_A_NAME: Final = frozenset({"tools/call", "prompts/get"})
"""MCP methods whose target is a name, of which there are few."""
_MCP_METHODS: Final = frozenset(
    {
        *("initialize", "server/discover", "ping", "completion/complete", "logging/setLevel"),
        *("tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/read"),
        *("resources/templates/list", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"),
        *("tasks/list", "tasks/get", "tasks/result", "tasks/cancel", "tasks/update"),
    }
)
"""The protocol's own; any other has to be earned."""
_GRAPHQL: Final = (*semconv.GRAPHQL_TYPE, *semconv.GRAPHQL_NAME)
_STRAWBERRYS: Final = "GraphQL Query"
_OPERATION_TYPE = re.compile(r"\s*(query|mutation|subscription)\b")
_LONGEST_OPERATION: Final = 128  # clients choose the name
_BACKGROUND: Final = frozenset({"pubsub", "timer", "datasource"})
"""What starts a function when nobody calls it (FaaS conventions, `faas.trigger`)."""


class Call(NamedTuple):
    """An API call.

    Args:
        method: An HTTP method, or `RPC`, `MCP`, `WS`, `FAAS`.
        endpoint: Its route template or folded path.
        status: How it ended.
        original_method: What the client sent where the method is `_OTHER`, if known.
        mounted: Whether a mounted application handled a part of the path.
        is_route: Whether the endpoint is a framework's own route, rather than a folded path.
    """

    method: str
    endpoint: str
    status: Status
    original_method: str = ""
    mounted: bool = False
    is_route: bool = False


def is_of_known_protocol(attributes: Attributes) -> bool:
    """Whether a server span's attributes are of a protocol known, whoever has begun what it does."""
    return not _MARKS.isdisjoint(attributes)


def is_call(attributes: Attributes) -> bool:
    """Whether a server span's attributes are those of HTTP, RPC, MCP or a function that somebody calls."""
    if _MARKS.isdisjoint(attributes):
        return False
    return not has_any(attributes, semconv.FAAS) or not _is_background(attributes)


def _is_background(attributes: Attributes) -> bool:
    """Whether a function works on what nobody waits for."""
    if first_text(attributes, semconv.FAAS_TRIGGER) in _BACKGROUND:
        return True
    return has_any(attributes, semconv.FAAS_WITHOUT_CALLER) and not has_any(attributes, semconv.METHOD)


def describe(attributes: Attributes, span: Span, cap: EndpointCap) -> Call:
    """Return the API call that a server span describes.

    RPC and MCP go over HTTP, and some instrumentations say both on one span (ASP.NET Core's gRPC): the
    message is the call, its transport is not.

    Args:
        attributes: The span's.
        span: The span itself, for its status, events and name.
        cap: Bounds the endpoints that are no route's.
    """
    if has_any(attributes, _OVER_HTTP):
        if first_text(attributes, semconv.MCP_METHOD):
            status = mcp_status(attributes, span)
            return Call(MCP, _mcp_endpoint(attributes, span, status, cap), status)
        if first_text(attributes, semconv.RPC_SYSTEM):
            status = rpc_status(attributes, span)
            return Call(RPC, _rpc_endpoint(attributes, status, cap), status)
    method = first_text(attributes, semconv.METHOD)
    if method:
        return _http_call(method.upper(), http_status(attributes, span), attributes, span, cap)
    if has_any(attributes, semconv.FAAS):
        name = first_text(attributes, semconv.FAAS_NAME) or as_text(span.name)
        return Call(FUNCTION, bare_text(name[:LONGEST]) or UNKNOWN, http_status(attributes, span))
    return _http_call(WEBSOCKET, websocket_status(attributes, span), attributes, span, cap)


def _http_call(method: str, status: int | None, attributes: Attributes, span: Span, cap: EndpointCap) -> Call:
    if status == SWITCHING_PROTOCOLS:
        method = WEBSOCKET
    place = _place(attributes, span)
    endpoint, is_route = _http_endpoint(method, status, place, cap), place.trust in _ROUTES
    if method in KNOWN_METHODS or method == WEBSOCKET:
        return Call(method, endpoint, status, "", place.mounted, is_route)
    original = first_text(attributes, semconv.METHOD_ORIGINAL) or method
    original = "" if original == OTHER_METHOD else original
    return Call(OTHER_METHOD, endpoint, status, original, place.mounted, is_route)


def _place(attributes: Attributes, span: Span) -> Place:
    route = first_text(attributes, semconv.ROUTE)
    scope = span.instrumentation_scope
    return place_of(
        route,
        first_text(attributes, semconv.PATH),
        "" if route else as_text(span.name),
        "" if scope is None else scope.name,
    )


def _http_endpoint(method: str, status: int | None, place: Place, cap: EndpointCap) -> str:
    endpoint, trust, unmatched, _ = place
    if trust in _MAY_BE_NO_ROUTE:
        if status in NO_SUCH_ROUTE:
            return unmatched
        if trust is Trust.PATH and not _earns(method, status):
            return endpoint if cap.knows(endpoint) else unmatched
    return endpoint if trust in _BELIEVED else cap.admit(endpoint, trust)


def _earns(method: str, status: int | None) -> bool:
    """Whether an answer shows that a path is the application's, not only a stranger's idea.

    Middleware answers preflights for whatever path, and refuses strangers before any route is looked for.
    """
    if status is None:
        return method not in _ANSWERED_FOR_ANY_PATH and method != WEBSOCKET
    return status < _REFUSED and method not in _ANSWERED_FOR_ANY_PATH


def _rpc_endpoint(attributes: Attributes, status: Status, cap: EndpointCap) -> str:
    service = first_text(attributes, semconv.RPC_SERVICE)
    method = first_text(attributes, semconv.RPC_METHOD)
    if status in NO_SUCH_METHOD or method == OTHER_METHOD:
        return UNMATCHED
    name = method if "/" in method or not service else f"{service}/{method}"
    return cap.admit(bare_text(name[:LONGEST]).strip("/")) if name else UNKNOWN


def _mcp_endpoint(attributes: Attributes, span: Span, status: Status, cap: EndpointCap) -> str:
    """Return the method and the name of what it is about; a resource has a URI, which may hold anything."""
    if status in NO_SUCH_METHOD:
        return UNMATCHED
    method = first_text(attributes, semconv.MCP_METHOD)[:LONGEST]
    target = first_text(attributes, semconv.MCP_TARGET) if method in _OF_A_NAME else ""
    if not target and method in _OF_A_NAME:
        # By the MCP conventions a span's name is `{method} {target}`.
        target = as_text(span.name).removeprefix(method).strip()
    endpoint = bare_text(f"{method} {target}"[:LONGEST]).strip()
    if status in NO_SUCH_NAME and not cap.knows(endpoint) and (target or method not in _MCP_METHODS):
        return f"{method} {UNMATCHED}" if target else UNMATCHED
    return cap.admit(endpoint) or UNKNOWN


def graphql_operation(attributes: Attributes, name: str) -> str:
    """Return the GraphQL operation that a span executes, such as ``mutation Checkout``, or an empty string.

    By the GraphQL conventions; Strawberry's own tracing writes ``GraphQL Query: <name>`` instead.

    Args:
        attributes: The span's.
        name: Its name.
    """
    if not name.startswith(_STRAWBERRYS) and not has_any(attributes, _GRAPHQL):
        return ""
    kind = first_text(attributes, semconv.GRAPHQL_TYPE)
    operation = first_text(attributes, semconv.GRAPHQL_NAME)
    if not (kind or operation) and name.startswith(_STRAWBERRYS):
        document = _OPERATION_TYPE.match(first_text(attributes, semconv.GRAPHQL_DOCUMENT))
        kind = document[1] if document else "query"
        operation = name.removeprefix(_STRAWBERRYS).lstrip(": ")
    return bare_text(f"{kind} {operation}".strip()[:_LONGEST_OPERATION])
