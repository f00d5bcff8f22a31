"""What goes over a framework, or without one: GraphQL, MCP and functions of AWS Lambda, run live."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from applications import Application, others_disabled, script, uvicorn
from driving import eventually
from observing import APPS, PAYER, View, served
from serving import ZERO_CODE, environment

from otel_analytics.collector import DevCollector

ADDRESS = "127.0.0.1"
Told = tuple[Any, ...]


def told(views: Iterable[View], *more: Callable[[View], Any]) -> list[Told]:
    """Return of each view what an analyst reads first, in the order in which the requests began."""
    return [
        (
            view["contentId"],
            view["metadata"].get("statusCode"),
            view.get("ipAddress"),
            view.get("userId"),
            *(each(view) for each in more),
        )
        for view in sorted(views, key=lambda view: str(view["metadata"]["timestamp"]))
    ]


def operation(view: View) -> Any:
    return view["metadata"].get("operation")


def leaks(collector: DevCollector) -> int:
    return json.dumps([*collector.events("view"), *collector.events("engagement")]).count("secret")


def assert_paid(collector: DevCollector, route: str) -> None:
    (purchase,) = collector.events("engagement")
    assert (purchase["userId"], purchase["metricType"]) == (PAYER, "purchase")
    assert purchase["metadata"]["route"] == route


def await_views(collector: DevCollector, count: int) -> None:
    """Wait for as many views, then for as long as one too many might take."""
    eventually(lambda: len(collector.events("view")) >= count, 5)
    assert not eventually(lambda: len(collector.events("view")) > count, 0.3)


def assert_views(collector: DevCollector, expected: list[Told], *more: Callable[[View], Any]) -> None:
    await_views(collector, len(expected))
    assert told(collector.events("view"), *more) == expected


GRAPHQL: Mapping[str, frozenset[str]] = {"fastapi": frozenset({"fastapi"}), "native": frozenset()}


@pytest.mark.parametrize("name", ["fastapi", pytest.param("native", marks=pytest.mark.slow)])
def test_a_graphql_request_says_its_operation(name: str, tmp_path: Path) -> None:
    app = Application(uvicorn("strawberry_shop:app"), GRAPHQL[name])
    address = None if name == "native" else ADDRESS
    with (
        DevCollector() as collector,
        served(app, "unset", collector, tmp_path) as running,
        httpx.Client(base_url=running.url, params={"token": "secret"}) as client,
    ):
        checkout = {
            "query": "mutation Checkout($coupon: String!) { checkout(coupon: $coupon) }",
            "operationName": "Checkout",
            "variables": {"coupon": "secret"},
        }
        client.post("/graphql", json=checkout).raise_for_status()
        for document in ('{ item(itemId: "secret") }', "mutation Boom { boom }", "{ nothing }", "{{"):
            client.post("/graphql", json={"query": document}).raise_for_status()
        client.get("/graphql", params={"query": '{ item(itemId: "secret") }'}).raise_for_status()
        client.options("/graphql")
        client.get("/nothing")
        expected = [
            ("POST:/graphql", 200, address, PAYER, "mutation Checkout"),
            ("POST:/graphql", 200, address, None, "query"),
            ("POST:/graphql", 200, address, None, "mutation Boom"),
            ("POST:/graphql", 200, address, None, "query"),
            ("POST:/graphql", 200, address, None, "query"),
            ("GET:/graphql", 200, address, None, "query"),
            ("OPTIONS:/graphql", 405, address, None, None),
            ("GET:{unmatched}", 404, address, None, None),
        ]
        assert_views(collector, expected, operation)
        assert_paid(collector, "/graphql")
        assert leaks(collector) == 0


MCP_MESSAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tools/list", {}),
    ("tools/call", {"name": "buy", "arguments": {"item_id": "secret"}}),
    ("tools/call", {"name": "boom", "arguments": {}}),
    ("tools/call", {"name": "secret", "arguments": {}}),
    ("resources/read", {"uri": "shop://items/secret"}),
    ("resources/read", {"uri": "nothing://secret"}),
    ("prompts/get", {"name": "recommend", "arguments": {"taste": "secret"}}),
    ("prompts/get", {"name": "secret", "arguments": {}}),
    ("secret/secret", {}),
)
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "x", "version": "1"},
}


FAILED = "failed"


def mcp_told(collector: DevCollector) -> list[Told]:
    """Leave open what the error was: FastMCP tells its code only since 4.2."""
    codes = ("-32601", "-32602", "MCPError")
    return [
        (content, FAILED if status in codes else status, *more)
        for content, status, *more in told(collector.events("view"))
    ]


def mcp_views(address: str | None) -> list[Told]:
    return [
        ("MCP:initialize", None, address, None),
        ("MCP:tools/list", None, address, None),
        ("MCP:tools/call buy", None, address, PAYER),
        ("MCP:tools/call boom", "tool_error", address, None),
        ("MCP:tools/call {unmatched}", "NotFoundError", address, None),
        ("MCP:resources/read", None, address, None),
        ("MCP:resources/read", FAILED, address, None),
        ("MCP:prompts/get recommend", None, address, None),
        ("MCP:prompts/get {unmatched}", FAILED, address, None),
        ("MCP:{unmatched}", FAILED, address, None),
    ]


def mcp_messages() -> list[dict[str, Any]]:
    messages = (("initialize", INITIALIZE), *MCP_MESSAGES)
    return [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(messages)
    ]


@pytest.mark.parametrize("instruments", [{"starlette"}, pytest.param(set(), marks=pytest.mark.slow)])
def test_an_mcp_message_over_http_is_one_call(instruments: set[str], tmp_path: Path) -> None:
    app = Application(script("fastmcp_shop.py"), frozenset(instruments))
    headers = {"Accept": "application/json, text/event-stream"}
    with (
        DevCollector() as collector,
        served(app, "unset", collector, tmp_path) as running,
        httpx.Client(base_url=running.url, headers=headers, params={"token": "secret"}) as client,
    ):
        for message in mcp_messages():
            client.post("/mcp", json=message).raise_for_status()
        expected = mcp_views(ADDRESS if instruments else None)
        await_views(collector, len(expected))
        assert mcp_told(collector) == expected
        assert_paid(collector, "tools/call buy")
        assert leaks(collector) == 0


def run(
    command: list[str], instruments: set[str], messages: Iterable[Any], collector: DevCollector, **env: str
) -> list[str]:
    """Have a process under ``opentelemetry-instrument`` answer lines of JSON; return what it printed."""
    finished = subprocess.run(
        ["opentelemetry-instrument", sys.executable, *command],
        cwd=APPS,
        env=environment(
            collector.url,
            {
                **ZERO_CODE,
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": others_disabled(frozenset(instruments)),
                **env,
            },
        ),
        input="".join(json.dumps(message) + "\n" for message in messages),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


def test_an_mcp_message_over_standard_input_is_a_call() -> None:
    initialize, *messages = mcp_messages()
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    with DevCollector() as collector:
        run(["fastmcp_shop.py", "stdio"], set(), [initialize, initialized, *messages], collector)
        assert sorted(mcp_told(collector), key=str) == sorted(mcp_views(None), key=str)
        assert_paid(collector, "tools/call buy")
        assert leaks(collector) == 0


def payload_1(method: str, path: str, resource: str) -> dict[str, Any]:
    """Return a request as API Gateway's payload 1.0 says it."""
    return {
        "version": "1.0",
        "httpMethod": method,
        "path": path,
        "resource": resource,
        "headers": {"Host": "api.example", "X-Forwarded-Proto": "https", "User-Agent": "test"},
        "multiValueHeaders": {},
        "queryStringParameters": {"token": "secret"},
        "multiValueQueryStringParameters": {"token": ["secret"]},
        "requestContext": {"resourcePath": resource, "identity": {"sourceIp": "203.0.113.7"}},
        "body": None,
        "isBase64Encoded": False,
    }


