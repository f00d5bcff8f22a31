"""What an analyst expects of each recorded request, from what its client sent and saw, never from spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corpus_spans import Recording

UNMATCHED = "{unmatched}"

# The recorded instrumentations write `_OTHER` for these, so nobody can know better.
OTHER_METHODS = {"PROPFIND", "FOO"}

# Each framework's own spelling of its parameters, and the routes that the recorded application has.
TEMPLATES: Mapping[str, Mapping[str, str]] = {
    "fastapi": {
        "item": "/items/{item_id}",
        "uni": "/uni/{name}",
        "file": "/files/{path:path}",
        "thing": "/r/things/{thing_id}",
        "mounted": "/v2/things/{id}",
        "mounted_404": "/v2/{unmatched}",
        "sync": "/sync/items/{item_id}",
    },
    "starlette": {
        "item": "/items/{item_id}",
        "uni": "/uni/{name}",
        "file": "/files/{path:path}",
        "thing": "/r/things/{id}",  # a Mount: the rest of the path stands for the rest of the route
        "mounted": "/v2/things/{id}",
        "mounted_404": "/v2/{unmatched}",
        "sync": UNMATCHED,
    },
    "flask": {
        "item": "/items/<int:item_id>",
        "uni": "/uni/<name>",
        "file": "/files/<path:path>",
        "thing": "/r/things/<thing_id>",
        "mounted": "/things/<thing_id>",  # WSGI dispatchers strip the prefix before the framework sees it
        "mounted_404": UNMATCHED,
        "sync": UNMATCHED,
    },
    "django_wsgi": {
        "item": "/items/<int:item_id>",
        "uni": "/uni/<str:name>",
        "file": "/files/<path:p>",
        "thing": "/r/things/<str:thing_id>",
        "mounted": "/v2/things/<str:thing_id>",
        "mounted_404": UNMATCHED,
        "sync": UNMATCHED,
    },
}

# Request id -> the template it asks for, by the names above, or the endpoint itself.
ASKED: Mapping[str, str] = {
    **dict.fromkeys(("percent_path", "percent_path_cjk", "raw_utf8_path", "bad_utf8_percent"), "uni"),
    **dict.fromkeys(
        ("http2_post", "post_order", "post_order_big", "method_not_allowed", "foo_method"), "/orders"
    ),
    **dict.fromkeys(("stream", "stream_fail", "stream_with_context", "disconnect_mid_stream"), "/stream"),
    **dict.fromkeys(("slow", "concurrent", "disconnect_before_response"), "/slow"),
    **dict.fromkeys(
        ("ws_echo", "ws_hold", "ws_serverclose", "ws_reject", "ws_boom", "ws_abort"), "/ws/{room}"
    ),
    **dict.fromkeys(("not_found", "http2_404", "prefixed_404", "ws_not_found"), UNMATCHED),
    **dict.fromkeys(("options_star", "unparsable_target"), UNMATCHED),
    "matrix_params": "uni",
    "encoded_slash": "file",
    "include_route": "thing",
    "prefixed_include": "thing",
    "mounted_route": "mounted",
    "prefixed_mount": "mounted",
    "mounted_404": "mounted_404",
    "sync_handler": "sync",
    "redirect": "/redirect",
    "boom": "/boom",
    "err503": "/err503",
    "teapot": "/teapot",
    "handled_exception": "/handled",
    "rename": "/custom/{route}",  # the application itself renames its route
    "nocontent": "/nocontent",
    "background": "/background",
    "trailing_slash": "/items/{id}/",  # redirected, to the route: no route of its own
    "double_slash": "/items/{id}",  # the same, in Flask
    "async_view": "/aitems/<int:item_id>",
    "async_order": "/aorders",
    "async_boom": "/aboom",
    "cbv": "/cbv",
    "cbv_405": "/cbv",
    "include_regex": "/r/rx/{n}/",
}

# A 404 or 405 that the client saw, and which came from the handler of a route that took the request.
FROM_THE_ROUTE = {
    "fastapi": {
        "handler_404",
        "method_not_allowed",
        "head",
        "options",
        "propfind",
        "foo_method",
        "query_method",
    },
    "flask": {"handler_404"},
    "django_wsgi": {"handler_404", "method_not_allowed", "foo_method", "cbv_405"},
}
FROM_THE_ROUTE["fastapi"] |= {"lower_method", "mounted_404"}
FROM_THE_ROUTE["starlette"] = FROM_THE_ROUTE["fastapi"]

# What nobody can read from the spans, decided: see `otel-analytics docs accuracy`.
STATUS_DECIDED: Mapping[str, int | None] = {
    "ws_reject": None,
    "ws_not_found": None,
    "ws_boom": 500,
    "disconnect_before_response": 200,
    "unary_deadline": 0,
    "server_stream_cancel": 0,
}

GRPC_CODES = {
    "OK": 0,
    "UNKNOWN": 2,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "INTERNAL": 13,
}

# Servers that put a forwarded address in the place of the socket's: what they were told to trust.
REWRITTEN: Mapping[tuple[str, str, str], str] = {
    **{("uvicorn", variant, "forwarded_phone"): "198.51.100.2" for variant in ("main", "capture_headers")},
    ("uvicorn", "forwarded_allow_all", "forwarded_phone"): "203.0.113.7",
    ("uvicorn", "ipv6", "ipv6_forwarded"): "2001:db8::7",
    ("gunicorn", "proxy_fix", "forwarded_phone"): "198.51.100.2",
    ("gunicorn", "proxy_fix", "xf_prefix"): "203.0.113.7",
}

SECRETS = ("secret", "user:pw", "pw@", "AKIA123", "Signature", "sid=abc", "Bearer", "yyyyyyyy")


def expected_views(recording: Recording) -> int:
    """One view a call, but none where the framework never heard of it or was told not to trace it."""
    unsampled = recording.request["id"] in {"traceparent_unsampled", "unary_unsampled"}
    refused_by_server = recording.saw.get("status") == 400
    not_dispatched = recording.request["id"] == "unprefixed" and recording.saw["status"] in {404, 500}
    unknown_method = recording.saw.get("code") == "UNIMPLEMENTED"
    if unsampled or refused_by_server or not_dispatched or unknown_method:
        return 0
    status = recording.saw.get("status")
    return len(status) if isinstance(status, list) else 1


def expected_method(recording: Recording) -> str:
    if recording.framework == "grpc_sync":
        return "RPC"
    if recording.request["id"].startswith("ws_"):
        return "WS"
    method = str(recording.request["method"]).upper()
    return "_OTHER" if method in OTHER_METHODS else method


def expected_status(recording: Recording) -> Any:
    request_id = recording.request["id"]
    if request_id in STATUS_DECIDED:
        return STATUS_DECIDED[request_id]
    if "code" in recording.saw:
        return GRPC_CODES[recording.saw["code"]]
    status = recording.saw["status"]
    return status[0] if isinstance(status, list) else status


def expected_endpoint(recording: Recording) -> str:
    if recording.framework == "grpc_sync":
        return str(recording.request["method"]).strip("/")
    request_id = recording.request["id"]
    if recording.saw.get("status") in (404, 405) and request_id not in FROM_THE_ROUTE[recording.framework]:
        return UNMATCHED
    asked = ASKED.get(request_id, "item")
    return TEMPLATES[recording.framework].get(asked, asked)


def expected_address(recording: Recording) -> str | None:
    rewritten = REWRITTEN.get((recording.server, recording.variant, recording.request["id"]))
    if rewritten:
        return rewritten
    return {"uds": None, "ipv6": "::1"}.get(recording.variant, "127.0.0.1")


def query_parts(recording: Recording) -> list[str]:
    """Return the pairs of the query string that the client sent."""
    query = str(recording.request.get("target", "")).partition("?")[2]
    return [pair for pair in query.split("&") if "=" in pair]
