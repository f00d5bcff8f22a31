from __future__ import annotations

from string import ascii_lowercase
from typing import Any

import pytest
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from span_making import make_span, mapper, view_of

from otel_analytics.mapping.endpoint import mounted_path, path_endpoint, raw_path
from otel_analytics.mapping.routes import read_route

FOLDED = [
    ("/", "/"),
    ("*", "*"),
    ("/items", "/items"),
    ("/items/", "/items/"),
    ("//items///42", "/items/{id}"),
    # numbers, dates, times
    ("/users/12345/orders/7", "/users/{id}/orders/{id}"),
    ("/reports/2024-01-31", "/reports/{id}"),
    ("/log/2024-01-31T12:00:00Z", "/log/{id}"),
    ("/blog/2024/01/31/hello-world", "/blog/{id}/{id}/{id}/hello-world"),
    ("/at/48.8584/-2", "/at/{id}/{id}"),
    # UUIDs, hashes, object ids
    ("/orders/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "/orders/{id}"),
    ("/orders/3F2504E04F8911D39A0C0305E82C3301", "/orders/{id}"),
    ("/o/{3f2504e0-4f89-11d3-9a0c-0305e82c3301}", "/o/{id}"),
    ("/posts/507f1f77bcf86cd799439011", "/posts/{id}"),
    ("/commit/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/commit/{id}"),
    ("/commit/9fceb02", "/commit/{id}"),
    # tokens
    ("/t/dGhpcyBpcyBhIHRlc3Q=", "/t/{id}"),
    ("/s/eyJhbGciOiJIUzI1NiJ9", "/s/{id}"),
    ("/video/dQw4w9WgXcQ", "/video/{id}"),
    ("/customers/cus_9s6XKzkNRiz8i3", "/customers/{id}"),
    ("/ulid/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/ulid/{id}"),
    ("/n/v1stgxr8z5jdhi6bmyt0a", "/n/{id}"),
    ("/reset/" + "a" * 65, "/reset/{id}"),
    # people
    ("/users/jane.doe@example.com/avatar", "/users/{id}/avatar"),
    ("/users/jane.doe%40example.com", "/users/{id}"),
    # names with a number
    ("/orders/INV-2024-0017", "/orders/{id}"),
    ("/u/user_123", "/u/{id}"),
    ("/u/order17", "/u/{id}"),
    ("/p/my-long-post-title-4711", "/p/{id}"),
    ("/img/photo123.jpg", "/img/{id}.jpg"),
    ("/img/42.png", "/img/{id}.png"),
    ("/m/x;v=1", "/m/x;v={id}"),
    ("/m/a;jsessionid=9A1B2C3D4E5F60718293A4B5C6D7E8F9", "/m/a;jsessionid={id}"),
    # what stays
    ("/api/v1/users", "/api/v1/users"),
    ("/api/v2.1/users", "/api/v2.1/users"),
    ("/.well-known/openid-configuration", "/.well-known/openid-configuration"),
    ("/oauth2/authorize", "/oauth2/authorize"),
    ("/static/app.js", "/static/app.js"),
    ("/checksums/sha256", "/checksums/sha256"),
    ("/UserProfile/getSettings", "/UserProfile/getSettings"),
    ("/internationalization/accessibility", "/internationalization/accessibility"),
    ("/facade/decade", "/facade/decade"),
    # text
    ("/caf%C3%A9/men%C3%BC", "/café/menü"),
    ("/caf\u00c3\u00a9", "/café"),
    ("/日本", "/日本"),
    ("/a%2Fb", "/a%2Fb"),
    ("/%ff%fe", "/\ufffd\ufffd"),
]


@pytest.mark.parametrize(("path", "endpoint"), FOLDED)
def test_real_looking_paths(path: str, endpoint: str) -> None:
    assert path_endpoint(path) == endpoint


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b=c", "/a"),
        ("/a#b?c", "/a"),
        ("/a%3Fb=secret", "/a"),
        ("/a%3fb", "/a"),
        ("/a%253Fb", "/a"),
        ("/a%23b", "/a"),
        ("http://user:pw@h/a?b", "/a"),
        ("HTTP://h:80", "/"),
        ("ws://[::1]:80/ws?x", "/ws"),
        ("?a=b", "/"),
        ("*", "*"),
        ("/redirect/http://h/a", "/redirect/http://h/a"),
    ],
)
def test_a_path_has_no_query_fragment_or_authority(target: str, path: str) -> None:
    assert raw_path(target) == path