def payload_2(method: str, path: str) -> dict[str, Any]:
    """Return a request as API Gateway's payload 2.0 says it, which AWS's function URLs have too."""
    http = {"method": method, "path": path, "sourceIp": "203.0.113.7", "userAgent": "test"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "token=secret",
        "headers": {"host": "api.example", "user-agent": "test"},
        "requestContext": {"domainName": "api.example", "http": http, "stage": "$default"},
        "isBase64Encoded": False,
    }


MESSAGES_OF_A_QUEUE = {"Records": [{"eventSource": "aws:sqs", "messageAttributes": {}, "body": "secret"}]}
PROXY = "/{proxy+}"
LAMBDA_EVENTS = (
    payload_1("GET", "/items/42", "/items/{item_id}"),
    payload_1("GET", "/items/42", PROXY),
    payload_1("POST", "/orders", PROXY),
    payload_1("GET", "/nothing/here", PROXY),
    payload_1("GET", "/boom", PROXY),
    payload_2("GET", "/items/42"),
    payload_2("POST", "/orders"),
    payload_2("GET", "/nothing/here"),
    payload_2("GET", "/boom"),
    payload_2("OPTIONS", "/orders"),
    MESSAGES_OF_A_QUEUE,
)
STATUSES = (200, 200, 201, 404, 500, 200, 201, 404, 500, 405)
# Payload 1.0 has the gateway's resource and no path, payload 2.0 the path and no route.
FROM_THE_GATEWAY = (
    *("GET:/items/{item_id}", f"GET:{PROXY}", f"POST:{PROXY}", "GET:{unmatched}", f"GET:{PROXY}"),
    *("GET:/items/{id}", "POST:/orders", "GET:{unmatched}", "GET:{unmatched}", "OPTIONS:{unmatched}"),
)
FROM_FASTAPI = (
    *("GET:/items/{item_id}", "GET:/items/{item_id}", "POST:/orders", "GET:{unmatched}", "GET:/boom"),
    *("GET:/items/{item_id}", "POST:/orders", "GET:{unmatched}", "GET:/boom", "OPTIONS:/orders"),
)


