"""Logfire beside us: it scrubs what it takes for secrets out of the spans that we get, too."""

from __future__ import annotations

from itertools import count
from typing import Any

import logfire
from fastapi_shop import app
from opentelemetry.trace import Span

from otel_analytics import AnalyticsSpanProcessor

_visits = count()


def visit(span: Span, _: dict[str, Any]) -> None:
    """Say whose visit it is."""
    span.set_attribute("session.id", f"visit-{next(_visits)}")


logfire.configure(
    send_to_logfire=False,
    console=False,
    additional_span_processors=[AnalyticsSpanProcessor()],
)
logfire.instrument_fastapi(app, server_request_hook=visit)
