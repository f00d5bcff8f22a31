"""No framework at all: a WSGI application in the official middleware, without any route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import shop
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

STATUSES = {"items": "200 OK", "orders": "201 Created", "stream": "200 OK", "slow": "200 OK"}
STATUSES |= {"uni": "200 OK", "v2": "200 OK"}


def shop_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    place = environ["PATH_INFO"].split("/")[1]
    if place == "boom":
        raise RuntimeError("boom")
    if place == "orders" and environ["REQUEST_METHOD"] == "POST":
        shop.charge()
    start_response(STATUSES.get(place, "404 Not Found"), [("Content-Type", "text/plain")])
    return shop.parts({"stream": 3, "slow": shop.PARTS}.get(place, 1))


app = OpenTelemetryMiddleware(shop_app)
