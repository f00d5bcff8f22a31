"""Servers of several processes or threads, by what they are started with."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
from applications import DJANGO, MOUNTED_RAW, Application, angles, gunicorn, routes, uvicorn

FLASK = frozenset({"flask"})
FASTAPI = frozenset({"fastapi"})
_CLIENTS = 4


def _flask(*options: str) -> Application:
    return Application(gunicorn("flask_shop:app", *options), FLASK, routes(angles))


def _fastapi(*command: str) -> Application:
    return Application(command, FASTAPI, MOUNTED_RAW)


def _asgi(worker_class: str, *options: str) -> Application:
    return _fastapi(*gunicorn("fastapi_shop:app", "--workers", "2", "--worker-class", worker_class, *options))


WORKERS: Mapping[str, Application] = {
    "gunicorn-sync": _flask("--workers", "2"),
    "gunicorn-gthread": _flask("--workers", "2", "--threads", "4"),
    "gunicorn-gevent": _flask("--workers", "2", "--worker-class", "gevent"),
    "gunicorn-preload": _flask("--workers", "2", "--preload"),
    "gunicorn-gthread-preload": _flask("--workers", "2", "--threads", "4", "--preload"),
    "gunicorn-django": Application(
        gunicorn("django_shop:wsgi", "--workers", "2"), frozenset({"django"}), routes(angles), env=DJANGO
    ),
    "uvicorn": _fastapi(*uvicorn("fastapi_shop:app")),
    "uvicorn-workers": _fastapi(*uvicorn("fastapi_shop:app", "--workers", "2")),
    "gunicorn-uvicorn": _asgi("uvicorn.workers.UvicornWorker"),
    "gunicorn-uvicorn-preload": _asgi("uvicorn.workers.UvicornWorker", "--preload"),
    "gunicorn-uvicorn-h11": _asgi("uvicorn.workers.UvicornH11Worker"),
    "gunicorn-uvicorn-worker": _asgi("uvicorn_worker.UvicornWorker"),
    "hypercorn-workers": _fastapi("hypercorn", "--bind", "{bind}", "--workers", "2", "fastapi_shop:app"),
    "werkzeug": Application(
        ("flask", "--app", "flask_shop", "run", "--host", "{host}", "--port", "{port}"), FLASK, routes(angles)
    ),
}


def get_items(url: str, count: int) -> set[str]:
    """Request that many items, several at a time, each on a connection of its own; return their names."""

    def get(name: str) -> str:
        httpx.get(f"{url}/items/{name}", timeout=10).raise_for_status()
        return name

    with ThreadPoolExecutor(_CLIENTS) as clients:
        return set(clients.map(get, [f"item-{number}" for number in range(count)]))
