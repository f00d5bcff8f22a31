from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import grpc
import shop


async def get(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    return b"item"


async def order(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    shop.charge()
    return b"paid"


async def boom(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    raise RuntimeError("boom")


async def missing(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "missing")
    return b""


async def stream(_: bytes, __: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for part in shop.async_parts():
        yield part


HANDLERS = {
    function.__name__.title(): grpc.unary_unary_rpc_method_handler(function)
    for function in (get, order, boom, missing)
}
HANDLERS["Stream"] = grpc.unary_stream_rpc_method_handler(stream)


async def main() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", HANDLERS),))
    server.add_insecure_port(f"{os.environ['HOST']}:{os.environ['PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
