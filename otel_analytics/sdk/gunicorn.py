"""A gunicorn configuration for environment variables alone.

``GUNICORN_CMD_ARGS="--config python:otel_analytics.sdk.gunicorn"``: gunicorn resets the signals of each
worker after the fork, and uvicorn's workers then die of SIGTERM without ``atexit``; here they flush first.
"""

from __future__ import annotations

from typing import Any

from otel_analytics.sdk.shutdown import flush_on_sigterm


def post_worker_init(worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    """Flush on SIGTERM where the worker has left the signal its default action."""
    flush_on_sigterm()
