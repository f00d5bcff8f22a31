from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from span_making import END, START, TRACE_ID, make_event, make_span, mapper, view_of

from otel_analytics.config import Config
from otel_analytics.contract import Kind
from otel_analytics.events import ViewEvent, encoded_form
from otel_analytics.mapping.identity import Requests
from otel_analytics.mapping.ids import NAMESPACE
from otel_analytics.mapping.options import options_from_config
from otel_analytics.mapping.spans import SpanMapper

POST = {"http.method": "POST", "http.target": "/rpc/x", "http.status_code": 200}
HTTP = {"http.request.method": "GET", "url.path": "/items/42", "http.response.status_code": 200}
ERROR = Status(StatusCode.ERROR)


def test_a_view_is_the_contracts_view() -> None:
    view = view_of(
        {
            **HTTP,
            "http.route": "/items/{item_id}",
            "client.address": "203.0.113.7",
            "user.id": "u1",
            "user_agent.original": "curl/8",
        }
    )
    event_id = str(uuid.uuid5(NAMESPACE, "view/4bf92f3577b34da6a3ce929d0e0e4736/00f067aa0ba902b7"))
    assert view.body() == {
        "contentId": "GET:/items/{item_id}",
        "contentType": "post",
        "userId": "u1",
        "sessionId": "backend-1700000000123-e929d0e0e4736",
        "duration": 12.346,
        "ipAddress": "203.0.113.7",
        "deviceType": "desktop",
        "app": "shop",
        "metadata": {
            "method": "GET",
            "route": "/items/{item_id}",
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
            "spanId": "00f067aa0ba902b7",
            "statusCode": 200,
            "userAgent": "curl/8",
            "entry": True,
            "eventId": event_id,
            "timestamp": "2023-11-14T22:13:20.123Z",
        },
    }


@pytest.mark.parametrize("kind", [kind for kind in SpanKind if kind is not SpanKind.SERVER])
def test_only_server_spans_are_api_calls(kind: SpanKind) -> None:
    assert mapper().map(make_span(HTTP, kind=kind)) == ([], [])


def test_a_server_span_of_no_known_kind_is_no_api_call() -> None:
    assert mapper().map(make_span({"messaging.system": "kafka"})).events == []


@pytest.mark.parametrize(
    ("attributes", "content_id"),
    [
        ({"http.method": "get", "http.target": "/a"}, "GET:/a"),
        ({"http.request.method": "PUT", "http.method": "GET", "url.path": "/a"}, "PUT:/a"),
        ({"http.request.method": "", "http.method": "GET", "url.path": "/a"}, "GET:/a"),
        ({"http.request.method": ("GET",), "url.path": ("/a",)}, "GET:/a"),
        ({"http.request.method": "GET", "http.route": "items/<int:id>"}, "GET:/items/<int:id>"),
        ({"http.request.method": "GET", "http.route": "", "url.path": "/a"}, "GET:/a"),
        ({"http.method": "GET", "http.url": "https://u:p@h/a/b?c=d"}, "GET:/a/b"),
        ({"http.method": "GET", "url.full": "https://h?c=d"}, "GET:/"),
        ({"http.method": "GET"}, "GET:{unknown}"),
        ({"http.method": "BREW", "url.path": "/a"}, "_OTHER:/a"),
        ({"url.scheme": "wss", "http.route": "/ws"}, "WS:/ws"),
        ({"http.method": "GET", "http.route": "/ws", "http.status_code": 101}, "WS:/ws"),
        ({"rpc.system": "grpc", "rpc.service": "a.B", "rpc.method": "C"}, "RPC:a.B/C"),
        ({"rpc.system.name": "grpc", "rpc.method": "a.B/C"}, "RPC:a.B/C"),
        ({"rpc.system": "grpc", "rpc.service": "a.B", "rpc.method": "/a.B/C"}, "RPC:a.B/C"),
        ({"rpc.system": "grpc", "rpc.method": "_OTHER"}, "RPC:{unmatched}"),
        ({"rpc.system": "grpc", "rpc.method": "a.B/C", "rpc.grpc.status_code": 12}, "RPC:{unmatched}"),
        ({"rpc.system": "grpc"}, "RPC:{unknown}"),
        ({"faas.invocation_id": "1", "faas.name": "resize"}, "FAAS:resize"),
        ({"faas.execution": "1"}, "FAAS:GET"),
        ({"faas.trigger": "http", "http.method": "GET", "http.route": "/a"}, "GET:/a"),
        ({**POST, "rpc.system": "grpc", "rpc.service": "a.B", "rpc.method": "C"}, "RPC:a.B/C"),
        ({**POST, "rpc.system.name": "connectrpc", "rpc.method": "a.B/C"}, "RPC:a.B/C"),
        ({**POST, "rpc.system": "jsonrpc", "rpc.method": "add", "rpc.jsonrpc.error_code": 7}, "RPC:add"),
        (
            {"rpc.system": "jsonrpc", "rpc.method": "wp", "rpc.jsonrpc.error_code": -32601},
            "RPC:{unmatched}",
        ),
        ({"mcp.method.name": "tools/call", "gen_ai.tool.name": "buy"}, "MCP:tools/call buy"),
        ({"mcp.method.name": "prompts/get", "gen_ai.prompt.name": "greet"}, "MCP:prompts/get greet"),
        ({"mcp.method.name": "tools/list"}, "MCP:tools/list"),
        ({"mcp.method.name": "resources/read", "mcp.resource.uri": "file:///etc/x"}, "MCP:resources/read"),
        ({"mcp.method.name": "nmap", "rpc.response.status_code": "-32601"}, "MCP:{unmatched}"),
        ({**POST, "mcp.method.name": "tools/call", "gen_ai.tool.name": "buy"}, "MCP:tools/call buy"),
    ],
)
def test_method_and_endpoint(attributes: dict[str, Any], content_id: str) -> None:
    assert view_of(attributes).content_id == content_id


