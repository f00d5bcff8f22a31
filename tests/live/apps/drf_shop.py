"""Django REST framework: settings, routes and views in one."""

from __future__ import annotations

import shop
from django.http import StreamingHttpResponse
from django.urls import include, path
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

ROOT_URLCONF = __name__
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"]
ALLOWED_HOSTS = ["*"]
SECRET_KEY = "only-for-tests"  # noqa: S105 - nothing is signed with it
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}


@api_view(["GET"])
def item(_: Request, **names: str) -> Response:
    return Response(names)


@api_view(["POST"])
def order(_: Request) -> Response:
    shop.charge()
    return Response("paid", status=201)


@api_view(["GET"])
def boom(_: Request) -> Response:
    raise RuntimeError("boom")


@api_view(["GET"])
def stream(_: Request) -> StreamingHttpResponse:
    return StreamingHttpResponse(shop.parts())


@api_view(["GET"])
def slow(_: Request) -> StreamingHttpResponse:
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
