"""Events without OpenTelemetry: the client alone.

pip install 'otel-analytics[collector]'
otel-analytics collector                  # in another terminal: http://localhost:4380
python direct_client.py
"""

from otel_analytics import AnalyticsClient

# Leaving the block delivers what is still waiting.
with AnalyticsClient(app_name="shop") as client:
    client.track_api_call(
        endpoint="/orders/{id}",
        method="POST",
        status_code=201,
        user_id="user-7",
        duration=12.5,  # milliseconds
        ip_address="203.0.113.7",
    )
    client.track_business_event(
        user_id="user-7",
        event_type="payment_processed",
        target_id="order-42",
        metadata={"amount": 9.99, "currency": "EUR"},
    )
    client.track_view(content_id="product-42", content_type="product", user_id="user-7")
    client.track_engagement(
        user_id="user-7", metric_type="like", target_id="product-42", target_type="product"
    )
    client.flush(timeout_millis=5000)
    stats = client.stats()

print(f"accepted {stats.accepted}, delivered {stats.delivered}")
