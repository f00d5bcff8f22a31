"""Code of others that runs inside ours: logging handlers, values' own methods, signal handlers."""

from __future__ import annotations

import faulthandler
import itertools
import logging
import pkgutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from driving import calls, eventually, track
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from spooling import balanced, files_of, spooled

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter, EngagementEvent, ViewEvent
from otel_analytics.testing import Answer, FaultyCollector, Unavailable

Client = Callable[..., AnalyticsClient]
LOGGER = logging.getLogger("otel_analytics")


class Handler(logging.Handler):
    """A logging handler that does something of its own, under the lock all handlers have."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self.action = action
        self.lines: list[str] = []
        self._acts = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if not self._acts:  # what the action logs is not answered by an action again
            self._acts = True
            try:
                self.action()
            finally:
                self._acts = False


@contextmanager
def handling(action: Callable[[], object]) -> Iterator[Handler]:
    handler = Handler(action)
    LOGGER.addHandler(handler)
    try:
        yield handler
    finally:
        LOGGER.removeHandler(handler)


def raising() -> None:
    raise RuntimeError("a handler of somebody's own")


def exiting() -> None:
    raise SystemExit(3)


@pytest.fixture(params=[False, True], ids=["memory", "spool"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "spool" if request.param else None


# before_send and the disk --------------------------------------------------------------------------------


def anonymous(event: ViewEvent | EngagementEvent) -> ViewEvent | EngagementEvent:
    return replace(event, user_id="nobody")


def test_what_before_send_takes_out_never_reaches_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with FaultyCollector(then=Unavailable()) as collector:
        client = spooled(collector.url, path, before_send=anonymous)
        client.track_api_call("/", "GET", 200, user_id="alice-secret")
        client.track_engagement("bob-secret", "like", "t", "content")
        client.shutdown(0)
    assert b"secret" not in b"".join(file.read_bytes() for file in path.iterdir())
    with FaultyCollector() as collector, spooled(collector.url, path) as client:
        client.track_api_call("/later", "GET", 200)
        assert client.flush(5_000)
        assert eventually(lambda: len(collector.bodies()) == 3)
        assert {body.get("userId") for body in collector.bodies()} == {"nobody", None}


def test_before_send_is_asked_once_whatever_the_number_of_attempts(quick_client: Client) -> None:
    asked: list[str] = []

    def remember(event: ViewEvent | EngagementEvent) -> ViewEvent | EngagementEvent:
        asked.append(event.event_id)
        return event

    with FaultyCollector(Unavailable(), Unavailable(), Answer(500)) as collector:
        client = quick_client(collector.url, before_send=remember)
        track(client, 5)
        assert client.flush(5_000)
    assert len(asked) == len(set(asked)) == 5


# Logging -------------------------------------------------------------------------------------------------


def test_a_handler_that_tracks_deadlocks_nobody(path: Path | None) -> None:
    """Handlers run under a lock of their own; an event tracked there meets the locks of ours, and back."""
    with FaultyCollector() as collector:
        client = spooled(collector.url, path, max_queue_size=50, max_spool_bytes=100_000)
        clock = _Minutes()
        client._delivery()._log._clock = clock
        with handling(lambda: track(client, 1, "logged")):
            collector.stop_listening()
            trackers = [threading.Thread(target=track, args=(client, 300), daemon=True) for _ in range(4)]
            for thread in trackers:
                thread.start()
            if path is not None:
                for file in files_of(path) * 5:
                    with closing(sqlite3.connect(file, timeout=5)) as connection:
                        connection.execute("BEGIN IMMEDIATE")
            for thread in trackers:
                thread.join(30)
            faulthandler.dump_traceback_later(60, exit=True)
            assert not any(thread.is_alive() for thread in trackers)
            balanced(client.stats())
            client.shutdown(500)
            faulthandler.cancel_dump_traceback_later()
    assert balanced(client.stats()).pending == 0 or path is not None


class _Minutes:
    """A clock on which every look is a minute later: each line is due."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 61.0
        return self._now


@pytest.mark.parametrize("action", [raising, exiting])
def test_a_handler_that_raises_stops_nothing(action: Callable[[], None], path: Path | None) -> None:
    with FaultyCollector(Unavailable(), Answer(401)) as collector, handling(action) as handler:
        client = spooled(collector.url, path, debug=True, max_queue_size=10)
        client.track_business_event("u", "unheard_of", "t")
        expected = track(client, 3)
        assert client.flush(5_000)
        assert calls(collector) == expected
        assert client.shutdown()
        track(client, 1)
        LOGGER.setLevel(logging.NOTSET)
    assert handler.lines
    assert balanced(client.stats()).delivered == 3


def test_a_filter_that_raises_stops_nothing(quick_client: Client) -> None:
    def strict(_: logging.LogRecord) -> bool:
        raise ValueError("a filter of somebody's own")

    LOGGER.addFilter(strict)
    try:
        with FaultyCollector(Unavailable()) as collector:
            client = quick_client(collector.url)
            expected = track(client, 3)
            assert client.flush(5_000)
            assert calls(collector) == expected
    finally:
        LOGGER.removeFilter(strict)


