"""The two events of the wire contract and their bodies, field for field in the contract's order.

Everything that sends anything makes one of these first: spans, log records and direct calls meet here.
An absent optional value leaves its key out of the body; there is no ``null``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from otel_analytics.contract import (
    BODIES,
    EVENT_ID,
    OWN_METADATA,
    TIMESTAMP,
    CallView,
    Kind,
    call_view_json,
    engagement_json,
    identity_json,
    milliseconds,
    view_json,
)
from otel_analytics.encoding import MAX_BODY_BYTES, encode_json, field_text, plain_json, readable_items
from otel_analytics.errors import FOREIGN_ERRORS, EventError

_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


class MetricType(str, Enum):
    """Metric types of the contract's business events; a collector may know others, so any text is fine."""

    COMMENT = "comment"
    SUBSCRIBE = "subscribe"
    PURCHASE = "purchase"


@dataclass(frozen=True)
class BusinessEvent:
    """How a named span event becomes an engagement.

    Args:
        metric_type: The engagement's `metricType`.
        target_type: Its `targetType` where the event itself has no `target.type`.
        target_id_attribute: The attribute that names the target, e.g. ``"invoice.id"``, also written
            ``invoice_id``, ``app.invoice.id`` or ``app.invoice_id``; read after `target.id`, on the event and
            then on its span. After it comes what events of the metric type are usually about: a purchase an
            order, a payment or a transaction, a comment a message or a thread, a subscription a stream.

    Raises:
        ValueError: A field is empty or no string.
    """

    metric_type: str
    target_type: str = "content"
    target_id_attribute: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would only show at the collector."""
        for text in (self.metric_type, self.target_type, self.target_id_attribute or "-"):
            if not isinstance(text, str) or not text:
                raise ValueError(
                    "must have non-empty strings for metric_type, target_type, target_id_attribute"
                )


BUILT_IN_BUSINESS_EVENTS: Mapping[str, BusinessEvent] = {
    "message_sent": BusinessEvent(MetricType.COMMENT.value),
    "message_received": BusinessEvent(MetricType.COMMENT.value),
    "stream_started": BusinessEvent(MetricType.SUBSCRIBE.value),
    "stream_ended": BusinessEvent(MetricType.SUBSCRIBE.value),
    "payment_processed": BusinessEvent(MetricType.PURCHASE.value),
}
"""The contract's own table, event name to metric type."""


@dataclass(frozen=True, slots=True)
class ViewEvent:
    """Somebody saw something; an API call is a view of ``METHOD:endpoint``.

    Args:
        event_id: The same for the same occurrence, however often it is sent; the idempotency key.
        timestamp: When it happened, RFC 3339 in UTC.
        content_id: What was viewed.
        content_type: Its type; ``"post"`` for an API call.
        session_id: The visit it belongs to.
        device_type: ``"desktop"`` for a backend.
        app: The application that reports it.
        user_id: Who viewed it, where known.
        duration: Milliseconds, where known; finite and not negative.
        ip_address: The client's address, where known.
        metadata: More about it; `eventId` and `timestamp` are added on the wire.
    """

    event_id: str
    timestamp: str
    content_id: str
    content_type: str
    session_id: str
    device_type: str
    app: str
    user_id: str | None = None
    duration: float | None = None
    ip_address: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """`Kind.VIEW`."""
        return Kind.VIEW

    def body(self, *, view_metadata: bool = True) -> dict[str, Any]:
        """Return the JSON object of ``POST /analytics/track/view``.

        Args:
            view_metadata: Whether to add `metadata`, which the base contract's views do not have.
        """
        body = _body(self)
        if not view_metadata:
            del body["metadata"]
        return body


@dataclass(frozen=True, slots=True)
class EngagementEvent:
    """Somebody did something: paid, wrote, subscribed.

    Args:
        event_id: The same for the same occurrence, however often it is sent; the idempotency key.
        timestamp: When it happened, RFC 3339 in UTC.
        user_id: Who did it.
        metric_type: What it counts as, e.g. ``"purchase"``.
        target_id: What it was done to.
        target_type: The target's type, ``"content"`` unless said otherwise.
        metadata: More about it; `eventId` and `timestamp` are added on the wire.
    """

    event_id: str
    timestamp: str
    user_id: str
    metric_type: str
    target_id: str
    target_type: str = "content"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """`Kind.ENGAGEMENT`."""
        return Kind.ENGAGEMENT

    def body(self) -> dict[str, Any]:
        """Return the JSON object of ``POST /analytics/track/engagement``."""
        return _body(self)


