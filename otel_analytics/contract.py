"""The wire contract, said once for all who speak it: the exporter, the dev collector and the test collectors.

A request is a ``POST`` to one of `PATHS`. One event travels as one JSON object, several as an array of the
very same objects; keys, their order and their types are those of `BODIES`. An absent optional value leaves
its key out: there is no ``null``. A collector that takes arrays advertises it (`Advertisement`) and
acknowledges each array.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring as quote
from typing import Any, NamedTuple


class Kind(str, Enum):
    """The two kinds of event; each has its own lane in the queue and its own URL."""

    VIEW = "view"
    ENGAGEMENT = "engagement"


PATHS: Mapping[Kind, str] = {kind: f"/analytics/track/{kind.value}" for kind in Kind}

WRITE_KEY = "X-Write-Key"
IDEMPOTENCY_KEY = "Idempotency-Key"
SENT_AT = "X-Sent-At"
RETRY_COUNT = "X-Retry-Count"
ADVERTISEMENT = "X-Analytics-Batch"


def kind_of(path: str) -> Kind | None:
    """Return what a request's path says its events are; the base URL may have a path of its own."""
    return next((kind for kind, end in PATHS.items() if path.endswith(end)), None)


# Bodies
# ------------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """A key of a body.

    Args:
        field: The field of `ViewEvent` or `EngagementEvent` that it says.
        type: `str` (never empty), `float` (finite, not negative) or `dict`.
        required: Whether a body without it is none.
    """

    field: str
    type: type[Any] = str
    required: bool = True


BODIES: Mapping[Kind, Mapping[str, Key]] = {
    Kind.VIEW: {
        "contentId": Key("content_id"),
        "contentType": Key("content_type"),
        "userId": Key("user_id", required=False),
        "sessionId": Key("session_id"),
        "duration": Key("duration", float, required=False),
        "ipAddress": Key("ip_address", required=False),
        "deviceType": Key("device_type"),
        "app": Key("app"),
        "metadata": Key("metadata", dict, required=False),
    },
    Kind.ENGAGEMENT: {
        "userId": Key("user_id"),
        "metricType": Key("metric_type"),
        "targetId": Key("target_id"),
        "targetType": Key("target_type"),
        "metadata": Key("metadata", dict, required=False),
    },
}
"""Wire key to what it says, in the order in which bodies have them."""

EVENT_ID = "eventId"
TIMESTAMP = "timestamp"
OWN_METADATA = frozenset({EVENT_ID, TIMESTAMP})
"""The keys of metadata that every event has, and that win over its own of the same name."""


class CallView(NamedTuple):
    """What the views of an API call share, whoever calls and whenever; what is empty is left out.

    Args:
        content_id: What is viewed.
        content_type: Its type.
        device_type: The caller's.
        method: An HTTP method, or what stands for one.
        route: The endpoint.
        status_code: An int for HTTP and gRPC.
        user_agent: The client's.
        method_original: What the client sent where ``method`` is ``_OTHER``.
        bot: Whether the client is none of flesh and blood.
        mark: The key that says why this is no visit: `healthCheck`, `preflight`, `prefetch` or `staticFile`.
        operation: What a GraphQL request asked for, such as ``mutation Checkout``.
        entry: Whether somebody outside made the call, rather than another traced service on their behalf.
    """

    content_id: str
    content_type: str
    device_type: str
    method: str
    route: str
    status_code: int | str | None = None
    user_agent: str = ""
    method_original: str = ""
    bot: bool = False
    mark: str = ""
    operation: str = ""
    entry: bool = False

    def metadata(self, trace_id: str, span_id: str, sample_weight: float | None) -> dict[str, Any]:
        """Return the metadata of one call's view as hooks get it; see `call_view_json`."""
        said = {
            "method": self.method,
            "route": self.route,
            "traceId": trace_id,
            "spanId": trace_id and span_id,
            "statusCode": self.status_code,
            "userAgent": self.user_agent,
            "methodOriginal": self.method_original,
            "bot": self.bot or "",
            self.mark: self.mark and True,
            "operation": self.operation,
            "entry": self.entry or "",
            "sampleWeight": sample_weight,
        }
        return {key: value for key, value in said.items() if value is not None and value != ""}


