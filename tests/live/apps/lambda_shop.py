"""Functions of AWS Lambda: HTTP by Mangum, and a queue's messages."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import shop
from mangum import Mangum

http = Mangum(import_module(os.environ["SHOP"]).app, lifespan="off")


def handler(event: dict[str, Any], context: Any) -> Any:
    """Serve a request, or work through a batch of messages."""
    if "Records" not in event:
        return http(event, context)
    for _ in event["Records"]:
        shop.charge()
    return None
