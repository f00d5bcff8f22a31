"""A Flask shop whose API calls and payments arrive at an analytics collector.

pip install otel-analytics flask opentelemetry-instrumentation-flask
otel-analytics collector                  # in another terminal: http://localhost:4380
python flask_app.py
curl -X POST localhost:8000/orders/42
"""

import os

from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_analytics import AnalyticsSpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(AnalyticsSpanExporter(app_name="shop")))
trace.set_tracer_provider(provider)

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.get("/products/<int:product_id>")
def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/<int:product_id>``."""
    return f"Product {product_id}"


@app.post("/orders/<int:product_id>")
def place_order(product_id: int) -> tuple[str, int]:
    """Buy a product: a view, and a purchase."""
    span = trace.get_current_span()
    span.set_attribute("user.id", "user-7")
    span.add_event("payment_processed", {"target.id": str(product_id), "amount": 9.99})
    return "paid", 201


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
