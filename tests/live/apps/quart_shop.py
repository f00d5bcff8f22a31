"""Quart in the official ASGI middleware: it has no instrumentation of its own, so no routes."""

from __future__ import annotations

import shop
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from quart import Blueprint, Quart, Response, websocket

app = Quart(__name__)
mounted = Blueprint("v2", __name__, url_prefix="/v2")


@app.get("/items/<item_id>")
async def item(item_id: str) -> str:
    return item_id


@app.post("/orders")
async def order() -> tuple[str, int]:
    shop.charge()
    return "paid", 201


@app.get("/boom")
async def boom() -> str:
    raise RuntimeError("boom")


@app.get("/stream")
async def stream() -> Response:
    return Response(shop.async_parts())


@app.get("/slow")
async def slow() -> Response:
    return Response(shop.async_parts(shop.PARTS))


@app.get("/uni/<name>")
async def uni(name: str) -> str:
    return name


@app.websocket("/ws/<room>")
async def echo(room: str) -> None:
    await websocket.send(f"{room}{await websocket.receive()!r}")


@mounted.get("/things/<thing_id>")
async def thing(thing_id: str) -> str:
    return thing_id


app.register_blueprint(mounted)
app.asgi_app = OpenTelemetryMiddleware(app.asgi_app)  # type: ignore[assignment, method-assign]
