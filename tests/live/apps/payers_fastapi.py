"""Auth code names the user on the request's span; the payment happens on a child."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from opentelemetry import trace

app = FastAPI()
tracer = trace.get_tracer("payers")


@app.middleware("http")
async def authenticate(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    trace.get_current_span().set_attribute("user.id", request.headers["X-User"])
    return await call_next(request)


@app.post("/pay/{order}")
def pay(order: str) -> str:
    with tracer.start_as_current_span("charge") as span:
        span.add_event("payment_processed", {"order": order})
    return ""
