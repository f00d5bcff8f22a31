"""A Django shop in one file whose API calls and payments arrive at an analytics collector.

pip install 'otel-analytics[collector]' django opentelemetry-instrumentation-django
otel-analytics collector                  # in another terminal: http://localhost:4380
python django_app.py
curl -X POST -H "X-User: user-7" localhost:8000/orders/42
"""

import os
from collections.abc import Callable

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled, flush_on_sigterm, identify, track

provider = TracerProvider()
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # traces keep their sample, every call counts
trace.set_tracer_provider(provider)
flush_on_sigterm()  # a container's stop loses nothing

settings.configure(ROOT_URLCONF=__name__, DEBUG=True, MIDDLEWARE=[f"{__name__}.authenticate"])
DjangoInstrumentor().instrument()  # after the settings, whose middleware it joins


def authenticate(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Say once, where the user is known, who it is: after `AuthenticationMiddleware`, ``request.user.pk``."""

    def middleware(request: HttpRequest) -> HttpResponse:
        identify(request.headers.get("X-User"))  # stands for your authentication
        return get_response(request)

    return middleware


def read_product(_: HttpRequest, product_id: int) -> HttpResponse:
    """Read a product: a view of ``GET:/products/<int:product_id>``."""
    return HttpResponse(f"Product {product_id}")


def place_order(_: HttpRequest, product_id: int) -> HttpResponse:
    """Buy a product: a view, and a purchase."""
    track("payment_processed", target_id=product_id, amount=9.99)
    return HttpResponse("paid", status=201)


urlpatterns = [
    path("products/<int:product_id>", read_product),
    path("orders/<int:product_id>", place_order),
]

if __name__ == "__main__":
    execute_from_command_line(["django", "runserver", "--noreload", os.environ.get("PORT", "8000")])
