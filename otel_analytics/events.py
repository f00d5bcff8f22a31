"""The two events of the wire contract and their bodies, field for field in the contract's order.

Everything that sends anything makes one of these first: spans, log records and direct calls meet here.
An absent optional value leaves its key out of the body; there is no ``null``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import quote

from otel_analytics.encoding import encode_json, field_text, readable_items
from otel_analytics.errors import EventError


class Kind(str, Enum):
    """The two kinds of event; each has its own lane in the queue and its own URL."""

    VIEW = "view"
    ENGAGEMENT = "engagement"


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
        target_id_attribute: The event attribute that names the target, e.g. ``"order.id"``; read after
            `target.id`.

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
        body: dict[str, Any] = {
            "contentId": field_text(self.content_id),
            "contentType": field_text(self.content_type),
            "userId": field_text(self.user_id),
            "sessionId": field_text(self.session_id),
            "duration": _milliseconds(self.duration),
            "ipAddress": field_text(self.ip_address),
            "deviceType": field_text(self.device_type),
            "app": field_text(self.app),
        }
        for key in ("userId", "ipAddress"):
            if not body[key]:
                del body[key]
        if body["duration"] is None:
            del body["duration"]
        if view_metadata:
            body["metadata"] = _with_id(self)
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
        return {
            "userId": field_text(self.user_id),
            "metricType": field_text(self.metric_type),
            "targetId": field_text(self.target_id),
            "targetType": field_text(self.target_type),
            "metadata": _with_id(self),
        }


Event = ViewEvent | EngagementEvent


class EncodedEvent(NamedTuple):
    """An event as it waits and travels: encoded once, so a batch is a join and a retry the same bytes."""

    kind: Kind
    event_id: str
    body: bytes


def encode(event: Event, *, view_metadata: bool = True) -> EncodedEvent:
    """Encode an event; whatever its other values are, this gives a body (see `encoding`).

    Raises:
        EventError: A field that the contract requires is missing, or has no text.
    """
    body = event.body(view_metadata=view_metadata) if isinstance(event, ViewEvent) else event.body()
    for key, value in body.items():
        if value == "":
            raise EventError(f"{key} is missing")
    return EncodedEvent(event.kind, _header_text(event.event_id), encode_json(body))


def decode(encoded: EncodedEvent) -> Event:
    """Return the event a body was made of, as the hooks see it.

    Raises:
        EventError: The body is not this package's.
    """
    try:
        body = json.loads(encoded.body)
        metadata = dict(body.get("metadata", {}))
        timestamp = str(metadata.pop("timestamp", ""))
        metadata.pop("eventId", None)
        values = {python: body[wire] for wire, python in _FIELDS[encoded.kind].items() if wire in body}
        event: Event = _CLASSES[encoded.kind](encoded.event_id, timestamp, metadata=metadata, **values)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise EventError(f"not an event's body: {type(error).__name__}") from None
    return event


_CLASSES: Mapping[Kind, type[Any]] = {Kind.VIEW: ViewEvent, Kind.ENGAGEMENT: EngagementEvent}

_FIELDS: Mapping[Kind, Mapping[str, str]] = {
    Kind.VIEW: {
        "contentId": "content_id",
        "contentType": "content_type",
        "userId": "user_id",
        "sessionId": "session_id",
        "duration": "duration",
        "ipAddress": "ip_address",
        "deviceType": "device_type",
        "app": "app",
    },
    Kind.ENGAGEMENT: {
        "userId": "user_id",
        "metricType": "metric_type",
        "targetId": "target_id",
        "targetType": "target_type",
    },
}


def _header_text(event_id: str) -> str:
    """Percent-encode an id that no header can carry (RFC 9110, section 5.5): it is the idempotency key."""
    if event_id.isascii() and event_id.isprintable():
        return event_id
    return quote(event_id, errors="surrogatepass")


def _milliseconds(value: Any) -> float | None:
    """Return a duration as ECMAScript writes it, a whole one without a fraction; `None` where it is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if not 0 <= value <= sys.float_info.max:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _with_id(event: Event) -> dict[str, Any]:
    """Return the metadata on the wire; what can be read of it, where it is somebody's own."""
    metadata = event.metadata
    if type(metadata) is not dict:
        metadata = readable_items(metadata)
    return {**metadata, "eventId": event.event_id, "timestamp": event.timestamp}
