"""What an application's own mypy sees of the public names: checked by `mypy`, never run.

Each ``type: ignore`` stands where a mistake has to be an error; strict mypy calls an unused one an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from typing_extensions import assert_type

from otel_analytics import (
    AnalyticsClient,
    AnalyticsLogRecordExporter,
    AnalyticsSpanExporter,
    AnalyticsSpanProcessor,
    BusinessEvent,
    Config,
    EngagementEvent,
    FlushOnShutdown,
    LedgerSnapshot,
    Options,
    ViewEvent,
    count_unsampled,
    flush_on_sigterm,
    identify,
    track,
)
from otel_analytics.testing import FaultyCollector, Unavailable


def set_up(provider: TracerProvider) -> None:
    processor = AnalyticsSpanProcessor("http://localhost:4380", app_name="shop")
    provider.add_span_processor(processor)
    count_unsampled(provider)
    assert_type(processor.client, AnalyticsClient)
    assert_type(processor.force_flush(), bool)
    assert_type(AnalyticsSpanExporter("http://localhost:4380").force_flush(), bool)
    assert_type(flush_on_sigterm(), bool)
    AnalyticsSpanProcessor(4380)  # type: ignore[arg-type]


def misset() -> None:
    """Options are checked by name and by value, wherever they are taken."""
    AnalyticsSpanProcessor(tiemout_millis=500)  # type: ignore[call-arg]
    AnalyticsSpanExporter(timeout_millis="500")  # type: ignore[arg-type]
    AnalyticsLogRecordExporter(batching="sometimes")  # type: ignore[arg-type]
    AnalyticsClient(excluded_endpoints="GET:/healthz")  # type: ignore[arg-type]
    AnalyticsClient(business_events=["invoice_paid"])  # type: ignore[arg-type]
    AnalyticsClient(before_send=lambda: None)  # type: ignore[arg-type,misc]
    Config.resolve(debug="yes")  # type: ignore[arg-type]
    wrong: Options = {"client_pi": "drop"}  # type: ignore[typeddict-unknown-key]
    AnalyticsClient("http://localhost:4380", **wrong)


def well_set(path: Path) -> None:
    shared: Options = {"app_name": "shop", "client_ip": "drop", "spool_path": path, "write_key": None}
    AnalyticsClient("http://localhost:4380", **shared)
    AnalyticsSpanProcessor(excluded_endpoints=["GET:/healthz"], business_events={"invoice_paid": "purchase"})
    AnalyticsSpanExporter(headers={"Authorization": "Bearer secret"}, trusted_baggage=("user.id",))


def call() -> None:
    identify("user-7", session_id="visit-1")
    track("payment_processed", order_id="order-42", amount=9.99)
    track(order_id="order-42")  # type: ignore[call-arg]


def directly(client: AnalyticsClient) -> None:
    with client as same:
        assert_type(same, AnalyticsClient)
    client.track_api_call("/orders", "POST", 201)
    client.track_api_call("/orders", "POST", "201")  # type: ignore[arg-type]
    client.track_business_event("user-7", "payment_processed")  # type: ignore[call-arg]
    client.track_view("product-42", "product", metadata=["no mapping"])  # type: ignore[arg-type]
    assert_type(client.flush(), bool)
    assert_type(client.stats(), LedgerSnapshot)
    assert_type(client.stats().pending, int)
    assert_type(client.stats().dropped, Mapping[str, int])


def hook(event: ViewEvent | EngagementEvent) -> ViewEvent | EngagementEvent | None:
    if isinstance(event, ViewEvent):
        assert_type(event.duration, float | None)
    event.user_id = "user-7"  # type: ignore[misc]
    return event


def heard(reason: str, events: Sequence[ViewEvent | EngagementEvent]) -> None:
    print(reason, [event.event_id for event in events])


def hooked() -> AnalyticsClient:
    business_events = {"invoice_paid": BusinessEvent("purchase")}
    return AnalyticsClient(before_send=hook, on_drop=heard, business_events=business_events)


async def served() -> None:
    async def app(_scope: object, _receive: object, _send: object) -> None: ...

    FlushOnShutdown(app)


def tested() -> None:
    with FaultyCollector(Unavailable(retry_after=1)) as collector:
        assert_type(collector.url, str)