def test_credentials_never_reach_an_endpoint() -> None:
    # What an ASGI server makes of an absolute-form target, with old names only.
    url = "http://shop.examplehttp://user:pw@shop.example/items?q=1"
    assert view_of({"http.method": "GET", "http.url": url}).content_id == "GET:/{id}/items"


@pytest.mark.parametrize(
    ("route", "endpoint"),
    [
        ("/items/{item_id}", "/items/{item_id}"),
        ("items/<int:item_id>", "/items/<int:item_id>"),
        ("^api/^items/(?P<pk>[^/.]+)/$", "/api/items/{pk}/"),
        (r"^articles/(?P<year>[0-9]{4})/(?P<slug>[\w-]+(?:\.html)?)/\Z", "/articles/{year}/{slug}/"),
        (r"/items/(\d+)", "/items/{var}"),
        (r"^v1\.0/items/?$", "/v1.0/items/"),
        (r"^/?api/v(?P<version>(1|2))/users/(?P<id>[0-9]+)/?$", "/api/v{version}/users/{id}/"),
        ("/a(b)?token=x", "/a{var}"),
        ("/a?b=c", "/a"),
        ("*", "*"),
        ("", "/"),
        # ASP.NET
        ("api/users/{id?}", "/api/users/{id?}"),
        ("{controller=Home}/{action=Index}/{id?}", "/{controller=Home}/{action=Index}/{id?}"),
        ("u/{id:int:min(1)}", "/u/{id:int:min(1)}"),
        (r"u/{id:regex(^\d{{3}}$)}", r"/u/{id:regex(^\d{{3}}$)}"),
        # RFC 6570: Micronaut; OData
        ("/items/{id}{?q,page}", "/items/{id}"),
        ("/Products({key})", "/Products({key})"),
        # Rails, Sinatra, Grape
        ("/posts/:id(.:format)", "/posts/:id"),
        ("/posts(/:id)(.:format)", "/posts(/:id)"),
        ("/posts/:id.?:format?", "/posts/:id"),
        # Express, Next.js, Play, aiohttp and gorilla, Bottle, FastRoute
        (r"/u/:id(\d+)", r"/u/:id(\d+)"),
        ("/:lang?/about", "/:lang?/about"),
        ("/flights/:from-:to", "/flights/:from-:to"),
        ("/docs/[[...slug]]", "/docs/[[...slug]]"),
        ("/items/$id<[^/]+>", "/items/$id<[^/]+>"),
        (r"/u/{id:[0-9]{3}}", r"/u/{id:[0-9]{3}}"),
        ("/u/<name:re:[a-z]?>", "/u/<name:re:[a-z]?>"),
        ("/items[/{id}]", "/items[/{id}]"),
        # an optional last slash
        ("/items/?", "/items/"),
        ("/items(/)", "/items/"),
        ("/items[/]", "/items/"),
        # a leading method or host, Go's; a custom verb is no parameter
        ("GET /items/{id}", "/items/{id}"),
        ("GET|HEAD /items", "/items"),
        ("GET shop.example/items/", "/items/"),
        ("GET /items/{$}", "/items/"),
        ("/items:batchGet", "/items:batchGet"),
        # what is a query string all the same
        ("/{id}?token=x", "/{id}"),
        ("/:id?token=x", "/:id"),
        ("GET /a%3Ftoken=x", "/a"),
        ("http://user:pw@h/x/{id}", "/x/{id}"),
    ],
)
def test_routes(route: str, endpoint: str) -> None:
    assert read_route(route).endpoint == endpoint


@pytest.mark.parametrize(
    ("route", "path", "rest"),
    [
        ("/v2", "/v2/things/9", "/things/9"),
        ("/v2", "/root/v2/things/9", "/things/9"),
        ("/{tenant}/admin", "/acme/admin/users", "/users"),
        ("/v2", "/v2", ""),
        ("/v2", "/v2/", ""),
        ("/items/{id}", "/root/path/items/9", ""),
        ("/files/{path:path}", "/files/a/b/c", ""),
        ("/files/<path:p>", "/files/a/b/c", ""),
        ("/files/{tail:.*}", "/files/a/b/c", ""),
        ("/files/", "/files/a/b/c", ""),
        ("/posts/:id", "/root/posts/9", ""),
        ("/:tenant/admin", "/acme/admin/users", "/users"),
        ("/other", "/v2/things/9", ""),
    ],
)
def test_the_part_that_a_mounted_application_handled(route: str, path: str, rest: str) -> None:
    assert mounted_path(route, path) == rest


