"""The collector's HTTP: the contract's two URLs, and four to look at what came.

=====  ===========================  ============================================================
POST   /analytics/track/view        one view, or an array of them
POST   /analytics/track/engagement  one engagement, or an array of them
GET    /events                      stored events as JSON, see `events_answer`
GET    /stats                       the counts as JSON
GET    /                            a page of what arrived
GET    /healthz                     204 while it runs
=====  ===========================  ============================================================
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import sqlite3
import time
from collections.abc import Callable
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_analytics.collector import page
from otel_analytics.collector.bodies import decoded, parsed, read_body
from otel_analytics.collector.intake import BatchLimits, Intake
from otel_analytics.collector.refusal import Refusal, Rejection
from otel_analytics.collector.store import Store
from otel_analytics.collector.visitors import locals_only
from otel_analytics.contract import ADVERTISEMENT, IDEMPOTENCY_KEY, PATHS, WRITE_KEY, Kind, rfc3339

_DEFAULT_LIMIT = 100
_LARGEST_LIMIT = 10_000


def build_app(
    store: Store,
    *,
    write_key: str | None,
    batch: BatchLimits | None,
    max_body_bytes: int,
    locally: bool,
) -> ASGIApp:
    """Return the collector as an ASGI application.

    Args:
        store: Where events go; the caller closes it.
        write_key: What `X-Write-Key` must be; `None` asks for none.
        batch: What arrays are taken and advertised; `None` takes single events only.
        max_body_bytes: Largest request body, before and after decompression.
        locally: Whether it is for this machine only, see `locals_only`.
    """
    track = _Track(store, write_key, batch, max_body_bytes)
    routes = [
        *(Route(path, partial(track.answer, kind), methods=["POST"]) for kind, path in PATHS.items()),
        Route("/events", partial(_read, store, events_answer)),
        Route("/stats", partial(_read, store, _stats_answer)),
        Route("/", partial(_read, store, _page_answer)),
        Route("/healthz", _healthy),
    ]
    # No `Starlette` object: where an application under test has that class instrumented, the collector's own
    # requests would leave spans, which come back as requests.
    router = Router(routes, redirect_slashes=False)
    app = ExceptionMiddleware(
        locals_only(router) if locally else router,
        handlers={
            Rejection: _rejected,
            Refusal: partial(_refused, store),
            sqlite3.Error: _failed,
            ClientDisconnect: _gone,
        },
    )
    return app if batch is None else _advertising(app, batch)


class _Track:
    """Takes events at the contract's two URLs."""

    def __init__(
        self, store: Store, write_key: str | None, batch: BatchLimits | None, max_body_bytes: int
    ) -> None:
        self._write_key = None if write_key is None else write_key.encode()
        self._max_body_bytes = max_body_bytes
        self._intake = Intake(store, batch)

    async def answer(self, kind: Kind, request: Request) -> Response:
        self._authorise(request)
        raw = await read_body(request, self._max_body_bytes)
        encoding = request.headers.get("content-encoding", "")
        return await run_in_threadpool(self._take, kind, raw, encoding, request.headers.get(IDEMPOTENCY_KEY))

    def _authorise(self, request: Request) -> None:
        if self._write_key is None:
            return
        sent = request.headers.get(WRITE_KEY, "").encode("latin-1")
        if not hmac.compare_digest(sent, self._write_key):
            raise Refusal(401, f"{WRITE_KEY}: is missing or not this collector's")

    def _take(self, kind: Kind, raw: bytes, encoding: str, idempotency_key: str | None) -> Response:
        body = decoded(raw, encoding, self._max_body_bytes)
        now = time.time_ns() // 1_000_000
        return JSONResponse(self._intake.take(kind, parsed(body), len(body), idempotency_key, now))


async def _read(store: Store, answer: Callable[[Store, Request], Response], request: Request) -> Response:
    return await run_in_threadpool(answer, store, request)


def events_answer(store: Store, request: Request) -> Response:
    """Answer `GET /events`: ``{"total": n, "events": [{"kind", "receivedAt", "body"}]}`` in arrival order.

    The query takes the filters of `selection`, `limit` (100, at most 10,000) and `offset`; `total` counts all
    that the filters mean.
    """
    try:
        query = dict(request.query_params)
        limit = _whole(query, "limit", _DEFAULT_LIMIT, _LARGEST_LIMIT)
        offset = _whole(query, "offset", 0, 2**53)
        found, total = store.events(query, limit=limit, offset=offset), store.total(query)
    except ValueError as error:
        return _errors(400, str(error))
    # The stored text goes out as it came, without being parsed again.
    events = ",".join(
        f'{{"kind":"{kind}","receivedAt":"{rfc3339(millis * 1_000_000)}","body":{body}}}'
        for kind, millis, body in found
    )
    return Response(f'{{"total":{total},"events":[{events}]}}', media_type="application/json")


def _whole(query: dict[str, str], name: str, default: int, largest: int) -> int:
    text = query.pop(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(largest)) and int(text) <= largest):
        raise ValueError(f"{name}: must be a whole number from 0 to {largest}")
    return int(text)


def _stats_answer(store: Store, _: Request) -> Response:
    stats = store.stats()
    kinds = {kind: counts._asdict() for kind, counts in stats.kinds.items()}
    return JSONResponse({**dataclasses.asdict(stats), "kinds": kinds})


def _page_answer(store: Store, request: Request) -> Response:
    return HTMLResponse(page.render(store, str(request.base_url).rstrip("/")), headers=page.HEADERS)


async def _healthy(_: Request) -> Response:
    return Response(status_code=204)


async def _refused(store: Store, request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 - registered for nothing else
    await run_in_threadpool(store.add_refusal, refusal.status)
    return await _rejected(request, refusal)


async def _rejected(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 - as above
    return _errors(refusal.status, *refusal.errors)


async def _failed(_: Request, error: Exception) -> Response:
    return _errors(503, f"the database failed: {error}")


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody is left to read it


def _errors(status: int, *errors: str) -> Response:
    return Response(json.dumps({"errors": errors}), status, media_type="application/json")


def _advertising(app: ASGIApp, batch: BatchLimits) -> ASGIApp:
    header = (ADVERTISEMENT.lower().encode(), batch.header().encode())

    async def advertising(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await app(scope, receive, send_with_header)

    return advertising
