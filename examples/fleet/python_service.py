"""The fleet's Python service: FastAPI, traced by OpenTelemetry's own SDK, and nothing of otel-analytics.

Where its spans go, the environment says: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME.
"""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()  # which sends what is left when the process exits
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)


def authenticate(x_user: Annotated[str | None, Header()] = None) -> None:
    """Note who asks; the header stands for your authentication."""
    if x_user:
        trace.get_current_span().set_attribute("user.id", x_user)


app = FastAPI(dependencies=[Depends(authenticate)])
FastAPIInstrumentor.instrument_app(app)


@app.get("/products/{product_id}")
async def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/{product_id}``."""
    return f"Product {product_id}"


@app.post("/orders/{order_id}", status_code=201)
async def place_order(order_id: str) -> str:
    """Buy: a view, and a purchase."""
    with trace.get_tracer("shop").start_as_current_span("charge") as span:
        span.add_event("payment_processed", {"order_id": order_id, "amount": 19.9, "currency": "EUR"})
    return "paid"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")
