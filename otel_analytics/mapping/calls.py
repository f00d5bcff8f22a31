"""What API call a server span describes: its method, its endpoint and how it ended.

A websocket has no method and is `WS`. 404 or 405 without a route, an RPC method that nobody implements, and a
websocket without a route that never spoke fold into `{unmatched}`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from otel_analytics.mapping import semconv
from otel_analytics.mapping.endpoint import (
    LONGEST,
    UNKNOWN,
    UNMATCHED,
    EndpointCap,
    bare_url,
    mounted_path,
    named_route,
    path_endpoint,
    raw_path,
    route_endpoint,
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

_MARKS: Final = frozenset((*semconv.HTTP, *semconv.RPC_SYSTEM, *semconv.FAAS))


class Call(NamedTuple):
    """An API call.

    Args:
        method: An HTTP method, or `RPC`, `WS`, `FAAS`.
        endpoint: Its route template or folded path.
        status: How it ended.
        original_method: What the client sent where the method is `_OTHER`, if known.
        mounted: Whether a mounted application handled a part of the path.
    """

    method: str
    endpoint: str
    status: Status
    original_method: str = ""
    mounted: bool = False


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
    endpoint, mounted = _http_endpoint(method, status, attributes, span, cap)
    if method in KNOWN_METHODS or method == WEBSOCKET:
        return Call(method, endpoint, status, "", mounted)
    original = first_text(attributes, semconv.METHOD_ORIGINAL) or method
    return Call(OTHER_METHOD, endpoint, status, "" if original == OTHER_METHOD else original, mounted)


def _http_endpoint(
    method: str, status: int | None, attributes: Attributes, span: Any, cap: EndpointCap
) -> tuple[str, bool]:
    """Return the endpoint, and whether a mounted application handled a part of the path."""
    target = first_text(attributes, semconv.PATH)
    route = first_text(attributes, semconv.ROUTE)
    if not route:
        path = raw_path(target) if target else ""
        named = named_route(as_text(span.name)[:LONGEST], path)
        return cap.admit(named) if named else _raw_endpoint(method, status, path, cap), False
    endpoint = route_endpoint(route[:LONGEST])
    if target.count("/") <= endpoint.count("/"):
        return endpoint, False
    rest = mounted_path(endpoint, raw_path(target))
    if not rest:
        return endpoint, False
    return endpoint.rstrip("/") + "/" + _raw_endpoint(method, status, rest, cap).lstrip("/"), True


def _raw_endpoint(method: str, status: int | None, path: str, cap: EndpointCap) -> str:
    if status in NO_SUCH_ROUTE or (method == WEBSOCKET and status is None):
        return UNMATCHED
    return cap.admit(path_endpoint(path)) if path else UNKNOWN


def _rpc_endpoint(attributes: Attributes, status: Status, cap: EndpointCap) -> str:
    service = first_text(attributes, semconv.RPC_SERVICE)
    method = first_text(attributes, semconv.RPC_METHOD)
    if status == UNIMPLEMENTED or method == OTHER_METHOD:
        return UNMATCHED
    name = method if "/" in method or not service else f"{service}/{method}"
    return cap.admit(bare_url(name[:LONGEST]).strip("/")) if name else UNKNOWN
