from __future__ import annotations

import shop
from flask import Blueprint, Flask, Response

app = Flask(__name__)
mounted = Blueprint("v2", __name__, url_prefix="/v2")


@app.get("/items/<item_id>")
def item(item_id: str) -> str:
    return item_id


@app.post("/orders")
def order() -> tuple[str, int]:
    shop.charge()
    return "paid", 201


@app.get("/boom")
def boom() -> str:
    raise RuntimeError("boom")


@app.get("/stream")
def stream() -> Response:
    return Response(shop.parts())


@app.get("/slow")
def slow() -> Response:
    return Response(shop.parts(shop.PARTS))


@app.get("/uni/<name>")
def uni(name: str) -> str:
    return name


@mounted.get("/things/<thing_id>")
def thing(thing_id: str) -> str:
    return thing_id


app.register_blueprint(mounted)
