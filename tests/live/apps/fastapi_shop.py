from __future__ import annotations

import shop
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()
mounted = FastAPI()


@app.get("/items/{item_id}")
async def item(item_id: str) -> str:
    return item_id


@app.post("/orders", status_code=201)
def order() -> str:
    shop.charge()
    return "paid"


@app.get("/boom")
def boom() -> None:
    raise RuntimeError("boom")


@app.get("/stream")
def stream() -> StreamingResponse:
    return StreamingResponse(shop.async_parts())


@app.get("/slow")
def slow() -> StreamingResponse:
    return StreamingResponse(shop.async_parts(shop.PARTS))


@app.get("/uni/{name}")
def uni(name: str) -> str:
    return name


@app.websocket("/ws/{room}")
async def echo(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    await websocket.send_text(room + await websocket.receive_text())
    await websocket.close()


@mounted.get("/things/{thing_id}")
def thing(thing_id: str) -> str:
    return thing_id


app.mount("/v2", mounted)
