"""No framework at all: an ASGI application in the official middleware, without any route."""

from __future__ import annotations

from typing import Any

import shop
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

STATUSES = {"items": 200, "orders": 201, "stream": 200, "slow": 200, "uni": 200, "v2": 200}


async def shop_app(scope: Any, receive: Any, send: Any) -> None:
    await {"http": http, "websocket": websocket, "lifespan": lifespan}[scope["type"]](scope, receive, send)


async def lifespan(_: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def http(scope: Any, _: Any, send: Any) -> None:
    place = scope["path"].split("/")[1]
    if place == "boom":
        raise RuntimeError("boom")
    if place == "orders" and scope["method"] == "POST":
        shop.charge()
    await send({"type": "http.response.start", "status": STATUSES.get(place, 404), "headers": []})
    async for part in shop.async_parts({"stream": 3, "slow": shop.PARTS}.get(place, 1)):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def websocket(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"]})
    await send({"type": "websocket.close"})


app = OpenTelemetryMiddleware(shop_app)
