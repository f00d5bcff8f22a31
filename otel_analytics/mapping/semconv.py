"""The only place where an attribute key is spelt: keys per field, newest name first.

Python instrumentations still emit the old names by default, the new ones with
``OTEL_SEMCONV_STABILITY_OPT_IN=http``, and both with ``http/dup``. Sources: the semantic conventions for HTTP
(1.23 and before), RPC, MCP, GraphQL, FaaS, enduser, user, session and user-agent attributes.
"""

from __future__ import annotations

from typing import Final

Keys = tuple[str, ...]

METHOD: Final[Keys] = ("http.request.method", "http.method")
METHOD_ORIGINAL: Final[Keys] = ("http.request.method_original",)
ROUTE: Final[Keys] = ("http.route",)
PATH: Final[Keys] = ("url.path", "http.target", "url.full", "http.url")
SCHEME: Final[Keys] = ("url.scheme", "http.scheme")
HTTP_STATUS: Final[Keys] = ("http.response.status_code", "http.status_code")
SYNTHETIC: Final = "user_agent.synthetic.type"
USER_AGENT: Final[Keys] = ("user_agent.original", "http.user_agent", "rpc.user_agent", "user_agent")
"""The last is Envoy's."""

RPC_SYSTEM: Final[Keys] = ("rpc.system.name", "rpc.system")
RPC_SERVICE: Final[Keys] = ("rpc.service",)
RPC_METHOD: Final[Keys] = ("rpc.method",)
RPC_STATUS: Final[Keys] = (
    "rpc.grpc.status_code",
    "rpc.response.status_code",
    "rpc.connect_rpc.error_code",
    "rpc.buf_connect.status_code",
    "rpc.jsonrpc.error_code",
    "rpc.status_code",
)
"""Connect RPC and JSON-RPC have an error code only where there was an error."""

MCP_METHOD: Final[Keys] = ("mcp.method.name",)
MCP_TARGET: Final[Keys] = ("gen_ai.tool.name", "gen_ai.prompt.name", "mcp.tool.name", "mcp.prompt.name")
"""What an MCP method is about; of resources only the URI is known, which may hold anything."""
ERROR_TYPE: Final[Keys] = ("error.type",)

GRAPHQL_TYPE: Final[Keys] = ("graphql.operation.type",)
GRAPHQL_NAME: Final[Keys] = ("graphql.operation.name",)
GRAPHQL_DOCUMENT: Final[Keys] = ("graphql.document", "query")

FAAS: Final[Keys] = ("faas.invocation_id", "faas.execution", "faas.trigger")
FAAS_NAME: Final[Keys] = ("faas.name",)
FAAS_TRIGGER: Final[Keys] = ("faas.trigger",)
FAAS_WITHOUT_CALLER: Final[Keys] = ("messaging.system", "faas.cron", "faas.time", "faas.document.collection")
"""What the FaaS conventions have beside a trigger that is a message, a timer or a database."""

HTTP: Final[Keys] = (*METHOD, *SCHEME, *PATH, *ROUTE, *HTTP_STATUS)
"""A server span with any of these is an HTTP request (or, without a method, a websocket)."""

CLIENT_ADDRESS: Final[Keys] = ("client.address", "http.client_ip")
PEER_ADDRESS: Final[Keys] = (
    "network.peer.address",
    "client.socket.address",
    "net.sock.peer.addr",
    "net.peer.ip",
    "peer.address",  # Envoy's
    "peer.ipv4",  # OpenTracing's
    "peer.ipv6",
)
SERVER_ADDRESS: Final[Keys] = (
    *("server.address", "network.local.address", "server.socket.address"),
    *("net.sock.host.addr", "net.host.ip", "net.host.name"),
)


def captured_header(name: str) -> Keys:
    """Return the attributes that hold a request's header where instrumentations capture it.

    By the HTTP conventions header names have hyphens, once underscores, as Python's instrumentations write.
    """
    lower = name.lower()
    spellings = dict.fromkeys((lower, lower.replace("-", "_")))
    return (
        *(f"http.request.header.{spelling}" for spelling in spellings),
        *(f"rpc.grpc.request.metadata.{spelling}" for spelling in spellings),
    )


X_FORWARDED_FOR: Final[Keys] = captured_header("x-forwarded-for")
FORWARDED: Final[Keys] = captured_header("forwarded")
PURPOSE: Final[Keys] = tuple(
    key for name in ("sec-purpose", "purpose", "x-purpose", "x-moz") for key in captured_header(name)
)
"""A browser's word for why it asks."""

USER_ID: Final[Keys] = ("user.id", "enduser.id", "enduser.pseudo.id", "user_id", "app.user.id")
"""The conventions' names, then what public code and the OpenTelemetry demo write; never e-mail or a name."""
CUSTOMER_ID: Final[Keys] = ("customer.id", "customer_id")
USER_ID_OF_EVENT: Final[Keys] = (*USER_ID, *CUSTOMER_ID)
"""Who pays is the user; whose record a span below looks up need not be, so there a customer is nobody."""
SESSION_ID: Final[Keys] = ("session.id", "mcp.session.id")
SERVICE_NAME: Final[Keys] = ("service.name",)
UNKNOWN_SERVICE: Final = "unknown_service"
"""A service without a name, by the resource conventions; its executable's may follow it."""

TARGET_ID: Final[Keys] = ("target.id", "target_id")
TARGET_TYPE: Final[Keys] = ("target.type", "target_type")
METRIC_TYPE: Final[Keys] = ("analytics.metric_type",)
CONTENT_ID: Final[Keys] = ("analytics.content_id",)
CONTENT_TYPE: Final[Keys] = ("analytics.content_type",)
IGNORE: Final = "analytics.ignore"

OF_CALLS: Final[Keys] = (
    *(*METHOD, *METHOD_ORIGINAL, *ROUTE, *HTTP_STATUS, SYNTHETIC, *USER_AGENT),
    *(*RPC_SYSTEM, *RPC_SERVICE, *RPC_METHOD, *RPC_STATUS, *MCP_METHOD, *MCP_TARGET, *ERROR_TYPE),
    *(*FAAS, *FAAS_NAME, *FAAS_WITHOUT_CALLER),
    *(*CONTENT_ID, *CONTENT_TYPE, IGNORE, *PURPOSE),
)
"""All that says which call a server span is, beside its path."""

EVENT_NAME: Final[Keys] = ("event.name",)
"""The name of a log-based event, where the record has no field for it."""

EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final[Keys] = ("exception.type",)
EXCEPTION_MESSAGE: Final[Keys] = ("exception.message",)

NOT_PASSED_ON: Final = frozenset(
    (
        *(*USER_ID, *SESSION_ID, *TARGET_ID, *TARGET_TYPE, *METRIC_TYPE, *EVENT_NAME),
        *(IGNORE, "url.query", "url.fragment"),
    )
)
"""Event attributes that are an engagement's fields, or nobody's business; all others are its metadata."""
