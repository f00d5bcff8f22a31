"""What all applications do alike: an order's payment, and a response in parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from opentelemetry import trace

PARTS = 40
PAUSE_SECONDS = 0.02


def charge() -> None:
    """Take a payment, on a span of its own."""
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span("charge", attributes={"user.id": "user-77"}) as span:
        span.add_event("payment_processed", {"target.id": "order-1", "amount": 9.99})


def parts(count: int = 3) -> Iterator[bytes]:
    for _ in range(count):
        yield b"part " * 20
        time.sleep(PAUSE_SECONDS)


async def async_parts(count: int = 3) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"part " * 20
        await asyncio.sleep(PAUSE_SECONDS)