@lru_cache(maxsize=4096)
def _shared_json(call: CallView) -> tuple[str, str, str, str]:
    """Return the JSON text before the user, of the device, and before and after the trace's ids."""
    _, _, device_type, method, route, status, user_agent, method_original, bot, mark, operation, entry = call
    after = ""
    if status is not None:
        after += f',"statusCode":{quote(status) if isinstance(status, str) else int.__repr__(status)}'
    if user_agent:
        after += f',"userAgent":{quote(user_agent)}'
    if method_original:
        after += f',"methodOriginal":{quote(method_original)}'
    if bot:
        after += ',"bot":true'
    if mark:
        after += f',"{mark}":true'
    if operation:
        after += f',"operation":{quote(operation)}'
    if entry:
        after += ',"entry":true'
    return (
        f'{{"contentId":{quote(call.content_id)},"contentType":{quote(call.content_type)}',
        f',"deviceType":{quote(device_type)},"app":',
        f',"metadata":{{"method":{quote(method)},"route":{quote(route)}',
        after,
    )


def call_view_json(
    call: CallView,
    user_id: str,
    session_id: str,
    duration: float | None,
    ip_address: str | None,
    app: str,
    trace_id: str,
    span_id: str,
    sample_weight: float | None,
    identity: str | None,
) -> str:
    """Write the body of an API call's view.

    Args:
        call: What it shares with others.
        user_id: Who; empty where nobody is known.
        session_id: In which visit.
        duration: How long it took, milliseconds; `None`: that says nothing.
        ip_address: The caller's, if it may be told.
        app: The service.
        trace_id: 32 hex digits; empty where there is none.
        span_id: 16 hex digits.
        sample_weight: How many calls this one stands for, where a sampler says so.
        identity: What `identity_json` says; `None` writes a bare view, without metadata.
    """
    before, device, metadata, after = _shared_json(call)
    user = f',"userId":{quote(user_id)}' if user_id else ""
    lasted = "" if duration is None else f',"duration":{number_json(duration)}'
    address = f',"ipAddress":{quote(ip_address)}' if ip_address else ""
    text = f'{before}{user},"sessionId":{quote(session_id)}{lasted}{address}{device}{quote(app)}'
    if identity is None:
        return text + "}"
    trace = f',"traceId":"{trace_id}","spanId":"{span_id}"' if trace_id else ""
    weight = "" if sample_weight is None else f',"sampleWeight":{number_json(sample_weight)}'
    return f"{text}{metadata}{trace}{after}{weight},{identity}}}}}"


def view_json(
    content_id: str,
    content_type: str,
    user_id: str | None,
    session_id: str,
    duration: float | None,
    ip_address: str | None,
    device_type: str,
    app: str,
    metadata: str | None,
) -> str:
    """Write a view's body.

    Args:
        content_id: As all that follow, what the key of that name says; `None`, or an empty text, leaves out
        what
            is optional.
        content_type: Text.
        user_id: Text.
        session_id: Text.
        duration: See `milliseconds`.
        ip_address: Text.
        device_type: Text.
        app: Text.
        metadata: JSON text without braces; `None` writes a bare view.

    Raises:
        TypeError: A text is none.
    """
    user = f',"userId":{quote(user_id)}' if user_id else ""
    lasted = "" if duration is None else f',"duration":{number_json(duration)}'
    address = f',"ipAddress":{quote(ip_address)}' if ip_address else ""
    more = "" if metadata is None else f',"metadata":{{{metadata}}}'
    return (
        f'{{"contentId":{quote(content_id)},"contentType":{quote(content_type)}{user}'
        f',"sessionId":{quote(session_id)}{lasted}{address}'
        f',"deviceType":{quote(device_type)},"app":{quote(app)}{more}}}'
    )


def engagement_json(user_id: str, metric_type: str, target_id: str, target_type: str, metadata: str) -> str:
    """Write an engagement's body; ``metadata`` is JSON text without braces.

    Raises:
        TypeError: A text is none.
    """
    return (
        f'{{"userId":{quote(user_id)},"metricType":{quote(metric_type)},"targetId":{quote(target_id)}'
        f',"targetType":{quote(target_type)},"metadata":{{{metadata}}}}}'
    )


def identity_json(event_id: str, timestamp: str) -> str:
    """Write the metadata that every event has, without braces."""
    return f'"{EVENT_ID}":{quote(event_id)},"{TIMESTAMP}":{quote(timestamp)}'


