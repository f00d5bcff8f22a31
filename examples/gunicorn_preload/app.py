"""A Flask shop under ``gunicorn --preload``: set up once, before the workers are forked.

pip install otel-analytics flask gunicorn opentelemetry-instrumentation-flask
otel-analytics collector                  # in another terminal: http://localhost:4380
gunicorn app:app                          # reads gunicorn.conf.py
curl localhost:8000/products/42
"""

from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled

# The workers inherit these and begin anew with threads and connections of their own.
provider = TracerProvider()
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # traces keep their sample, every call counts
trace.set_tracer_provider(provider)

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.get("/products/<int:product_id>")
def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/<int:product_id>``."""
    return f"Product {product_id}"