@pytest.mark.parametrize(
    ("attributes", "fields", "status"),
    [
        ({"http.response.status_code": 201, "http.status_code": 500}, {}, 201),
        ({"http.status_code": "404"}, {}, 404),
        ({"http.status_code": (204,)}, {}, 204),
        ({"http.status_code": True}, {}, None),
        ({"http.status_code": 0}, {}, None),
        ({"http.status_code": 10**30}, {}, None),
        ({}, {}, None),
        ({}, {"status": ERROR}, 500),
        ({"http.status_code": 200}, {"status": ERROR}, 200),
        ({"rpc.system": "grpc", "rpc.grpc.status_code": 5}, {}, 5),
        ({"rpc.system": "grpc", "rpc.response.status_code": "NOT_FOUND"}, {}, 5),
        ({"rpc.system": "grpc", "rpc.response.status_code": "OK"}, {}, 0),
        ({"rpc.system": "jsonrpc", "rpc.response.status_code": "-32601"}, {}, "-32601"),
        ({"rpc.system": "connect_rpc", "rpc.connect_rpc.error_code": "not_found"}, {}, 5),
        ({"rpc.system": "buf_connect", "rpc.buf_connect.status_code": "internal"}, {}, 13),
        ({"rpc.system": "jsonrpc", "rpc.jsonrpc.error_code": -32000}, {}, -32000),
        ({**POST, "rpc.system": "grpc", "rpc.grpc.status_code": 0}, {}, 0),
        ({**POST, "rpc.system": "grpc"}, {}, None),
        ({**POST, "rpc.system": "grpc", "http.status_code": 401}, {}, 16),
        ({**POST, "rpc.system": "connect_rpc", "http.status_code": 503}, {}, 14),
        ({"rpc.system": "grpc"}, {"status": ERROR}, 2),
        ({"rpc.system": "grpc", "rpc.grpc.status_code": 0}, {"events": [make_event("exception")]}, 2),
        ({"rpc.system": "grpc", "rpc.grpc.status_code": 5}, {"events": [make_event("exception")]}, 5),
        (
            {"rpc.system": "grpc", "rpc.grpc.status_code": 0},
            {"events": [make_event("exception"), make_event("recovered")]},
            0,
        ),
    ],
)
def test_status(attributes: dict[str, Any], fields: dict[str, Any], status: object) -> None:
    http = {} if "rpc.system" in attributes else {"http.method": "GET", "http.route": "/a"}
    assert view_of({**http, **attributes}, **fields).metadata.get("statusCode") == status


