"""A FastAPI shop that knows OpenTelemetry's API only: `zero_code.md` and `declarative.yaml` trace it."""

from fastapi import FastAPI
from opentelemetry import trace

app = FastAPI()


@app.get("/products/{product_id}")
def read_product(product_id: int) -> str:
    """Read a product: a view of ``GET:/products/{product_id}``."""
    return f"Product {product_id}"


@app.post("/orders/{product_id}", status_code=201)
def place_order(product_id: int) -> str:
    """Buy a product: a view, and a purchase."""
    span = trace.get_current_span()
    span.set_attribute("user.id", "user-7")
    span.add_event("payment_processed", {"target.id": str(product_id), "amount": 9.99})
    return "paid"
