"""A bridge's OTLP/gRPC, as https://opentelemetry.io/docs/specs/otlp/#otlpgrpc has it.

Messages stay bytes until the intake reads them. ``UNAVAILABLE`` asks to send again; ``RESOURCE_EXHAUSTED``,
which gRPC itself answers to a message that is too large, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio

from otel_analytics.bridge.http import success
from otel_analytics.bridge.intake import NoRoomError, Signal
from otel_analytics.bridge.otlp import Encoding, OtlpError
from otel_analytics.bridge.reception import Reception, UnknownSenderError
from otel_analytics.errors import AnalyticsError

_SERVICES: Final[Mapping[Signal, str]] = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
_CODES: Final[Mapping[type[AnalyticsError], grpc.StatusCode]] = {
    OtlpError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownSenderError: grpc.StatusCode.UNAUTHENTICATED,
    NoRoomError: grpc.StatusCode.UNAVAILABLE,
}


class GrpcServer:
    """Serves on the running loop.

    Args:
        reception: Takes what comes.
    """

    def __init__(self, reception: Reception) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", reception.limits.body_bytes),
                ("grpc.max_concurrent_streams", reception.limits.held),
                ("grpc.so_reuseport", 0),  # else a second bridge would take half of the first one's
            ]
        )
        self._reception = reception
        # Without functions that read and write messages these are bytes.
        handlers = {
            service: {"Export": grpc.unary_unary_rpc_method_handler(partial(self._export, signal))}
            for signal, service in _SERVICES.items()
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*handler) for handler in handlers.items()]
        )

    async def start(self, address: str) -> int:
        """Listen; return the port.

        Args:
            address: Host and port, 0 for a free one.

        Raises:
            OSError: The address cannot be listened on.
        """
        try:
            port = int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise OSError(None, str(error)) from None
        await self._server.start()
        return port

    async def stop(self, seconds: float) -> None:
        """Take no more; give what is being answered so long."""
        await self._server.stop(seconds)

    async def _export(self, signal: Signal, body: bytes, context: Any) -> bytes:
        try:
            self._reception.admit(_authorization(context))
            with self._reception.hold(len(body)):
                rejected = await self._reception.take(body, signal, Encoding.PROTO)
        except AnalyticsError as error:
            await context.abort(_CODES.get(type(error), grpc.StatusCode.INTERNAL), str(error))
        return success(signal, rejected, Encoding.PROTO)


def _authorization(context: Any) -> str:
    metadata = context.invocation_metadata() or ()
    return next((value for key, value in metadata if key == "authorization" and isinstance(value, str)), "")
