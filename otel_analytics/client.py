"""`AnalyticsClient`: what everything goes through, whether a span, a log record or a direct call made it.

The four ``track_*`` methods are those of the contract's own client, in snake_case. They are fire and forget:
microseconds on the caller's thread, no network, no exception.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from otel_analytics import process
from otel_analytics.config import Config
from otel_analytics.contract import rfc3339
from otel_analytics.delivery.delivery import Delivery, Upstream, tls_files, with_usable_spool
from otel_analytics.delivery.http.transport import prepare_tls
from otel_analytics.delivery.life import Life, Stage
from otel_analytics.delivery.logs import log_safely, logger
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.sender import Surroundings
from otel_analytics.encoding import field_text, readable_items
from otel_analytics.errors import ConfigError, EventError
from otel_analytics.events import (
    BUILT_IN_BUSINESS_EVENTS,
    OBJECTS,
    BusinessEvent,
    EncodedEvent,
    Event,
    encode,
    encoded_form,
)
from otel_analytics.mapping.ids import anonymous_id
from otel_analytics.options import Options

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_API_CALL_CONTENT_TYPE = "post"
_DEVICE_TYPE = "desktop"


class AnalyticsClient:
    """Sends view and engagement events to an analytics collector.

    Safe to use from any thread. Nothing is started before the first event; after a fork the child begins
    anew, and the parent delivers its own events. At exit, what is left is sent within
    ``shutdown_timeout_millis``.

    Args:
        endpoint: Base URL of the collector.
        config: Checked options, instead of single ones.
        **options: Any option of `Config` by name.

    Raises:
        ConfigError: An option, or its environment variable, has a value it cannot have.
    """

    def __init__(
        self, endpoint: str | None = None, *, config: Config | None = None, **options: Unpack[Options]
    ) -> None:
        if config is not None and (endpoint is not None or options):
            given = ", ".join([*(["endpoint"] if endpoint is not None else []), *options])
            raise ConfigError(f"config: give either a config or options; the config has its own for {given}")
        in_code = config is not None or options.get("spool_path") is not None
        self.config = with_usable_spool(
            config or Config.resolve(endpoint=endpoint, **options), in_code=in_code
        )
        prepare_tls(self.config.endpoint, tls_files(self.config))
        _warn_of_insecure_key(self.config)
        self._app = self.config.app_name or _service_name()
        # A hook gets objects; without one, nothing but what is sent is ever made.
        hooked = self.config.before_send is not None
        self.form = OBJECTS if hooked else encoded_form(view_metadata=self.config.view_metadata)
        self._business_events = {**BUILT_IN_BUSINESS_EVENTS, **self.config.business_events}
        self._surroundings: Surroundings | None = None  # the tests' clock and dice
        self._upstream: weakref.WeakSet[Upstream] = weakref.WeakSet()
        self._deliveries: dict[int, Delivery] = {}
        if self.config.debug:
            logger.setLevel("DEBUG")

    def track_view(
        self,
        content_id: str,
        content_type: str,
        session_id: str | None = None,
        device_type: str = _DEVICE_TYPE,
        user_id: str | None = None,
        duration: float | None = None,
        ip_address: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Track that somebody viewed something.

        Args:
            content_id: What was viewed.
            content_type: Its type.
            session_id: The visit; one is made up where there is none.
            device_type: ``"desktop"`` unless known better.
            user_id: Who viewed it.
            duration: Milliseconds.
            ip_address: The client's address.
            metadata: More about it; any values.
        """

        def view(event_id: str, nanos: int) -> Event | EncodedEvent:
            return self.form.view(
                event_id,
                rfc3339(nanos),
                _required(content_id),
                _required(content_type),
                field_text(session_id) or _session_id(event_id, nanos),
                _required(device_type),
                self._app,
                field_text(user_id) or None,
                duration,
                field_text(ip_address) or None,
                metadata={**readable_items(metadata), **_trace_ids()},
            )

        self._track(view)

    def track_engagement(
        self,
        user_id: str | None,
        metric_type: str,
        target_id: str,
        target_type: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Track that somebody did something.

        Args:
            user_id: Who; `None` is nobody, see ``anonymous_user_id``.
            metric_type: What it counts as, e.g. ``"purchase"``.
            target_id: What it was done to.
            target_type: The target's type.
            metadata: More about it; any values.
        """

        def engagement(event_id: str, nanos: int) -> Event | EncodedEvent | None:
            user = field_text(user_id) or self._anonymous(event_id)
            if not user:
                self._delivery().refuse(DropReason.ANONYMOUS)
                return None
            return self.form.engagement(
                event_id,
                rfc3339(nanos),
                user,
                _required(metric_type),
                _required(target_id),
                _required(target_type),
                metadata={**readable_items(metadata), **_trace_ids()},
            )

        self._track(engagement)

    def track_api_call(
        self,
        endpoint: str,
        method: str,
        status_code: int,
        user_id: str | None = None,
        duration: float | None = None,
        ip_address: str | None = None,
    ) -> None:
        """Track an API call: a view of ``METHOD:endpoint``.

        Args:
            endpoint: The route, e.g. ``/orders/{id}``; sent as it is, so leave query strings out.
            method: The HTTP method.
            status_code: The response's status, kept in the view's metadata.
            user_id: Who called.
            duration: Milliseconds.
            ip_address: The caller's address.
        """
        self.track_view(
            _joined(method, endpoint),
            _API_CALL_CONTENT_TYPE,
            user_id=user_id,
            duration=duration,
            ip_address=ip_address,
            metadata={"statusCode": status_code, "method": method, "route": endpoint},
        )

    def track_business_event(
        self,
        user_id: str | None,
        event_type: str,
        target_id: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Track a business event: one of the contract's five, or one of the option ``business_events``.

        Args:
            user_id: Who; `None` is nobody, see ``anonymous_user_id``.
            event_type: The event's name, e.g. ``"payment_processed"``. An unknown one is dropped, counted
                and named in the log.
            target_id: What it was done to.
            metadata: More about it; any values.
        """
        business_event = self._business_event(event_type)
        if business_event is None:
            for field, given in (("user_id", user_id), ("target_id", target_id)):
                if self._business_event(field_text(given)) is not None:
                    self.note("swapped_arguments", 1, _SWAPPED % (field, field_text(given)))
            self._invalid("its event_type is not among business_events")
            return
        self._track_known(business_event, user_id, event_type, target_id, metadata)

    def submit(self, events: Sequence[Event | EncodedEvent], *, patience_millis: float = 0) -> None:
        """Send events made elsewhere, as the adapters do.

        Args:
            events: `ViewEvent` and `EngagementEvent` objects, or what `form` makes.
            patience_millis: Longest wait, milliseconds, where the queue is full and the collector is busy
                taking it; 0 never waits.
        """
        approved = (event if isinstance(event, EncodedEvent) else self._approved(event) for event in events)
        encoded = [event for event in approved if event is not None]
        self._delivery().accept(encoded, patience_millis / 1000)

    @property
    def is_closed(self) -> bool:
        """Whether it was shut down, in this process or in one that it was forked from."""
        return self._delivery().is_closed

    @property
    def upstream(self) -> Sequence[Upstream]:
        """What holds events back for this client, for a while."""
        return tuple(self._upstream)

    def add_upstream(self, upstream: Upstream) -> None:
        """Have events released from now on, before a flush and an end, that wait before they come here.

        Args:
            upstream: What holds them; held weakly.
        """
        self._upstream.add(upstream)

    def flush(self, timeout_millis: float = 30_000) -> bool:
        """Wait until every event tracked before this call is delivered or dropped.

        Args:
            timeout_millis: Longest wait, milliseconds.

        Returns:
            Whether that happened in time. An AWS Lambda handler calls this before it returns.
        """
        return self._delivery().flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float | None = None) -> bool:
        """Send what is left, drop and name the rest, and close; later events are dropped and counted.

        Args:
            timeout_millis: Longest wait, milliseconds; the option ``shutdown_timeout_millis`` by default.

        Returns:
            Whether nothing was lost.
        """
        timeout = self.config.shutdown_timeout_millis if timeout_millis is None else timeout_millis
        return self._delivery().shutdown(timeout / 1000)

    def has_room(self, count: int = 1) -> bool:
        """Return whether so many more events would displace none; false after a shutdown."""
        return self._delivery().has_room(count)

    def mark(self) -> Any:
        """Return a mark of every event accepted so far, for `is_settled`."""
        return self._delivery().mark()

    def is_settled(self, mark: Any) -> bool:
        """Return whether every event up to a mark is delivered, or was dropped with a reason."""
        return self._delivery().is_settled(mark)

    def stats(self) -> LedgerSnapshot:
        """Return how many events this process has accepted, delivered, dropped by reason, and holds."""
        return self._delivery().snapshot()

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count events that an adapter knew of and could not or should not make.

        Args:
            reason: A value of `DropReason`.
            count: How many.
        """
        self._delivery().refuse(DropReason(reason), count)

    def note(self, what: str, count: int, text: str) -> None:
        """Count something an adapter saw in ``stats().noted``, and log it, at most a line a minute for each.

        Args:
            what: Its name.
            count: How often.
            text: A sentence with the remedy.
        """
        self._delivery().note(what, count, text)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down within ``shutdown_timeout_millis``."""
        self.shutdown()

    def __repr__(self) -> str:
        """Show the collector, never the key."""
        return f"{type(self).__name__}(endpoint={self.config.endpoint!r})"

    def _track_known(
        self,
        business_event: BusinessEvent,
        user_id: str | None,
        event_type: str,
        target_id: str,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.track_engagement(
            user_id,
            business_event.metric_type,
            target_id,
            business_event.target_type,
            {**readable_items(metadata), "businessEventType": event_type},
        )

    def _anonymous(self, event_id: str) -> str:
        if self.config.anonymous_user_id is not None:
            return self.config.anonymous_user_id
        return anonymous_id("", _trace_ids().get("traceId") or event_id.replace("-", ""))

    def _business_event(self, name: str) -> BusinessEvent | None:
        try:
            return self._business_events.get(name)
        except Exception:  # noqa: BLE001 - what cannot be hashed is the name of nothing
            return None

    def _track(self, build: Callable[[str, int], Event | EncodedEvent | None]) -> None:
        try:
            event = build(_random_uuid(), time.time_ns())
        except Exception as error:  # noqa: BLE001 - nothing raises into the application
            self._invalid(type(error).__name__ if not isinstance(error, EventError) else str(error))
            return
        if event is not None:
            self.submit((event,))

    def _approved(self, event: Event) -> EncodedEvent | None:
        """Return an event as it waits and travels; `None` where it is not to be sent, which is counted."""
        approved = self._delivery().approve(event)
        if approved is not None:
            return self._encoded(approved)
        refused = self._encoded(event)
        if refused is not None:
            self._delivery().drop(DropReason.BEFORE_SEND, (refused,))
        return None

    def _encoded(self, event: Event) -> EncodedEvent | None:
        try:
            return encode(event, view_metadata=self.config.view_metadata)
        except Exception as error:  # noqa: BLE001 - an event made by hand may hold anything
            self._invalid(type(error).__name__)
            return None

    def _invalid(self, why: str) -> None:
        self._delivery().refuse(DropReason.INVALID)
        if logger.isEnabledFor(logging.DEBUG):
            log_safely(logging.DEBUG, "invalid event: %s", why)

    def _delivery(self) -> Delivery:
        """Return this process's delivery; the pid tells, since a fork need not run any hook (uWSGI)."""
        try:
            return self._deliveries[os.getpid()]
        except KeyError:
            return self._begin(os.getpid())

    def _begin(self, pid: int) -> Delivery:
        """Make this process's delivery, noticed at its exit and forks, and ended when the client is gone."""
        inherited = {other: delivery for other, delivery in self._deliveries.items() if other != pid}
        is_closed = any(delivery.is_closed for delivery in inherited.values())
        life = Life(Stage.CLOSED if is_closed else Stage.OPEN)
        # `setdefault` is atomic: of two threads that come first together, both get the same one.
        made = Delivery(self.config, self._surroundings, life, self._upstream)
        delivery = self._deliveries.setdefault(pid, made)
        process.register(delivery)
        weakref.finalize(self, delivery.abandon).atexit = False
        for other in inherited:
            self._deliveries.pop(other, None)
        return delivery


_SWAPPED = (
    "track_business_event: %s=%r is the name of a business event and event_type is not: the arguments are"
    " swapped, give them by name"
)


def _warn_of_insecure_key(config: Config) -> None:
    """Say where everybody on the way could read the key: plain HTTP that leaves this machine."""
    if config.insecure_key or not (config.write_key or config.headers):
        return
    url = urlsplit(config.endpoint)
    if url.scheme.lower() == "http" and not _is_loopback(url.hostname or ""):
        text = "key, headers go to %s over plain HTTP, readable by anybody: use https or set insecure_key"
        log_safely(logging.WARNING, text, url.netloc)


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


def _service_name() -> str:
    """Return `service.name` of OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES, as the SDK reads them."""
    return str(OTELResourceDetector().detect().attributes.get(SERVICE_NAME) or "unknown_service")


def _random_uuid() -> str:
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _session_id(event_id: str, nanos: int) -> str:
    return f"backend-{nanos // 1_000_000}-{event_id[-12:]}"


def _joined(method: str, endpoint: str) -> str:
    """Return ``METHOD:endpoint``; empty, which makes no event, where one of them cannot be said."""
    try:
        return f"{method}:{endpoint}"
    except Exception:  # noqa: BLE001 - a `__str__` or `__format__` of somebody's own
        return ""


def _trace_ids() -> dict[str, str]:
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"traceId": format_trace_id(context.trace_id), "spanId": format_span_id(context.span_id)}


def _required(value: Any) -> str:
    text = field_text(value)
    if not text:
        raise EventError("a required field is missing")
    return text
