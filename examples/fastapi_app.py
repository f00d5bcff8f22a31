"""A FastAPI shop whose API calls and payments arrive at an analytics collector.

pip install 'otel-analytics[collector]' fastapi uvicorn opentelemetry-instrumentation-fastapi
otel-analytics collector                  # in another terminal: http://localhost:4380
python fastapi_app.py
curl -X POST -H "X-User: user-7" localhost:8000/orders/42
"""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled, flush_on_sigterm, identify, track

provider = TracerProvider()
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # traces keep their sample, every call counts
trace.set_tracer_provider(provider)
flush_on_sigterm()  # a container's stop loses nothing


def authenticate(x_user: Annotated[str | None, Header()] = None) -> None:
    """Say once, where the user is known, who it is; the header stands for your authentication."""
    identify(x_user)


app = FastAPI(dependencies=[Depends(authenticate)])
FastAPIInstrumentor.instrument_app(app)


@app.get("/products/{product_id}")
def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/{product_id}``."""
    return f"Product {product_id}"


@app.post("/orders/{product_id}", status_code=201)
def place_order(product_id: int) -> str:
    """Buy a product: a view, and a purchase."""
    track("payment_processed", target_id=product_id, amount=9.99)
    return "paid"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
