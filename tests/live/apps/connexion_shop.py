"""Connexion over Flask, whose instrumentation makes the spans."""

from __future__ import annotations

import connexion
import shop
from connexion_spec import openapi
from flask import Response


def item(item_id: str) -> str:
    return item_id


def order() -> tuple[str, int]:
    shop.charge()
    return "paid", 201


def boom() -> str:
    raise RuntimeError("boom")


def stream() -> Response:
    return Response(shop.parts())


def slow() -> Response:
    return Response(shop.parts(shop.PARTS))


def uni(name: str) -> str:
    return name


def thing(thing_id: str) -> str:
    return thing_id


app = connexion.FlaskApp(__name__)
app.add_api(openapi(__name__))