LAMBDA = "opentelemetry.instrumentation.aws_lambda"
OTELHTTP = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
ASGI = "opentelemetry.instrumentation.asgi"


def answered(
    path: str, route: str, status: int = 200, *, scope: str = "rig", method: str = "GET", name: str = ""
) -> Any:
    said = {"http.method": method, "http.status_code": status, "url.path": path, "http.route": route}
    attributes = {key: value for key, value in said.items() if value}
    return make_span(attributes, name=name or method, instrumentation_scope=InstrumentationScope(scope))


def content_id(shared: Any, span: Any) -> str:
    (event,) = shared.map(span).events
    return str(event.content_id).partition(":")[2]


@pytest.mark.parametrize(
    ("scope", "path", "route", "status", "endpoint"),
    [
        # Litestar's own plugin, AWS Lambda with the HTTP API's payload 2.0, otelhttp before Go 1.22
        (ASGI, "/api/items/3", "GET /api/items/3", 200, "/api/items/{id}"),
        (ASGI, "/wp-admin", "GET /wp-admin", 404, "{unmatched}"),
        (ASGI, "/caf%C3%A9/3", "GET /café/3", 200, "/café/{id}"),
        (ASGI, "/x/{1}", "GET /x/{1}", 200, "/x/{id}"),
        (LAMBDA, "/prod/items/3", "/prod/items/3", 200, "/prod/items/{id}"),
        (LAMBDA, "/login", "/login", 403, "{unmatched}"),
        (OTELHTTP, "/items/3", "/items/3", 200, "/items/{id}"),
        ("loongsuite.instrumentation.nethttp", "/items/3", "/items/3", 200, "/items/{id}"),
        # true routes of the same instrumentations
        (ASGI, "/items/3", "/items/{id}", 404, "/items/{id}"),
        (LAMBDA, "/items/3", "/items/{id}", 404, "/items/{id}"),
        (OTELHTTP, "/files/jane/tax.pdf", "GET /files/", 404, "/files/"),
        # true routes that equal their path
        ("rig", "/top10/1984", "/top10/1984", 404, "/top10/1984"),
        # catch-alls
        (LAMBDA, "/items/3", "/{proxy+}", 200, "/items/{id}"),
        (LAMBDA, "/prod/api/items/3", "ANY /api/{proxy+}", 200, "/prod/api/items/{id}"),
        (LAMBDA, "/items/3", "$default", 200, "/items/{id}"),
        ("rig", "/a/3", "/{*route}", 200, "/a/{id}"),
        ("rig", "/a/3", "{**route}", 200, "/a/{id}"),
        ("rig", "/a/3", "/**", 200, "/a/{id}"),
        ("rig", "/a/3", "/{full_path:path}", 200, "/a/{id}"),
        ("rig", "/.env", "/**", 404, "{unmatched}"),
        ("rig", "", "/**", 404, "{unmatched}"),
        ("rig", "", "/**", 200, "/**"),
        ("rig", "/.env", "/", 404, "{unmatched}"),
        ("rig", "/", "/", 404, "/"),
        ("rig", "/api/nope", "/api/{*rest}", 404, "/api/{unmatched}"),
        ("rig", "/files/jane-doe", "/files/{path:path}", 404, "/files/{path:path}"),
        ("rig", "/files/jane-doe", "/files/*filepath", 200, "/files/*filepath"),
    ],
)
def test_a_route_is_believed_only_where_it_is_one(
    scope: str, path: str, route: str, status: int, endpoint: str
) -> None:
    assert content_id(mapper(), answered(path, route, status, scope=scope)) == endpoint


def test_what_one_request_was_says_nothing_of_the_next_one_with_the_same_route() -> None:
    shared = mapper()
    asked = [("/", "/"), ("/.env", "/"), ("/.env", "/**"), ("/a", "/{*rest}"), ("/b", "/{*rest}")]
    got = [content_id(shared, answered(path, route, 404)) for path, route in asked]
    assert got == ["/", *["{unmatched}"] * 4]
    got = [content_id(shared, answered(path, route, 200)) for path, route in asked]
    assert got == ["/", "/", "/.env", "/a", "/b"]