@pytest.mark.parametrize("recorded", [{"http.status_code": 500}, {}], ids=["500", "none"])
@pytest.mark.parametrize(
    ("kind", "message", "status"),
    [
        ("tornado.web.HTTPError", "HTTP 400: Bad Request (missing)", 400),
        ("tornado.web.MissingArgumentError", "HTTP 400: Bad Request (Missing argument q)", 400),
        ("falcon.errors.HTTPForbidden", "<HTTPForbidden: 403 Forbidden>", 403),
        ("falcon.http_status.HTTPStatus", "204", 204),
        ("falcon.redirects.HTTPMovedPermanently", "/x", 301),
        ("starlette.exceptions.HTTPException", "404: The requested URL was not found.", 404),
        ("fastapi.exceptions.HTTPException", "403: {'a': 1}", 403),
        ("werkzeug.exceptions.NotFound", "404 Not Found: The requested URL was not found.", 404),
        ("litestar.exceptions.http_exceptions.NotFoundException", "404: Not Found", 404),
        ("aiohttp.web_exceptions.HTTPUnprocessableEntity", "Unprocessable Entity", 422),
        ("pyramid.httpexceptions.HTTPFound", "The resource was found at", 302),
        ("starlette.exceptions.HTTPException", "503: Busy", 503),
        ("werkzeug.exceptions.HTTPException", "??? Unknown Error: x", 500),
        ("tornado.web.HTTPError", "HTTP 700: Odd", 500),
        ("tornado.httpclient.HTTPClientError", "HTTP 404: Not Found", 500),
        ("aiohttp.client_exceptions.ClientResponseError", "404, message='Not Found'", 500),
        ("ValueError", "404: no such thing", 500),
        ("app.NotFound", "404", 500),
        ("", "", 500),
    ],
)
def test_an_exception_by_which_a_framework_answers_knows_the_status(
    recorded: dict[str, Any], kind: str, message: str, status: int
) -> None:
    raised = make_event("exception", {"exception.type": kind, "exception.message": message})
    view = view_of({"http.method": "GET", "http.route": "/a", **recorded}, events=[raised], status=ERROR)
    assert view.metadata["statusCode"] == status


def test_an_exception_that_was_answered_otherwise_says_nothing() -> None:
    answer = {"exception.type": "starlette.exceptions.HTTPException", "exception.message": "404: x"}
    view = view_of({**HTTP, "http.response.status_code": 422}, events=[make_event("exception", answer)])
    assert view.metadata["statusCode"] == 422
    last = [make_event("exception", answer), make_event("exception", {"exception.type": "ValueError"})]
    assert view_of({"http.method": "GET"}, events=last, status=ERROR).metadata["statusCode"] == 500


@pytest.mark.parametrize(
    ("attributes", "fields", "status"),
    [
        ({}, {}, None),
        ({"error.type": "tool_error"}, {"status": ERROR}, "tool_error"),
        ({"rpc.response.status_code": "-32602"}, {"status": ERROR}, "-32602"),
    ],
)
def test_the_status_of_an_mcp_call(
    attributes: dict[str, Any], fields: dict[str, Any], status: object
) -> None:
    view = view_of({"mcp.method.name": "tools/call", "mcp.session.id": "s-1", **attributes}, **fields)
    assert (view.session_id, view.metadata.get("statusCode")) == ("s-1", status)


@pytest.mark.parametrize(
    ("error", "first", "later"),
    [
        ({"error.type": "NotFoundError"}, "{unmatched}", "buy"),
        ({"rpc.response.status_code": "-32602"}, "{unmatched}", "buy"),
        ({"rpc.jsonrpc.error_code": -32602}, "{unmatched}", "buy"),
        ({"error.type": "MCPError"}, "{unmatched}", "buy"),
        ({"error.type": "tool_error"}, "buy", "buy"),
    ],
)
def test_the_name_of_an_mcp_tool_is_earned(error: dict[str, Any], first: str, later: str) -> None:
    shared, call = mapper(), {"mcp.method.name": "tools/call", "gen_ai.tool.name": "buy"}
    spans = [make_span({**call, **error}, status=ERROR), make_span(call)]
    views = [shared.map(span).events[0].content_id for span in (*spans, spans[0])]
    assert views == [f"MCP:tools/call {name}" for name in (first, "buy", later)]


@pytest.mark.parametrize(
    ("method", "endpoint"), [("nmap", "{unmatched}"), ("resources/read", "resources/read")]
)
def test_an_mcp_method_is_the_protocols_or_earned(method: str, endpoint: str) -> None:
    view = view_of({"mcp.method.name": method, "error.type": "MCPError"}, status=ERROR)
    assert view.content_id == f"MCP:{endpoint}"