def milliseconds(value: Any) -> float | None:
    """Return a duration as ECMAScript writes it, a whole one without a fraction; `None` where it is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if not 0 <= value <= sys.float_info.max:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number_json(value: float) -> str:
    """Write a finite number, whatever a subclass of its own says of itself."""
    return float.__repr__(value) if isinstance(value, float) else int.__repr__(value)


# Batches
# -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Advertisement:
    """What a collector says of the arrays it takes.

    As a header: ``X-Analytics-Batch: max=512; bytes=1000000; encoding=gzip``.

    Args:
        max_events: Most events in one array; `None`: it set no limit.
        max_bytes: Largest array in bytes, before compression; `None`: it set no limit.
        gzip: Whether it takes gzip.
    """

    max_events: int | None = None
    max_bytes: int | None = None
    gzip: bool = False

    def header(self) -> str:
        """Return the header's value."""
        encoding = "gzip" if self.gzip else None
        said = (("max", self.max_events), ("bytes", self.max_bytes), ("encoding", encoding))
        return "; ".join(f"{name}={value}" for name, value in said if value is not None)


def parse_advertisement(header: str | None) -> Advertisement | None:
    """Read an advertisement; unknown parameters are ignored.

    Returns:
        The advertisement, or `None` where there is none, it lacks ``max``, or a number in it is garbage.
    """
    if header is None:
        return None
    pairs = (part.partition("=") for part in header.lower().split(";"))
    values = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        return Advertisement(
            _positive(values["max"]), _positive(values.get("bytes")), values.get("encoding") == "gzip"
        )
    except (ValueError, KeyError):
        return None


def _positive(text: str | None) -> int | None:
    if text is None:
        return None
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


REJECTED = "rejected"
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Failure:
    """An event of an array that was not accepted.

    Args:
        index: Its place in the array.
        status: `REJECTED`: never again; `RETRY`: once more.
        reason: Why.
    """

    index: int
    status: str
    reason: str = ""


def acknowledgement(received: int, failures: Sequence[Failure] = ()) -> dict[str, Any]:
    """Return the answer to an array of ``received`` events; what is not listed was accepted."""
    return {"received": received, "failures": [asdict(failure) for failure in failures]}


def read_acknowledgement(body: bytes, count: int) -> list[Failure]:
    """Return which of ``count`` events were not accepted.

    Raises:
        ValueError: This is no acknowledgement of an array of so many events.
    """
    try:
        said = json.loads(body)
        if said["received"] != count:
            raise ValueError("received differs from what was sent")  # noqa: TRY301 - one way out of garbage
        failures = [
            Failure(item["index"], item["status"], str(item.get("reason", ""))[:_LONGEST_REASON])
            for item in said.get("failures") or []
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("no valid acknowledgement of a batch") from None
    indices = {failure.index for failure in failures if type(failure.index) is int}
    known = all(0 <= index < count for index in indices) and len(indices) == len(failures)
    if not known or any(failure.status not in (REJECTED, RETRY) for failure in failures):
        raise ValueError("no valid acknowledgement of a batch: a failure names no event of it")
    return failures


_LONGEST_REASON = 200


# Moments: RFC 3339, UTC, milliseconds
# ------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59, the last that RFC 3339 can write
_NANOS_PER_MILLI = 1_000_000
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_EXPECTATION = "must be an RFC 3339 date-time such as 2026-01-31T12:00:00.000Z"


def rfc3339(nanos: int) -> str:
    """Return a time, nanoseconds since the epoch, as RFC 3339 in UTC with milliseconds."""
    seconds, millis = divmod(nanos // _NANOS_PER_MILLI, 1000)
    return f"{_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """Remember the last seconds: most events of a batch share theirs."""
    moment = _EPOCH + timedelta(seconds=min(max(seconds, 0), _LAST_SECOND))
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def parse_rfc3339(text: str) -> int:
    """Return the milliseconds since the epoch of an RFC 3339 date-time.

    Raises:
        ValueError: The text is none.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(_EXPECTATION)
    day, time, fraction, zone = match.groups(default="")
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise ValueError(_EXPECTATION) from None
    return round(moment.timestamp()) * 1000 + int(fraction[:3].ljust(3, "0"))
