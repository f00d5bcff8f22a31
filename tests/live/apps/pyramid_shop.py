from __future__ import annotations

import shop
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response


def item(request: Request) -> Response:
    return Response(str(request.matchdict))


def order(_: Request) -> Response:
    shop.charge()
    return Response("paid", status=201)


def boom(_: Request) -> Response:
    raise RuntimeError("boom")


def stream(_: Request) -> Response:
    return Response(app_iter=shop.parts())


def slow(_: Request) -> Response:
    return Response(app_iter=shop.parts(shop.PARTS))


def mounted(config: Configurator) -> None:
    config.add_route("thing", "/things/{thing_id}")
    config.add_view(item, route_name="thing")


def make_app() -> object:
    config = Configurator()
    for view, pattern in ((item, "/items/{item_id}"), (boom, "/boom"), (stream, "/stream"), (slow, "/slow")):
        config.add_route(view.__name__, pattern)
        config.add_view(view, route_name=view.__name__)
    config.add_route("uni", "/uni/{name}")
    config.add_view(item, route_name="uni")
    config.add_route("order", "/orders", request_method="POST")
    config.add_view(order, route_name="order")
    config.include(mounted, route_prefix="/v2")
    return config.make_wsgi_app()


app = make_app()