Event = ViewEvent | EngagementEvent


class EncodedEvent(NamedTuple):
    """An event as it waits and travels: encoded once, so a batch is a join and a retry the same bytes."""

    kind: Kind
    event_id: str
    body: bytes


def encode(event: Event, *, view_metadata: bool = True) -> EncodedEvent:
    """Encode an event; whatever its other values are, this gives a body (see `encoding`).

    Args:
        event: A view or an engagement.
        view_metadata: Whether a view's body has `metadata`.

    Raises:
        EventError: A field that the contract requires is missing, or has no text.
    """
    values = (getattr(event, name) for name in event.__slots__)
    if isinstance(event, ViewEvent):
        return encode_view(*values, view_metadata=view_metadata)
    return encode_engagement(*values)


def encode_view(
    event_id: str,
    timestamp: str,
    content_id: str,
    content_type: str,
    session_id: str,
    device_type: str,
    app: str,
    user_id: str | None = None,
    duration: float | None = None,
    ip_address: str | None = None,
    metadata: Mapping[str, Any] = _NO_METADATA,
    *,
    view_metadata: bool = True,
) -> EncodedEvent:
    """Encode the view of these fields, as `encode` does, without making it an object first."""
    try:
        said = _metadata_json(event_id, timestamp, metadata) if view_metadata else None
        text = view_json(
            *(content_id, content_type, user_id, session_id, milliseconds(duration), ip_address),
            *(device_type, app, said),
        )
        if content_id and content_type and session_id and device_type and app:
            return _encoded(Kind.VIEW, event_id, text)
    except FOREIGN_ERRORS:  # a value that JSON has no form for, or somebody's own
        pass
    event = ViewEvent(
        *(event_id, timestamp, content_id, content_type, session_id, device_type, app),
        *(user_id, duration, ip_address, metadata),
    )
    return _encoded_with_care(event, event.body(view_metadata=view_metadata))


def encode_engagement(
    event_id: str,
    timestamp: str,
    user_id: str,
    metric_type: str,
    target_id: str,
    target_type: str = "content",
    metadata: Mapping[str, Any] = _NO_METADATA,
) -> EncodedEvent:
    """Encode the engagement of these fields, as `encode` does, without making it an object first."""
    try:
        said = _metadata_json(event_id, timestamp, metadata)
        text = engagement_json(user_id, metric_type, target_id, target_type, said)
        if user_id and metric_type and target_id and target_type:
            return _encoded(Kind.ENGAGEMENT, event_id, text)
    except FOREIGN_ERRORS:  # as above
        pass
    event = EngagementEvent(event_id, timestamp, user_id, metric_type, target_id, target_type, metadata)
    return _encoded_with_care(event, event.body())


def encode_call(
    call: CallView,
    event_id: str,
    timestamp: str,
    user_id: str,
    session_id: str,
    duration: float | None,
    ip_address: str | None,
    app: str,
    trace_id: str,
    span_id: str,
    sample_weight: float | None = None,
    *,
    view_metadata: bool = True,
) -> EncodedEvent:
    """Encode the view of an API call, as `encode` does; for its arguments see `contract.call_view_json`."""
    try:
        body = call_view_json(
            *(call, user_id, session_id, duration, ip_address, app, trace_id, span_id, sample_weight),
            f'"{EVENT_ID}":"{event_id}","{TIMESTAMP}":"{timestamp}"' if view_metadata else None,
        ).encode()
        if len(body) <= MAX_BODY_BYTES:
            return EncodedEvent(Kind.VIEW, event_id, body)
    except FOREIGN_ERRORS:  # a lone surrogate
        pass
    event = _call_event(
        *(call, event_id, timestamp, user_id, session_id, duration, ip_address, app),
        *(trace_id, span_id, sample_weight),
    )
    return _encoded_with_care(event, event.body(view_metadata=view_metadata))


