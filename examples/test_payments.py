"""A test of your own that a payment is tracked: a collector on a real socket, in the test's own process.

pip install otel-analytics pytest
pytest test_payments.py
"""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from otel_analytics import AnalyticsSpanProcessor, track
from otel_analytics.testing import FaultyCollector


def pay(order_id: str) -> None:
    """What your application does."""
    track("payment_processed", target_id=order_id, amount=9.99)


def test_a_payment_is_a_purchase() -> None:
    """The event arrives with the order it is about."""
    with FaultyCollector() as collector:
        processor = AnalyticsSpanProcessor(collector.url, app_name="shop")
        provider = TracerProvider()
        provider.add_span_processor(processor)
        with provider.get_tracer("shop").start_as_current_span("POST /orders", kind=SpanKind.SERVER):
            pay("order-42")
        assert processor.force_flush(5_000)
        (purchase,) = collector.bodies("engagement")
        provider.shutdown()
    assert (purchase["metricType"], purchase["targetId"]) == ("purchase", "order-42")
