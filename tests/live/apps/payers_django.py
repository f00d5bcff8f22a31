"""Settings, routes and views in one: auth code names the user on the request, the payment is on a child."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace

SECRET_KEY = "of a test"  # noqa: S105 - it keeps nothing secret
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
MIDDLEWARE = [f"{__name__}.authenticate"]

tracer = trace.get_tracer("payers")


def authenticate(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def handle(request: HttpRequest) -> HttpResponse:
        trace.get_current_span().set_attribute("user.id", request.headers["X-User"])
        return get_response(request)

    return handle


def pay(_: HttpRequest, order: str) -> HttpResponse:
    with tracer.start_as_current_span("charge") as span:
        span.add_event("payment_processed", {"order": order})
    return HttpResponse()


urlpatterns = [path("pay/<str:order>", pay)]
