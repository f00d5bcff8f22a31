"""Run an application, drive traffic at it, and lay beside each request what arrived for it."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from applications import APPLICATIONS, GRPC, Application, others_disabled
from serving import HOST, ZERO_CODE, Served, environment, free_port, serving
from traffic import Ask, Seen, grpc_traffic, http_traffic, websocket_traffic

from otel_analytics.collector import DevCollector
from otel_analytics.mapping.endpoint import UNMATCHED

APPS = Path(__file__).parent / "apps"
PAYER = "user-77"
"""Whom the applications name on the span of the payment, below the request's."""
MODES = ("unset", "http", "http/dup")

_NO_SUCH_ROUTE = (404, 405)
_OTHER_METHODS: Mapping[str, str] = {"FOO": "_OTHER"}
_WAIT_SECONDS = 5
_SURPLUS_SECONDS = 0.3
_POLL_SECONDS = 0.02

View = Mapping[str, Any]


class Expected(NamedTuple):
    """What an analyst expects of a request's view."""

    content_id: str
    status: int | None
    address: str | None
    has_duration: bool
    user: str | None


class Observation(NamedTuple):
    """A request, and the views that arrived for it."""

    ask: Ask
    expected: Sequence[Expected]
    got: Sequence[Expected]


class Observed(NamedTuple):
    """All that one run gave."""

    requests: Sequence[Observation]
    views: Sequence[View]
    engagements: Sequence[View]

    def leaks(self) -> int:
        return json.dumps([*self.views, *self.engagements]).count("secret")


@contextmanager
def served(
    app: Application, mode: str, collector: DevCollector, folder: Path, host: str = HOST
) -> Iterator[Served]:
    """Serve an application under ``opentelemetry-instrument``, in one semantic-convention mode."""
    port = free_port(host)
    places = {
        "{host}": host,
        "{port}": str(port),
        "{bind}": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
    }
    instrument = ("opentelemetry-instrument",) if app.zero_code else ()
    command = [*instrument, *(places.get(word, word) for word in app.command)]
    env = {
        **ZERO_CODE,
        **app.env,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": others_disabled(app.instruments),
        "OTEL_SEMCONV_STABILITY_OPT_IN": "" if mode == "unset" else mode,
        "HOST": host,
        "PORT": str(port),
    }
    with serving(
        command, environment(collector.url, env), APPS, port=port, log=folder / "app.log", host=host
    ) as running:
        yield running


def observe(name: str, mode: str, folder: Path, *, host: str = HOST, **http: Any) -> Observed:
    """Return what one application gives in one mode.

    Args:
        name: A key of `APPLICATIONS` or `GRPC`.
        mode: One of `MODES`.
        folder: For the server's log.
        host: The address it listens on.
        **http: Options of the client, e.g. ``http2=True``.
    """
    app = {**APPLICATIONS, **GRPC}[name]
    with DevCollector() as collector, served(app, mode, collector, folder, host) as running:
        traffic = grpc_traffic(running.url) if name in GRPC else _traffic(app, running, host, http)
        seen = list(traffic)
        views = _views_by_trace(collector, {one.trace_id for one in seen if one.ask.name not in app.unseen})
        return Observed(
            [Observation(one.ask, expected(app, one, mode, host), views[one.trace_id]) for one in seen],
            collector.events("view"),
            collector.events("engagement"),
        )


def expected(app: Application, seen: Seen, mode: str, host: str) -> Sequence[Expected]:
    """Return the views that a request should give: one, or none where it leaves no span."""
    if seen.ask.name in app.unseen:
        return []
    method = _OTHER_METHODS.get(seen.ask.method, seen.ask.method)
    overrides = app.overrides.get(f"{seen.ask.name} {mode}") or app.overrides.get(seen.ask.name, {})
    known = {"endpoint": _endpoint(app, seen), "status": seen.status, **overrides}
    address = host if app.tells_address else None
    user = PAYER if seen.ask.name == "order" else None
    return [Expected(f"{method}:{known['endpoint']}", known["status"], address, method != "WS", user)]


def _endpoint(app: Application, seen: Seen) -> str:
    ask, status = seen.ask, seen.status
    if ask.method == "RPC":
        return ask.target.strip("/")
    if status in _NO_SUCH_ROUTE and ask.name not in app.routed:
        return UNMATCHED
    return app.routes[ask.route]


def _traffic(app: Application, running: Served, host: str, options: Mapping[str, Any]) -> Iterable[Seen]:
    url = f"http://[{host}]:{running.port}" if ":" in host else running.url
    yield from http_traffic(url, **options)
    if app.websockets:
        yield from websocket_traffic(url)


def _views_by_trace(collector: DevCollector, traces: set[str]) -> Mapping[str, Sequence[Expected]]:
    """Wait for a view of each trace that should have one, then as long as one too many might take."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not traces <= _by_trace(collector).keys() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    time.sleep(_SURPLUS_SECONDS)
    return _by_trace(collector)


def _by_trace(collector: DevCollector) -> defaultdict[str, list[Expected]]:
    views: defaultdict[str, list[Expected]] = defaultdict(list)
    for view in collector.events("view"):
        views[view["metadata"]["traceId"]].append(
            Expected(
                view["contentId"],
                view["metadata"].get("statusCode"),
                view.get("ipAddress"),
                "duration" in view,
                view.get("userId"),
            )
        )
    return views
