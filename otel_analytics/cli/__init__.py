"""The command ``otel-analytics``."""

from otel_analytics.cli.main import main

__all__ = ["main"]