@pytest.mark.parametrize("scope", [ASGI, LAMBDA, "an instrumentation that nobody knows"])
@pytest.mark.parametrize("path", ["/u/%s", "/u/{%s}", "/u/:%s"])
def test_paths_written_as_routes_are_bounded(scope: str, path: str) -> None:
    shared = mapper(max_endpoints=10)
    spans = [answered(path % letter, path % letter, scope=scope) for letter in ascii_lowercase]
    assert len({content_id(shared, span) for span in spans}) == 11
    assert shared.take_folded_endpoints() == 16


def test_routes_without_a_path_to_compare_are_bounded_too() -> None:
    shared = mapper(max_endpoints=10)
    assert len({content_id(shared, answered("", f"/u/{number}")) for number in range(1100)}) == 1001


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("OPTIONS", 200),
        ("OPTIONS", 204),
        ("GET", 401),
        ("POST", 403),
        ("GET", 413),
        ("GET", 429),
        ("GET", 500),
    ],
)
def test_a_path_without_a_route_earns_its_endpoint(method: str, status: int) -> None:
    shared = mapper()
    refused = answered("/wp-login.php", "", status, method=method)
    assert content_id(shared, refused) == "{unmatched}"
    assert content_id(shared, answered("/wp-login.php", "", 302)) == "/wp-login.php"
    assert content_id(shared, refused) == "/wp-login.php"
    assert content_id(shared, answered("/wp-login.php", "", 404)) == "{unmatched}"


@pytest.mark.parametrize(
    ("name", "status", "endpoint"),
    [
        ("GET /product/{id}", 200, "/product/{id}"),
        ("GET /product/{id}", 404, "/product/{id}"),
        ("GET /posts/:id(.:format)", 200, "/posts/:id"),
        ("GET /product/42?token=x", 200, "/product/{id}"),
        ("/product/42", 200, "/product/{id}"),
        ("HTTP GET /product/42", 200, "/product/{id}"),
        ("GET /wp-login.php", 403, "{unmatched}"),
        ("GET /wp-login.php", 404, "{unmatched}"),
        ("GET /**", 404, "{unmatched}"),
        ("GET", 200, "{unknown}"),
        ("handle request", 200, "{unknown}"),
    ],
)
def test_with_neither_path_nor_route_the_name_is_the_only_truth(
    name: str, status: int, endpoint: str
) -> None:
    assert content_id(mapper(), answered("", "", status, name=name)) == endpoint


def test_names_alone_do_not_get_around_the_cap() -> None:
    shared = mapper(max_endpoints=3)
    names = [f"GET /u/{{{letter}}}" for letter in "abc"] + [f"GET /u/{letter}" for letter in "abc"]
    assert len({content_id(shared, answered("", "", name=name)) for name in names}) == 4


def unrouted(path: str) -> Any:
    return make_span({"http.method": "GET", "url.path": path, "http.status_code": 200})


def content_ids(shared: Any, paths: list[str]) -> set[str]:
    events = [event for path in paths for event in shared.map(unrouted(path)).events]
    return {event.body()["contentId"] for event in events}


def test_past_the_cap_raw_endpoints_fold_and_are_counted() -> None:
    shared = mapper(max_endpoints=3)
    assert content_ids(shared, ["/a", "/b", "/c"]) == {"GET:/a", "GET:/b", "GET:/c"}
    assert shared.take_folded_endpoints() == 0
    assert content_ids(shared, ["/d", "/e"]) == {"GET:{other}"}
    assert content_ids(shared, ["/a", "/b"]) == {"GET:/a", "GET:/b"}
    assert shared.take_folded_endpoints() == 2


def test_routes_do_not_count_towards_the_cap() -> None:
    shared = mapper(max_endpoints=1)
    spans = [make_span({"http.method": "GET", "http.route": f"/{name}"}) for name in "abc"]
    contents = [event.body()["contentId"] for span in spans for event in shared.map(span).events]
    assert contents == ["GET:/a", "GET:/b", "GET:/c"]


def test_whatever_strangers_request_the_endpoints_are_bounded() -> None:
    shared = mapper(max_endpoints=50)
    paths = [f"/{'x' * (i % 40)}{chr(97 + i % 26)}/{i}/{i:x}" for i in range(5000)]
    assert len(content_ids(shared, paths)) <= 51
    assert shared.take_folded_endpoints() > 0
