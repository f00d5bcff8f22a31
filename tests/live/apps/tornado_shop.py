from __future__ import annotations

import asyncio
import os
from typing import Any

import shop
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler


class Item(RequestHandler):
    def get(self, item_id: str) -> None:
        self.write(item_id)

    head = get


class Order(RequestHandler):
    def post(self) -> None:
        shop.charge()
        self.set_status(201)


class Boom(RequestHandler):
    def get(self) -> None:
        raise RuntimeError("boom")


class Parts(RequestHandler):
    def initialize(self, count: int) -> None:
        self.count = count

    async def get(self) -> None:
        async for part in shop.async_parts(self.count):
            self.write(part)
            await self.flush()


class Echo(WebSocketHandler):
    def open(self, room: str) -> None:
        self.room = room

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message)


async def main() -> None:
    routes: list[Any] = [
        (r"/items/([^/]+)", Item),
        (r"/orders", Order),
        (r"/boom", Boom),
        (r"/stream", Parts, {"count": 3}),
        (r"/slow", Parts, {"count": shop.PARTS}),
        (r"/uni/(?P<item_id>[^/]+)", Item),
        (r"/ws/(\w+)", Echo),
        (r"/v2/things/([^/]+)", Item),
    ]
    Application(routes).listen(int(os.environ["PORT"]), os.environ["HOST"])
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