def test_an_mcp_tool_may_stand_in_the_spans_name_only() -> None:
    view = view_of({"mcp.method.name": "tools/call"}, name="tools/call buy")
    assert view.content_id == "MCP:tools/call buy"
    view = view_of({"mcp.method.name": "resources/read"}, name="resources/read file:///home/jane")
    assert view.content_id == "MCP:resources/read"


@pytest.mark.parametrize(
    "attributes",
    [
        {"faas.trigger": "pubsub"},
        {"faas.trigger": "timer"},
        {"faas.trigger": "datasource"},
        {"faas.trigger": "pubsub", **POST},  # pushed to a webhook
        {"messaging.system": "aws_sqs"},
        {"faas.cron": "0 5 * * *"},
    ],
)
def test_background_work_is_no_call_and_its_business_counts(attributes: dict[str, Any]) -> None:
    attributes = {"faas.invocation_id": "1", **attributes}
    (event,) = mapper().map(make_span(attributes, events=[make_event("payment_processed")])).events
    assert event.kind is Kind.ENGAGEMENT


@pytest.mark.parametrize(
    ("attributes", "name", "operation"),
    [
        ({"graphql.operation.type": "mutation", "graphql.operation.name": "Pay"}, "x", "mutation Pay"),
        ({"graphql.operation.type": "query"}, "x", "query"),
        ({"graphql.operation.name": "Pay" * 99}, "x", ("Pay" * 99)[:128]),
        ({"component": "graphql", "query": "mutation Pay { pay }"}, "GraphQL Query: Pay", "mutation Pay"),
        ({"component": "graphql", "query": "{ me }"}, "GraphQL Query", "query"),
        ({"query": "query X"}, "x", None),
    ],
)
def test_a_graphql_view_says_its_operation(
    attributes: dict[str, Any], name: str, operation: str | None
) -> None:
    kind = SpanKind.SERVER if "component" in attributes else SpanKind.INTERNAL  # as Strawberry has it
    shared = mapper()
    outer = make_span({**POST, "http.route": "/graphql"})
    inner = make_span(
        attributes,
        name=name,
        kind=kind,
        context=SpanContext(TRACE_ID, 9, is_remote=False),
        parent=outer.context,
    )
    requests = Requests(0)
    settled = [*requests.ended(shared.read(inner), 0), *requests.ended(shared.read(outer), 0)]
    ((draft, request),) = settled
    view = draft.make(request)
    assert (view.content_id, view.metadata.get("operation")) == ("POST:/graphql", operation)


def test_a_server_span_may_say_its_operation_itself() -> None:
    view = view_of({**POST, "http.route": "/graphql", "graphql.operation.type": "query"})
    assert (view.content_id, view.metadata["operation"]) == ("POST:/graphql", "query")


BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.mark.parametrize(
    ("parent", "user_agent", "entry"),
    [
        (None, "", True),
        (None, "python-requests/2.32", True),
        ("remote", BROWSER, True),
        ("remote", "MyApp/7 CFNetwork/1494.0.7 Darwin/23.4.0", True),
        ("remote", "python-requests/2.32", None),
        ("remote", "", None),
        ("local", BROWSER, None),
    ],
)
def test_an_entry_is_a_call_that_no_service_made(
    parent: str | None, user_agent: str, entry: bool | None
) -> None:
    above = SpanContext(TRACE_ID, 9, is_remote=parent == "remote") if parent else None
    (view,) = mapper().map(make_span({**HTTP, "user_agent.original": user_agent}, parent=above)).events
    assert isinstance(view, ViewEvent)
    assert view.metadata.get("entry") is entry


@pytest.mark.parametrize(
    ("attributes", "status"),
    [({"http.status_code": 200}, 101), ({"http.status_code": 403}, 403), ({}, None)],
)
def test_a_websockets_status_is_its_handshakes(attributes: dict[str, Any], status: int | None) -> None:
    view = view_of({"http.scheme": "ws", "http.route": "/ws", **attributes})
    assert view.metadata.get("statusCode") == status
    assert view.duration is None


@pytest.mark.parametrize("status", [404, 405])
def test_no_route_took_it(status: int) -> None:
    view = view_of({"http.method": "GET", "url.path": "/wp-login.php", "http.status_code": status})
    assert view.content_id == "GET:{unmatched}"


