"""A Celery worker whose payments arrive at an analytics collector; a task is no API call and gives no view.

pip install 'otel-analytics[collector]' celery opentelemetry-instrumentation-celery
otel-analytics collector                  # in another terminal: http://localhost:4380
celery -A celery_worker worker
python -c "from celery_worker import charge; charge.delay('user-7', 'order-42')"
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled

# A folder serves as the broker, so that this example needs no other server.
folder = Path(os.environ.get("BROKER_FOLDER", tempfile.gettempdir())) / "celery-example"
folder.mkdir(exist_ok=True)

# The included module flushes before a worker process ends, e.g. after --max-tasks-per-child tasks.
app = Celery("shop", broker="filesystem://", include=["otel_analytics.sdk.celery"])
app.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder / "control"),
}


@worker_process_init.connect(weak=False)
def init_tracing(**_: Any) -> None:
    """Set tracing up in each worker process."""
    provider = TracerProvider()
    provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
    count_unsampled(provider)  # traces keep their sample, every task counts
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@app.task
def charge(user_id: str, order_id: str) -> None:
    """Take the money: a purchase."""
    span = trace.get_current_span()
    span.add_event("payment_processed", {"user.id": user_id, "target.id": order_id, "amount": 9.99})
