from __future__ import annotations

import os

import shop
from aiohttp import WSMsgType, web


async def item(request: web.Request) -> web.Response:
    return web.Response(text=str(request.match_info))


async def order(_: web.Request) -> web.Response:
    shop.charge()
    return web.Response(text="paid", status=201)


async def boom(_: web.Request) -> web.Response:
    raise RuntimeError("boom")


async def _parts(request: web.Request, count: int) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for part in shop.async_parts(count):
        await response.write(part)
    return response


async def stream(request: web.Request) -> web.StreamResponse:
    return await _parts(request, 3)


async def slow(request: web.Request) -> web.StreamResponse:
    return await _parts(request, shop.PARTS)


async def echo(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        if message.type == WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


mounted = web.Application()
mounted.router.add_get("/things/{thing_id}", item)
app = web.Application()
app.router.add_get("/items/{item_id}", item)
app.router.add_post("/orders", order)
app.router.add_get("/boom", boom)
app.router.add_get("/stream", stream)
app.router.add_get("/slow", slow)
app.router.add_get("/uni/{name}", item)
app.router.add_get("/ws/{room}", echo)
app.add_subapp("/v2", mounted)

if __name__ == "__main__":
    web.run_app(app, host=os.environ["HOST"], port=int(os.environ["PORT"]))