def test_an_unknown_method_keeps_its_original_short() -> None:
    view = view_of(
        {"http.request.method": "_OTHER", "http.request.method_original": "X" * 900, "url.path": "/"}
    )
    assert (view.content_id, view.metadata["methodOriginal"]) == ("_OTHER:/", "X" * 64)


@pytest.mark.parametrize(
    ("attributes", "user_id"),
    [
        ({"user.id": "a", "enduser.id": "b"}, "a"),
        ({"user.id": "", "enduser.id": "b"}, "b"),
        ({"enduser.pseudo.id": "c"}, "c"),
        ({"user.id": 42}, "42"),
        ({"user.id": True}, None),
        ({"user.id": float("nan")}, None),
        ({"user.id": None}, None),
        ({}, None),
    ],
)
def test_user(attributes: dict[str, Any], user_id: str | None) -> None:
    assert view_of({**HTTP, **attributes}).user_id == user_id


def test_a_session_of_the_span_wins() -> None:
    assert view_of({**HTTP, "session.id": "s1"}).session_id == "s1"


def test_the_span_may_name_its_content() -> None:
    view = view_of({**HTTP, "analytics.content_id": "article-7", "analytics.content_type": "article"})
    assert (view.content_id, view.content_type) == ("article-7", "article")
    assert view.metadata["route"] == "/items/{id}"


@pytest.mark.parametrize("value", [True, "true", ("True",)])
def test_an_ignored_call_gives_no_view_and_says_so(value: object) -> None:
    mapped = mapper().map(make_span({**HTTP, "analytics.ignore": value}))
    assert (mapped.events, mapped.dropped) == ([], [(Kind.VIEW, "ignored")])


def test_a_flag_that_is_not_set_ignores_nothing() -> None:
    assert view_of({**HTTP, "analytics.ignore": False})


@pytest.mark.parametrize(
    ("pattern", "excluded"),
    [("/items/*", True), ("GET:/items/{id}", True), ("POST:*", False), ("*/{id}", True), ("/items", False)],
)
def test_excluded_endpoints(pattern: str, excluded: bool) -> None:
    mapped = mapper(excluded_endpoints=["/never", pattern]).map(make_span(HTTP))
    assert mapped.dropped == ([(Kind.VIEW, "excluded")] if excluded else [])
    assert len(mapped.events) == (not excluded)


@pytest.mark.parametrize(
    ("resource", "options", "app"),
    [
        (Resource({"service.name": "shop"}), {}, "shop"),
        (Resource({"service.name": "shop"}), {"app_name": "web"}, "web"),
        (Resource({}), {}, "unknown_service"),
        (None, {}, "unknown_service"),
    ],
)
def test_app(resource: Resource | None, options: dict[str, Any], app: str) -> None:
    found = view_of(HTTP, resource=resource, options=options).app
    assert found.split(":")[0] == app, "the SDK adds the name of its executable to an unknown service"


@pytest.mark.parametrize(
    ("times", "duration"),
    [((START, START), 0), ((END, START), 0), ((START, None), None), ((None, END), None)],
)
def test_duration(times: tuple[int, int], duration: float | None) -> None:
    assert view_of(HTTP, start_time=times[0], end_time=times[1]).duration == duration


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (None, "1970-01-01T00:00:00.000Z"),
        (999_999, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999Z"),
        (10**30, "9999-12-31T23:59:59"),
    ],
)
def test_timestamp(nanos: int | None, text: str) -> None:
    assert view_of(HTTP, start_time=nanos, end_time=None).timestamp.startswith(text)


def test_a_span_without_context_still_gives_a_view_of_its_own() -> None:
    one, other = (view_of(HTTP, context=None, start_time=START + extra) for extra in (0, 1))
    assert one.event_id != other.event_id
    assert "traceId" not in one.metadata


MARKS = ("bot", "healthCheck", "preflight", "prefetch", "staticFile")


