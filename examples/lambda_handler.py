"""An AWS Lambda style handler: the process is frozen once it returns, so what it did is delivered before.

pip install otel-analytics
"""

from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from otel_analytics import AnalyticsSpanProcessor

processor = AnalyticsSpanProcessor(app_name="shop")
provider = TracerProvider()
provider.add_span_processor(processor)
trace.set_tracer_provider(provider)
tracer = trace.get_tracer(__name__)


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Place an order: a view of ``POST:/orders``, and a purchase."""
    try:
        with tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER) as span:
            return place_order(event, span)
    finally:
        processor.force_flush(timeout_millis=2000)


def place_order(event: dict[str, Any], span: trace.Span) -> dict[str, Any]:
    """Do the work, and say on the span what was done."""
    span.set_attributes(
        {
            "faas.trigger": "http",
            "http.request.method": event["httpMethod"],
            "http.route": event["resource"],
            "client.address": event["requestContext"]["identity"]["sourceIp"],
            "user.id": "user-7",
        }
    )
    span.add_event("payment_processed", {"target.id": "order-42", "amount": 9.99})
    span.set_attribute("http.response.status_code", 201)
    return {"statusCode": 201, "body": "paid"}
