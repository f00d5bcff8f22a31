"""The shop: an ordinary FastAPI application. It knows OpenTelemetry's API and nothing of analytics.

Run it yourself, beside ``otel-analytics collector``::

    OTEL_TRACES_EXPORTER=analytics opentelemetry-instrument uvicorn otel_analytics.demo.shop:app
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from opentelemetry import trace
from pydantic import BaseModel

PRODUCTS = {number: f"Product {number}" for number in range(1, 21)}

app = FastAPI(title="Demo shop")


class Order(BaseModel):
    """What somebody buys."""

    product_id: int
    amount: float


class Message(BaseModel):
    """What somebody says to somebody."""

    to: str
    text: str


def current_user(x_user: Annotated[str, Header()] = "") -> str:
    """Say who asks: an application's own authentication, which also tells the request's span."""
    if x_user:
        trace.get_current_span().set_attribute("user.id", x_user)
    return x_user


User = Annotated[str, Depends(current_user)]


@app.get("/products")
async def list_products(_: User) -> list[str]:
    """Read the catalogue."""
    await asyncio.sleep(0.004)
    return list(PRODUCTS.values())


@app.get("/products/{product_id}")
async def read_product(product_id: int, _: User) -> str:
    """Read one product, if there is one."""
    await asyncio.sleep(0.001 * (product_id % 5))
    if product_id not in PRODUCTS:
        raise HTTPException(404, "no such product")
    return PRODUCTS[product_id]


@app.post("/orders", status_code=201)
async def place_order(order: Order, _: User) -> str:
    """Buy: a payment is a business event."""
    await asyncio.sleep(0.012)
    trace.get_current_span().add_event(
        "payment_processed",
        {"target.id": f"product-{order.product_id}", "amount": order.amount, "currency": "EUR"},
    )
    return "paid"


@app.post("/messages", status_code=201)
async def send_message(message: Message, _: User) -> str:
    """Write to somebody: one message, sent and received."""
    span = trace.get_current_span()
    span.add_event("message_sent", {"target.id": message.to, "length": len(message.text)})
    span.add_event("message_received", {"target.id": message.to, "user.id": message.to})
    return "sent"


@app.post("/streams/{name}/start")
async def start_stream(name: str, _: User) -> str:
    """Begin to watch."""
    trace.get_current_span().add_event("stream_started", {"target.id": name})
    return "started"


@app.post("/streams/{name}/end")
async def end_stream(name: str, _: User) -> str:
    """Stop watching."""
    trace.get_current_span().add_event("stream_ended", {"target.id": name})
    return "ended"


@app.get("/reports/daily")
async def crash(_: User) -> str:
    """Fail, as software does."""
    raise RuntimeError("the report's database is gone")
