"""A gRPC service whose calls and payments arrive at an analytics collector.

pip install 'otel-analytics[collector]' grpcio opentelemetry-instrumentation-grpc
otel-analytics collector                  # in another terminal: http://localhost:4380
python grpc_server.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorServer
from opentelemetry.sdk.trace import TracerProvider

from otel_analytics import AnalyticsSpanProcessor, count_unsampled, flush_on_sigterm, identify

provider = TracerProvider()
provider.add_span_processor(AnalyticsSpanProcessor(app_name="shop"))
count_unsampled(provider)  # traces keep their sample, every call counts
trace.set_tracer_provider(provider)
flush_on_sigterm()  # a container's stop loses nothing

GrpcInstrumentorServer().instrument()  # before the server is made


def authenticate() -> None:
    """Say who calls, as the application's own authentication finds out."""
    identify("user-7")


def place_order(product: bytes, _: grpc.ServicerContext) -> bytes:
    """Buy a product: a view of ``RPC:shop.Orders/Place``, and a purchase."""
    authenticate()
    trace.get_current_span().add_event("payment_processed", {"target.id": product.decode(), "amount": 9.99})
    return b"paid"


# With generated code: add_OrdersServicer_to_server(Orders(), server).
place = grpc.unary_unary_rpc_method_handler(place_order)
service = grpc.method_handlers_generic_handler("shop.Orders", {"Place": place})

if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor())
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '50051')}")
    server.start()
    server.wait_for_termination()
