from __future__ import annotations

import shop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket


async def item(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(request.path_params))


async def order(_: Request) -> PlainTextResponse:
    shop.charge()
    return PlainTextResponse("paid", 201)


async def boom(_: Request) -> PlainTextResponse:
    raise RuntimeError("boom")


async def stream(_: Request) -> StreamingResponse:
    return StreamingResponse(shop.async_parts())


async def slow(_: Request) -> StreamingResponse:
    return StreamingResponse(shop.async_parts(shop.PARTS))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


app = Starlette(
    routes=[
        Route("/items/{item_id}", item),
        Route("/orders", order, methods=["POST"]),
        Route("/boom", boom),
        Route("/stream", stream),
        Route("/slow", slow),
        Route("/uni/{name}", item),
        WebSocketRoute("/ws/{room}", echo),
        Mount("/v2", routes=[Route("/things/{thing_id}", item)]),
    ]
)
