"""A module for Celery's workers to include: ``celery worker --include otel_analytics.sdk.celery``.

A worker process of Celery's prefork pool ends by `os._exit`, without ``atexit``: after
``--max-tasks-per-child`` tasks, and when the worker stops. Here it flushes first.
"""

from __future__ import annotations

from typing import Any

from celery.signals import worker_process_shutdown

from otel_analytics.sdk.shutdown import flush_all


def flush_before_exit(**_: Any) -> None:
    """Flush while the process is still there."""
    flush_all()


worker_process_shutdown.connect(flush_before_exit, weak=False)
