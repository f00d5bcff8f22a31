"""A Flask shop whose API calls and payments arrive at an analytics collector.

pip install 'otel-analytics[collector]' flask opentelemetry-instrumentation-flask
otel-analytics collector                  # in another terminal: http://localhost:4380
python flask_app.py
curl -X POST -H "X-User: user-7" localhost:8000/orders/42
"""

import os

from flask import Flask, request
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled, flush_on_sigterm, identify, track

provider = TracerProvider()
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # traces keep their sample, every call counts
trace.set_tracer_provider(provider)
flush_on_sigterm()  # a container's stop loses nothing

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.before_request
def authenticate() -> None:
    """Say once, where the user is known, who it is; the header stands for your authentication."""
    identify(request.headers.get("X-User"))


@app.get("/products/<int:product_id>")
def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/<int:product_id>``."""
    return f"Product {product_id}"


@app.post("/orders/<int:product_id>")
def place_order(product_id: int) -> tuple[str, int]:
    """Buy a product: a view, and a purchase."""
    track("payment_processed", target_id=product_id, amount=9.99)
    return "paid", 201


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
