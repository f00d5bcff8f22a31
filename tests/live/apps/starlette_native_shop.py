"""Starlette's own tracing, an ASGI middleware around the application."""

from __future__ import annotations

from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette_shop import app as shop_app

app = OpenTelemetryMiddleware(shop_app)