@pytest.mark.parametrize(
    ("attributes", "marks"),
    [
        ({"http.route": "/healthz"}, {"healthCheck": True}),
        ({"http.route": "/api/v1/health/"}, {"healthCheck": True}),
        ({"http.route": "/a", "user_agent.original": "kube-probe/1.29"}, {"healthCheck": True, "bot": True}),
        ({"http.route": "/a", "user_agent.original": "Googlebot/2.1"}, {"bot": True}),
        ({"http.route": "/a", "user_agent.synthetic.type": "test"}, {"bot": True}),
        ({"http.route": "/health-insurance"}, {}),
        ({"http.method": "OPTIONS", "http.route": "/items"}, {"preflight": True}),
        ({"http.method": "OPTIONS", "url.path": "/items", "http.status_code": 204}, {"preflight": True}),
        (
            {"http.route": "/a", "http.request.header.sec-purpose": ("prefetch;prerender",)},
            {"prefetch": True},
        ),
        ({"http.route": "/a", "http.request.header.purpose": "prefetch"}, {"prefetch": True}),
        ({"http.route": "/a", "http.request.header.x_moz": ["prefetch"]}, {"prefetch": True}),
        ({"http.route": "/static/<path:filename>"}, {"staticFile": True}),
        ({"url.path": "/img/photo123.jpg", "http.status_code": 200}, {"staticFile": True}),
        ({"url.path": "/favicon.ico", "http.status_code": 200}, {"staticFile": True}),
        ({"url.path": "/robots.txt", "http.status_code": 200}, {"staticFile": True}),
        ({"url.path": "/app.3f2a9c1b.js", "http.status_code": 304}, {"staticFile": True}),
        ({"http.method": "POST", "http.route": "/compile.js"}, {}),
        ({"http.route": "/statistics"}, {}),
        ({"http.route": "/reports/{id}.pdf"}, {}),
        ({"http.route": "/a", "user_agent.original": "Mozilla/5.0 (X11; Linux)"}, {}),
    ],
)
def test_what_is_no_visit_is_marked_not_dropped(attributes: dict[str, Any], marks: dict[str, bool]) -> None:
    span = make_span({"http.method": "GET", **attributes})
    options = options_from_config(Config())
    (written,) = SpanMapper(options, encoded_form(view_metadata=True)).map(span).events
    for metadata in (mapper().map(span).events[0].metadata, json.loads(written.body)["metadata"]):
        assert {key: metadata[key] for key in MARKS if key in metadata} == marks


NATIVE = InstrumentationScope("fastapi")


def mounted_request(start: int = START, status: int = 200) -> list[Any]:
    """Two server spans of one request, in the order in which they end."""
    path = {"http.request.method": "GET", "url.path": "/v2/things/9", "http.response.status_code": status}
    times = {"start_time": start, "end_time": start + 9_000_000}
    outer = make_span({**path, "http.route": "/v2"}, context=SpanContext(1, 1, is_remote=False), **times)
    inner = make_span(
        {**path, "http.route": "/things/{id}"},
        instrumentation_scope=NATIVE,
        context=SpanContext(2, 2, is_remote=False),
        **times,
    )
    return [outer, inner]


@pytest.mark.parametrize("order", [1, -1])
def test_a_mounted_application_that_traces_itself_gives_one_view(order: int) -> None:
    shared = mapper()
    assert [len(shared.map(span).events) for span in mounted_request()[::order]] == [1, 0]


def test_requests_of_a_mounted_application_are_told_apart_by_time() -> None:
    shared = mapper()
    outer, _ = mounted_request()
    _, later = mounted_request(START + 10**12)
    assert [len(shared.map(span).events) for span in (outer, later)] == [1, 1]


def test_each_of_many_mounted_requests_gives_one_view() -> None:
    shared = mapper()
    requests = [mounted_request(START + offset) for offset in range(50)]
    spans = [outer for outer, _ in requests] + [inner for _, inner in requests]
    assert sum(len(shared.map(span).events) for span in spans) == 50


def test_an_application_that_only_traces_itself_keeps_all_its_views() -> None:
    shared = mapper()
    inner = [mounted_request(START + offset)[1] for offset in range(1000)]
    assert sum(len(shared.map(span).events) for span in inner) == 1000


@pytest.mark.parametrize(("start", "counts"), [(START, [1, 0]), (START + 10**12, [1, 1])])
def test_a_function_that_traces_itself_gives_one_view_though_aws_knows_no_path(
    start: int, counts: list[int]
) -> None:
    shared = mapper()
    _, inner = mounted_request()
    outer = make_span(
        {
            "faas.trigger": "http",
            "http.method": "GET",
            "http.route": "/{proxy+}",
            "http.target": "/{proxy+}?q=1",
            "http.status_code": 200,
        },
        instrumentation_scope=InstrumentationScope("opentelemetry.instrumentation.aws_lambda"),
        context=SpanContext(1, 1, is_remote=False),
        start_time=start,
        end_time=start + 10_000_000,
    )
    assert [len(shared.map(span).events) for span in (inner, outer)] == counts
