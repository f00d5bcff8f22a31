"""What API call a server span describes: its method, its endpoint and how it ended.

A websocket has no method and is `WS`. A path without a route earns its endpoint by an answer below 400; until
then, as an RPC method that nobody implements and a websocket without a route that never spoke, it is
`{unmatched}`, with 404 and 405 always.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from otel_analytics.mapping import semconv
from otel_analytics.mapping.endpoint import (
    LONGEST,
    UNKNOWN,
    UNMATCHED,
    EndpointCap,
    Place,
    Trust,
    bare_url,
    place_of,
)
from otel_analytics.mapping.statuses import (
    NO_SUCH_ROUTE,
    SWITCHING_PROTOCOLS,
    UNIMPLEMENTED,
    Status,
    http_status,
    rpc_status,
    websocket_status,
)
from otel_analytics.mapping.values import Attributes, as_text, first_text

RPC: Final = "RPC"
WEBSOCKET: Final = "WS"
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

_MARKS: Final = frozenset((*semconv.HTTP, *semconv.RPC_SYSTEM, *semconv.FAAS))


class Call(NamedTuple):
    """An API call.

    Args:
        method: An HTTP method, or `RPC`, `WS`, `FAAS`.
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


def is_call(attributes: Attributes) -> bool:
    """Whether a server span's attributes are those of HTTP, RPC or a function's invocation."""
    return not _MARKS.isdisjoint(attributes)


def describe(attributes: Attributes, span: Any, cap: EndpointCap) -> Call:
    """Return the API call that a server span describes.

    Args:
        attributes: The span's.
        span: The span itself, for its status, events and name.
        cap: Bounds the endpoints that are no route's.
    """
    method = first_text(attributes, semconv.METHOD)
    if method:
        return _http_call(method.upper(), http_status(attributes, span), attributes, span, cap)
    if first_text(attributes, semconv.RPC_SYSTEM):
        status = rpc_status(attributes, span)
        return Call(RPC, _rpc_endpoint(attributes, status, cap), status)
    if any(key in attributes for key in semconv.FAAS):
        name = first_text(attributes, semconv.FAAS_NAME) or as_text(span.name)
        return Call(FUNCTION, bare_url(name[:LONGEST]) or UNKNOWN, http_status(attributes, span))
    return _http_call(WEBSOCKET, websocket_status(attributes, span), attributes, span, cap)


def _http_call(method: str, status: int | None, attributes: Attributes, span: Any, cap: EndpointCap) -> Call:
    if status == SWITCHING_PROTOCOLS:
        method = WEBSOCKET
    place = _place(attributes, span)
    endpoint, is_route = _http_endpoint(method, status, place, cap), place.trust in _ROUTES
    if method in KNOWN_METHODS or method == WEBSOCKET:
        return Call(method, endpoint, status, "", place.mounted, is_route)
    original = first_text(attributes, semconv.METHOD_ORIGINAL) or method
    original = "" if original == OTHER_METHOD else original
    return Call(OTHER_METHOD, endpoint, status, original, place.mounted, is_route)


def _place(attributes: Attributes, span: Any) -> Place:
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
    if status == UNIMPLEMENTED or method == OTHER_METHOD:
        return UNMATCHED
    name = method if "/" in method or not service else f"{service}/{method}"
    return cap.admit(bare_url(name[:LONGEST]).strip("/")) if name else UNKNOWN
