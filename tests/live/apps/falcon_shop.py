from __future__ import annotations

import falcon
import shop


class Item:
    def on_get(self, _: falcon.Request, response: falcon.Response, **names: str) -> None:
        response.text = str(names)

    on_head = on_get


class Order:
    def on_post(self, _: falcon.Request, response: falcon.Response) -> None:
        shop.charge()
        response.status = falcon.HTTP_201


class Boom:
    def on_get(self, _: falcon.Request, __: falcon.Response) -> None:
        raise RuntimeError("boom")


class Parts:
    def __init__(self, count: int) -> None:
        self.count = count

    def on_get(self, _: falcon.Request, response: falcon.Response) -> None:
        response.stream = shop.parts(self.count)


app = falcon.App()
app.add_route("/items/{item_id}", Item())
app.add_route("/orders", Order())
app.add_route("/boom", Boom())
app.add_route("/stream", Parts(3))
app.add_route("/slow", Parts(shop.PARTS))
app.add_route("/uni/{name}", Item())
app.add_route("/v2/things/{thing_id}", Item())