@pytest.mark.parametrize(
    ("shop", "instruments", "endpoints", "payment_1"),
    [
        ("starlette_shop", set(), FROM_THE_GATEWAY, PROXY),
        ("fastapi_shop", set(), FROM_FASTAPI, "/orders"),
        pytest.param("fastapi_shop", {"fastapi"}, FROM_THE_GATEWAY, PROXY, marks=pytest.mark.slow),
    ],
    ids=["starlette", "fastapi-native", "fastapi"],
)
def test_a_function_of_aws_lambda(
    shop: str, instruments: set[str], endpoints: tuple[str, ...], payment_1: str
) -> None:
    with DevCollector() as collector:
        answers = run(
            ["lambda_runtime.py"],
            {"aws-lambda", *instruments},
            LAMBDA_EVENTS,
            collector,
            AWS_LAMBDA_FUNCTION_NAME="shop",
            _HANDLER="lambda_shop.handler",
            PYTHONPATH=str(APPS),
            SHOP=shop,
        )
        assert answers == [*map(str, STATUSES), "None"]
        views = told(collector.events("view"))
        assert [view[:3] for view in views] == [
            (endpoint, status, None) for endpoint, status in zip(endpoints, STATUSES, strict=True)
        ]
        assert [view[3] for view in views if view[1] == 201] == [PAYER] * 2
        routes = [purchase["metadata"].get("route") for purchase in collector.events("engagement")]
        assert routes == [payment_1, "/orders", None], "the queue's is no request's, and counted"
        assert {purchase["userId"] for purchase in collector.events("engagement")} == {PAYER}
        assert leaks(collector) == 0
