"""A FastAPI shop whose API calls and payments arrive at an analytics collector.

pip install otel-analytics fastapi uvicorn opentelemetry-instrumentation-fastapi
otel-analytics collector                  # in another terminal: http://localhost:4380
python fastapi_app.py
curl -X POST localhost:8000/orders/42
"""

import os

import uvicorn
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled, identify, track

provider = TracerProvider()
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # traces keep their sample, every call counts
trace.set_tracer_provider(provider)

app = FastAPI()
FastAPIInstrumentor.instrument_app(app)


@app.get("/products/{product_id}")
def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/{product_id}``."""
    return f"Product {product_id}"


@app.post("/orders/{product_id}", status_code=201)
def place_order(product_id: int) -> str:
    """Buy a product: a view, and a purchase."""
    identify("user-7")  # from anywhere inside the request, such as your authentication
    track("payment_processed", target_id=product_id, amount=9.99)
    return "paid"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
