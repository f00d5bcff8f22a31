"""Auth code names the user on the request's span; the payment happens on a child."""

from __future__ import annotations

from flask import Flask, request
from opentelemetry import trace

app = Flask(__name__)
tracer = trace.get_tracer("payers")


@app.before_request
def authenticate() -> None:
    trace.get_current_span().set_attribute("user.id", request.headers["X-User"])


@app.post("/pay/<order>")
def pay(order: str) -> str:
    with tracer.start_as_current_span("charge") as span:
        span.add_event("payment_processed", {"order": order})
    return ""
