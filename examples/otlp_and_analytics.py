"""Traces by OTLP, a sample of them, and every call and payment at an analytics collector.

pip install 'otel-analytics[collector]' opentelemetry-exporter-otlp-proto-http
otel-analytics collector                  # in another terminal: http://localhost:4380
python otlp_and_analytics.py
"""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from otel_analytics import AnalyticsSpanProcessor, count_unsampled, identify, track

provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.1)))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # a tenth of the traces
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # after which every call counts, and OTLP gets what it got before
trace.set_tracer_provider(provider)

REQUEST: dict[str, str | int] = {
    "http.request.method": "POST",
    "http.route": "/orders",
    "http.response.status_code": 201,
}

for number in range(20):
    with trace.get_tracer("shop").start_as_current_span(
        "POST /orders", kind=trace.SpanKind.SERVER, attributes=REQUEST
    ):
        identify("user-7")
        track("payment_processed", target_id=f"order-{number}", amount=9.99)

provider.shutdown()
