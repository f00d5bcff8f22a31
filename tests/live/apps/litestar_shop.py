"""Litestar with its own plugin, whose route is the method and the raw path."""

from __future__ import annotations

from typing import Any

import shop
from litestar import Litestar, Router, WebSocket, get, post, websocket
from litestar.plugins.opentelemetry import OpenTelemetryPlugin
from litestar.response import Stream


@get("/items/{item_id:str}")
async def item(item_id: str) -> str:
    return item_id


@post("/orders")
async def order() -> str:
    shop.charge()
    return "paid"


@get("/boom")
async def boom() -> None:
    raise RuntimeError("boom")


@get("/stream")
async def stream() -> Stream:
    return Stream(shop.async_parts())


@get("/slow")
async def slow() -> Stream:
    return Stream(shop.async_parts(shop.PARTS))


@get("/uni/{name:str}")
async def uni(name: str) -> str:
    return name


@get("/things/{thing_id:str}")
async def thing(thing_id: str) -> str:
    return thing_id


@websocket("/ws/{room:str}")
async def echo(socket: WebSocket[Any, Any, Any], room: str) -> None:
    await socket.accept()
    await socket.send_text(room + await socket.receive_text())
    await socket.close()


app = Litestar(
    [item, order, boom, stream, slow, uni, echo, Router("/v2", route_handlers=[thing])],
    plugins=[OpenTelemetryPlugin()],
)