def _call_event(
    call: CallView,
    event_id: str,
    timestamp: str,
    user_id: str,
    session_id: str,
    duration: float | None,
    ip_address: str | None,
    app: str,
    trace_id: str,
    span_id: str,
    sample_weight: float | None = None,
) -> ViewEvent:
    return ViewEvent(
        *(event_id, timestamp, call.content_id, call.content_type, session_id, call.device_type, app),
        *(user_id or None, duration, ip_address, call.metadata(trace_id, span_id, sample_weight)),
    )


class Form(NamedTuple):
    """What events are made as: `OBJECTS`, or `encoded_form`.

    Args:
        view: Takes all fields of `ViewEvent`, ``metadata`` by name.
        call: Takes the arguments of `encode_call`.
        engagement: Takes all fields of `EngagementEvent`, ``metadata`` by name.
    """

    view: Callable[..., Event | EncodedEvent]
    call: Callable[..., Event | EncodedEvent]
    engagement: Callable[..., Event | EncodedEvent]


OBJECTS = Form(ViewEvent, _call_event, EngagementEvent)
"""As objects, which hooks get."""


def encoded_form(*, view_metadata: bool) -> Form:
    """Return the form in which events are sent."""
    return Form(
        partial(encode_view, view_metadata=view_metadata),
        partial(encode_call, view_metadata=view_metadata),
        encode_engagement,
    )


def decode(encoded: EncodedEvent) -> Event:
    """Return the event a body was made of, as the hooks see it.

    Raises:
        EventError: The body is not this package's.
    """
    try:
        body = json.loads(encoded.body)
        metadata = dict(body.get("metadata", {}))
        timestamp = str(metadata.pop(TIMESTAMP, ""))
        metadata.pop(EVENT_ID, None)
        keys = BODIES[encoded.kind].items()
        values = {key.field: body[name] for name, key in keys if name in body and name != "metadata"}
        event: Event = _CLASSES[encoded.kind](encoded.event_id, timestamp, metadata=metadata, **values)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise EventError(f"not an event's body: {type(error).__name__}") from None
    return event


_CLASSES: Mapping[Kind, type[Any]] = {Kind.VIEW: ViewEvent, Kind.ENGAGEMENT: EngagementEvent}


def header_text(event_id: str) -> str:
    """Percent-encode an id that no header can carry (RFC 9110, section 5.5): it is the idempotency key."""
    if event_id.isascii() and event_id.isprintable():
        return event_id
    return quote(event_id, errors="surrogatepass")


def _encoded(kind: Kind, event_id: str, text: str) -> EncodedEvent:
    body = text.encode()
    if len(body) > MAX_BODY_BYTES:
        raise ValueError("the body is too large")
    return EncodedEvent(kind, header_text(event_id), body)


def _encoded_with_care(event: Event, body: Mapping[str, Any]) -> EncodedEvent:
    for name, value in body.items():
        if value == "":
            raise EventError(f"{name} is missing")
    return EncodedEvent(event.kind, header_text(event.event_id), encode_json(body))


def _metadata_json(event_id: str, timestamp: str, metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON text without braces; raises where it takes more care than that."""
    own = identity_json(event_id, timestamp)
    if type(metadata) is not dict:
        raise TypeError("no dict")
    if not metadata:
        return own
    if not OWN_METADATA.isdisjoint(metadata):
        raise ValueError("a key is there twice")
    return f"{plain_json(metadata)[1:-1]},{own}"


def _body(event: Event) -> dict[str, Any]:
    """Return an event's JSON object by the contract's table."""
    body: dict[str, Any] = {}
    for name, key in BODIES[event.kind].items():
        value = _VALUE_OF_TYPE[key.type](getattr(event, key.field))
        if key.required or not (value is None or value == ""):
            body[name] = value
    body["metadata"] = {**body.get("metadata", {}), EVENT_ID: event.event_id, TIMESTAMP: event.timestamp}
    return body


_VALUE_OF_TYPE: Mapping[type[Any], Callable[[Any], Any]] = {
    str: field_text,
    float: milliseconds,
    dict: readable_items,
}
