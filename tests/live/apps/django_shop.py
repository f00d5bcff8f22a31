from __future__ import annotations

import shop
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.urls import include, path


def item(_: HttpRequest, **names: str) -> HttpResponse:
    return HttpResponse(str(names))


def order(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    shop.charge()
    return HttpResponse("paid", status=201)


def boom(_: HttpRequest) -> HttpResponse:
    raise RuntimeError("boom")


def stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(shop.parts())


def slow(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(shop.parts(shop.PARTS))


mounted = [path("things/<thing_id>", item)]
urlpatterns = [
    path("items/<item_id>", item),
    path("orders", order),
    path("boom", boom),
    path("stream", stream),
    path("slow", slow),
    path("uni/<name>", item),
    path("v2/", include(mounted)),
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
