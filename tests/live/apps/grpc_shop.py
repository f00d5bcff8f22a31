from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
import shop


def get(_: bytes, __: grpc.ServicerContext) -> bytes:
    return b"item"


def order(_: bytes, __: grpc.ServicerContext) -> bytes:
    shop.charge()
    return b"paid"


def boom(_: bytes, __: grpc.ServicerContext) -> bytes:
    raise RuntimeError("boom")


def missing(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.NOT_FOUND, "missing")
    return b""


HANDLERS = {
    function.__name__.title(): grpc.unary_unary_rpc_method_handler(function)
    for function in (get, order, boom, missing)
}
HANDLERS["Stream"] = grpc.unary_stream_rpc_method_handler(lambda *_: shop.parts())

if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", HANDLERS),))
    server.add_insecure_port(f"{os.environ['HOST']}:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()