@pytest.mark.parametrize("batching", ["off", "on"])
@pytest.mark.parametrize(
    "place",
    [
        "sender.build_request",
        "sender.interpret",
        "http.transport.Transport._head",
        "http.transport.Transport._turn",
        "http.connection.Connection._event",
    ],
)
def test_a_fault_of_ours_while_sending_loses_nothing(
    place: str, batching: str, monkeypatch: pytest.MonkeyPatch, quick_client: Client
) -> None:
    """Neither its request's events nor those of the others in flight: all are sent again."""
    faults = itertools.count()
    real = pkgutil.resolve_name(f"otel_analytics.delivery.{place}")

    def faulty(*args: Any, **options: Any) -> Any:
        if next(faults) in {3, 4}:
            raise ZeroDivisionError
        return real(*args, **options)

    monkeypatch.setattr(f"otel_analytics.delivery.{place}", faulty)
    with FaultyCollector() as collector:
        client = quick_client(collector.url, batching=batching)
        for _ in range(5):
            track(client, 20)
            assert client.flush(10_000)
        assert balanced(client.stats()).delivered == 100
        assert len(set(collector.event_ids())) == 100
    assert next(faults) > 4


def test_a_dead_sending_thread_is_replaced_while_events_wait(
    quick_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[object] = []
    monkeypatch.setattr(threading, "excepthook", deaths.append)
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        sender = client._delivery()._sender
        real = sender._work

        def die(*_: object) -> None:
            monkeypatch.setattr(sender, "_work", real)
            raise KeyboardInterrupt  # what nothing of ours may swallow

        monkeypatch.setattr(sender, "_work", die)
        expected = track(client, 1)
        assert eventually(lambda: bool(deaths))
        expected |= track(client, 1)
        assert client.flush(5_000)
        assert calls(collector) == expected


# Values --------------------------------------------------------------------------------------------------


class Strange:
    """A value none of whose methods works."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __format__ = __eq__ = __bool__ = __hash__ = __float__ = __str__  # type: ignore[assignment]


class StrangeMapping(Mapping[str, Any]):
    """A mapping none of whose methods works."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


STRANGE = [
    None,
    "",
    3,
    float("nan"),
    Decimal("NaN"),
    [1],
    {1: 2},
    b"\xff",
    Strange(),
    StrangeMapping(),
    object(),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("method", "names"),
    [
        (
            "track_view",
            "content_id content_type session_id device_type user_id duration ip_address metadata",
        ),
        ("track_engagement", "user_id metric_type target_id target_type metadata"),
        ("track_api_call", "endpoint method status_code user_id duration ip_address"),
        ("track_business_event", "user_id event_type target_id metadata"),
    ],
)
def test_no_argument_raises_and_every_event_is_accounted_for(
    method: str, names: str, value: Any, quick_client: Client
) -> None:
    usual = dict.fromkeys(names.split(), "text") | {"duration": 1.0, "status_code": 200, "metadata": {}}
    if "event_type" in usual:
        usual["event_type"] = "payment_processed"
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        for name in names.split():
            arguments = {key: usual[key] for key in names.split()} | {name: value}
            getattr(client, method)(**arguments)
        assert client.flush(5_000)
        stats = balanced(client.stats())
        assert stats.accepted == len(names.split())
        assert stats.delivered + stats.dropped.get("invalid", 0) == stats.accepted
        assert all(None not in body.values() for body in collector.bodies())


@pytest.mark.parametrize("field", ["user_id", "session_id", "duration", "ip_address", "metadata"])
@pytest.mark.parametrize("value", [Strange(), [1], ""], ids=["strange", "list", "empty"])
def test_an_event_is_kept_where_one_optional_field_is_bad(
    field: str, value: Any, quick_client: Client
) -> None:
    with FaultyCollector() as collector:
        client = quick_client(collector.url)
        client.track_view("page", "article", **{field: value})
        assert client.flush(5_000)
        (view,) = collector.bodies("view")
        assert view["contentId"] == "page"
        assert view["sessionId"]


def test_a_span_that_cannot_be_read_takes_no_other_along() -> None:
    with FaultyCollector() as collector:
        exporter = AnalyticsSpanExporter(collector.url, app_name="shop")
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("t")
        for attribute in ("http.route", "user.id", "client.address", "session.id"):
            span = tracer.start_span("GET", kind=SpanKind.SERVER, attributes={"http.method": "GET"})
            span._attributes._dict[attribute] = Strange()  # type: ignore[attr-defined]
            span.end()
        with tracer.start_as_current_span("GET /", kind=SpanKind.SERVER, attributes={"http.method": "GET"}):
            pass
        assert exporter.force_flush(5_000)
        stats = balanced(exporter.client.stats())
        assert stats.accepted == 5
        assert stats.delivered >= 1
        exporter.shutdown()


# Interrupts ----------------------------------------------------------------------------------------------


class _InterruptError(BaseException):
    """What a soft time limit or an impatient notebook raises, wherever the program happens to be."""


def test_an_exception_from_a_signal_handler_leaves_a_client_that_works(path: Path | None) -> None:
    rounds, interrupted = 75, 0

    def interrupt(_: int, __: FrameType | None) -> None:
        raise _InterruptError

    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        with FaultyCollector() as collector:
            for number in range(rounds):
                client = spooled(collector.url, path)
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0003 + 0.00002 * number)
                    for _ in range(10_000):  # what is raised in a finalizer is lost
                        client.track_api_call("/interrupted", "GET", 200)
                except _InterruptError:
                    interrupted += 1
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                (last,) = track(client, 1, "after")
                assert client.flush(10_000), number
                assert last in calls(collector)
                assert client.shutdown()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert interrupted > rounds / 2
