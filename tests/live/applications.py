"""The applications, each as it is really served, and how its framework spells the routes they all have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from traffic import ASKS

from otel_analytics.mapping.endpoint import UNMATCHED

Spelling = Callable[[str], str]


def braces(name: str) -> str:
    return f"{{{name}}}"


def angles(name: str) -> str:
    return f"<{name}>"


def as_id(name: str) -> str:
    """Spell what a raw path leaves: an id is seen, a word stays."""
    return {"name": "café", "room": "blue"}.get(name, "{id}")


def routes(spelling: Spelling) -> Mapping[str, str]:
    return {
        "item": f"/items/{spelling('item_id')}",
        "order": "/orders",
        "boom": "/boom",
        "stream": "/stream",
        "slow": "/slow",
        "uni": f"/uni/{spelling('name')}",
        "mounted": f"/v2/things/{spelling('thing_id')}",
        "ws": f"/ws/{spelling('room')}",
    }


def uvicorn(app: str, *options: str) -> tuple[str, ...]:
    return ("uvicorn", app, "--host", "{host}", "--port", "{port}", "--no-access-log", *options)


def gunicorn(app: str, *options: str) -> tuple[str, ...]:
    return ("gunicorn", app, "--bind", "{bind}", *options)


def script(name: str) -> tuple[str, ...]:
    return (sys.executable, name)


@dataclass(frozen=True)
class Application:
    """One application under one server.

    Args:
        command: How it is served; `{host}`, `{port}` and `{bind}` are filled in.
        instruments: Names of the instrumentations that are switched on.
        routes: How its framework spells its routes.
        websockets: Whether it has them.
        routed: Requests answered 404 or 405 by a route, not for want of one.
        unseen: Requests that leave no span: the server or the framework answers before any instrumentation.
        overrides: By request, or request and mode, the endpoint or status that the spans allow to know,
            where it is another.
        tells_address: Whether the instrumentation says anything of the client's address.
        env: More environment.
        zero_code: Whether `opentelemetry-instrument` starts it.
    """

    command: tuple[str, ...]
    instruments: frozenset[str]
    routes: Mapping[str, str] = field(default_factory=lambda: routes(braces))
    websockets: bool = False
    routed: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tells_address: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    zero_code: bool = True


# The server span of a mounted ASGI application has the mount's prefix for a route, and the whole path.
MOUNTED_RAW = {**routes(braces), "mounted": "/v2/things/{id}"}
# A client that left before the end of the response: nobody can say what it saw.
LEFT_EARLY = {"disconnect": {"status": None}}
# Without a route the path is all there is; what no percent-decoding makes text of is U+FFFD. No answer below
# 400 shows that the one which fails is a path of the application's own.
RAW = {"malformed": {"endpoint": "/uni/\ufffd%zz"}, "boom": {"endpoint": UNMATCHED}}
LATIN_1 = {"endpoint": "/uni/\xff%zz"}  # how WSGI's `PATH_INFO` says the same, which is a `url.path` there
EVERYTHING = frozenset(ask.name for ask in ASKS)
WRONG_METHOD = frozenset({"head", "wrong_method", "unknown_method"})
DJANGO = {"DJANGO_SETTINGS_MODULE": "django_settings"}

APPLICATIONS: Mapping[str, Application] = {
    "fastapi": Application(
        uvicorn("fastapi_shop:app"), frozenset({"fastapi"}), MOUNTED_RAW, websockets=True, routed=WRONG_METHOD
    ),
    "fastapi-native": Application(
        uvicorn("fastapi_shop:app"),
        frozenset(),
        websockets=True,
        routed=WRONG_METHOD,
        overrides={"websocket": {"status": None}},
        tells_address=False,
    ),
    "fastapi-prefixed": Application(
        uvicorn("fastapi_shop:app", "--root-path", "/api"),
        frozenset({"fastapi"}),
        MOUNTED_RAW,
        websockets=True,
        routed=WRONG_METHOD,
    ),
    "starlette": Application(
        uvicorn("starlette_shop:app"),
        frozenset({"starlette"}),
        MOUNTED_RAW,
        websockets=True,
        routed=WRONG_METHOD,
    ),
    "starlette-hypercorn": Application(
        ("hypercorn", "--bind", "{bind}", "starlette_shop:app"),
        frozenset({"starlette"}),
        MOUNTED_RAW,
        websockets=True,
        routed=WRONG_METHOD,
    ),
    "flask": Application(
        ("flask", "--app", "flask_shop", "run", "--host", "{host}", "--port", "{port}"),
        frozenset({"flask"}),
        routes(angles),
    ),
    "django-wsgi": Application(
        gunicorn("django_shop:wsgi"), frozenset({"django"}), routes(angles), routed=WRONG_METHOD, env=DJANGO
    ),
    "django-asgi": Application(
        ("daphne", "-b", "{host}", "-p", "{port}", "django_shop:asgi"),
        frozenset({"django"}),
        routes(angles),
        routed=WRONG_METHOD,
        env=DJANGO,
    ),
    "aiohttp": Application(
        script("aiohttp_shop.py"),
        frozenset({"aiohttp-server"}),
        websockets=True,
        unseen=frozenset({"unknown_method"}),
        overrides=LEFT_EARLY,
        tells_address=False,
    ),
    "tornado": Application(
        script("tornado_shop.py"),
        frozenset({"tornado"}),
        {**routes(lambda _: "{item_id}"), "ws": "/ws/{var}"},
        websockets=True,
        unseen=frozenset({"malformed", "unknown_method"}),
        overrides={**LEFT_EARLY, "boom": RAW["boom"]},
    ),
    "falcon": Application(
        gunicorn("falcon_shop:app"), frozenset({"falcon"}), routed=frozenset({"wrong_method"})
    ),
    "pyramid": Application(
        gunicorn("pyramid_shop:app"), frozenset({"pyramid"}), unseen=frozenset({"malformed"})
    ),
    "asgi": Application(uvicorn("asgi_shop:app"), frozenset(), routes(as_id), websockets=True, overrides=RAW),
    "litestar": Application(
        uvicorn("litestar_shop:app"), frozenset(), routes(as_id), websockets=True, overrides=RAW
    ),
    "starlette-native": Application(uvicorn("starlette_native_shop:app"), frozenset(), routed=WRONG_METHOD),
    "quart": Application(
        uvicorn("quart_shop:app"), frozenset(), routes(as_id), websockets=True, overrides=RAW
    ),
    "connexion": Application(
        uvicorn("connexion_shop:app"),
        frozenset({"flask"}),
        routes(angles),
        unseen=frozenset({"wrong_method", "unknown_method"}),
    ),
    "connexion-async": Application(
        uvicorn("connexion_async_shop:app"), frozenset({"asgi"}), unseen=EVERYTHING
    ),
    "django-rest": Application(
        gunicorn("django.core.wsgi:get_wsgi_application()"),
        frozenset({"django"}),
        routes(angles),
        routed=WRONG_METHOD,
        env={"DJANGO_SETTINGS_MODULE": "drf_shop"},
    ),
    "logfire": Application(
        uvicorn("logfire_shop:app"),
        frozenset({"fastapi"}),
        MOUNTED_RAW,
        websockets=True,
        routed=WRONG_METHOD,
        zero_code=False,
    ),
    "wsgi": Application(
        gunicorn("wsgi_shop:app", "--worker-class", "gthread", "--threads", "4"),
        frozenset(),
        routes(as_id),
        overrides={**RAW, "malformed http": LATIN_1, "malformed http/dup": LATIN_1},
    ),
}

GRPC: Mapping[str, Application] = {
    "grpc": Application(script("grpc_shop.py"), frozenset({"grpc_server"}), unseen=frozenset({"nothing"})),
    "grpc-aio": Application(
        script("grpc_aio_shop.py"), frozenset({"grpc_aio_server"}), unseen=frozenset({"nothing"})
    ),
}


def others_disabled(instruments: frozenset[str]) -> str:
    """Return the setting that switches all other instrumentations off.

    Not for speed alone: several are installed here where an application has one.
    """
    known = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    return ",".join(sorted(known - instruments))
