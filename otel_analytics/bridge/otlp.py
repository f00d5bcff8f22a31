"""OTLP decoded to what the mapping reads (`mapping.protocol`), without making spans of the SDK.

Protobuf's messages are read where they are asked for something: of most spans, which tell nothing, that is
little. JSON is OTLP's own mapping (ids in hex, 64-bit numbers as text), not protobuf's; some tools write the
fields by their names in the protocol, which are taken as well.

Whether a parent is in the same process is said by a span's flags. Where its SDK does not say, as of before
OTLP 1.3, it is by the kind: a server's or a consumer's parent is remote, unless a span of the same process is
at hand that has this id and asks nobody.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

from opentelemetry.trace import SpanKind, Status, StatusCode, TraceState

from otel_analytics.errors import AnalyticsError, ConfigError
from otel_analytics.mapping import semconv
from otel_analytics.mapping.protocol import LogRecord, Span
from otel_analytics.mapping.reading import TRACE_ID_BITS, TraceOf

_KINDS: Final = (
    SpanKind.INTERNAL,  # unspecified: "implementations MAY assume SpanKind to be INTERNAL"
    SpanKind.INTERNAL,
    SpanKind.SERVER,
    SpanKind.CLIENT,
    SpanKind.PRODUCER,
    SpanKind.CONSUMER,
)
"""By their numbers in OTLP."""
_STATUSES: Final = (Status(StatusCode.UNSET), Status(StatusCode.OK), Status(StatusCode.ERROR))
_SAYS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
"""Bits of a span's `flags`: whether they say that the parent is remote, and that it is."""
_ASKED: Final = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})
_ASKING: Final = frozenset({SpanKind.CLIENT, SpanKind.PRODUCER})
_NO_STATE: Final[Mapping[str, str]] = {}
REQUEST: Final[TraceOf] = attrgetter("request")
"""Tells requests apart where spans are of many processes."""


class OtlpError(AnalyticsError):
    """Bytes that are no OTLP; the message says what is wrong with them, without showing any."""


class Encoding(Enum):
    """How OTLP is written; the values are the names that the Collector's Kafka exporter has for them."""

    PROTO = "otlp_proto"
    JSON = "otlp_json"


class Context(NamedTuple):
    """A span's context.

    Args:
        trace_id: 128 bits.
        span_id: 64 bits.
        is_remote: Whether the span is of another process.
        trace_state: W3C's ``tracestate``, by vendor.
        request: Tells one trace in one process from all others: the trace, and above its bits the process.
    """

    trace_id: int
    span_id: int
    is_remote: bool = False
    trace_state: Mapping[str, str] = _NO_STATE
    request: int = 0


class Resource(NamedTuple):
    """What made a span.

    Args:
        attributes: By name.
        process: A number that spans of one process share, of 64 bits.
    """

    attributes: Mapping[str, Any]
    process: int = 0


class Scope(NamedTuple):
    """An instrumentation scope."""

    name: str


class Event(NamedTuple):
    """An event of a span."""

    name: str
    attributes: Mapping[str, Any]
    timestamp: int | None


class DecodedSpan(NamedTuple):
    """A span with nothing left to decode; see `mapping.protocol.Span`."""

    name: str
    kind: SpanKind
    context: Context
    parent: Context | None
    resource: Resource
    instrumentation_scope: Scope | None
    status: Status
    attributes: Mapping[str, Any]
    events: Sequence[Event]
    start_time: int | None
    end_time: int | None
    dropped_events: int = 0


class DecodedLog(NamedTuple):
    """A log record; see `mapping.protocol.LogRecord`.

    Args:
        request: The same as a `Context`'s.
    """

    event_name: str
    body: Any
    attributes: Mapping[str, Any]
    timestamp: int | None
    observed_timestamp: int | None
    trace_id: int
    span_id: int
    request: int


class ProtoSpan:
    """A span that reads its protobuf message.

    Args:
        raw: The message.
        resource: Of which it is.
        scope: Of which it is.
        is_parent_remote: Whether the span above it is of another process.
    """

    __slots__ = ("_attributes", "_raw", "context", "instrumentation_scope", "kind", "parent", "resource")

    def __init__(self, raw: Any, resource: Resource, scope: Scope, *, is_parent_remote: bool) -> None:
        self._raw = raw
        self._attributes: dict[str, Any] | None = None
        self.resource = resource
        self.instrumentation_scope = scope
        self.kind = _kind(raw.kind)
        trace_id = int.from_bytes(raw.trace_id[:16], "big")
        state = raw.trace_state
        self.context = Context(
            trace_id,
            int.from_bytes(raw.span_id[:8], "big"),
            False,  # noqa: FBT003 - a tuple's field
            _trace_state(state) if state else _NO_STATE,
            request_number(trace_id, resource),
        )
        parent_id = raw.parent_span_id
        self.parent = (
            Context(trace_id, int.from_bytes(parent_id[:8], "big"), is_parent_remote) if parent_id else None
        )

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._raw.name)

    @property
    def status(self) -> Status:
        """Its status."""
        return _status(self._raw.status.code)

    @property
    def attributes(self) -> dict[str, Any]:
        """By name, decoded when they are asked for first."""
        if self._attributes is None:
            self._attributes = _proto_attributes(self._raw.attributes)
        return self._attributes

    @property
    def attribute_names(self) -> Iterable[str]:
        """Names alone, for a look that mostly ends there."""
        return [each.key for each in self._raw.attributes] if self._attributes is None else self._attributes

    @property
    def events(self) -> Sequence[Event]:
        """Its events, in order."""
        return [
            Event(each.name, _proto_attributes(each.attributes), each.time_unix_nano or None)
            for each in self._raw.events
        ]

    @property
    def has_events(self) -> bool:
        """Whether there are any, or were."""
        return bool(self._raw.events or self._raw.dropped_events_count)

    @property
    def dropped_events(self) -> int:
        """How many more it had."""
        return int(self._raw.dropped_events_count)

    @property
    def start_time(self) -> int | None:
        """Nanoseconds since the epoch."""
        return self._raw.start_time_unix_nano or None

    @property
    def end_time(self) -> int | None:
        """The same."""
        return self._raw.end_time_unix_nano or None


def spans_of(body: bytes, encoding: Encoding) -> list[Span]:
    """Return the spans of an ``ExportTraceServiceRequest``, which the Collector's ``TracesData`` is as well.

    Args:
        body: The message.
        encoding: How it is written.

    Raises:
        OtlpError: It is none.
        ConfigError: It is protobuf, and the extra `bridge` is not installed.
    """
    if encoding is Encoding.JSON:
        return list(_guarded(lambda: spans_of_json(_json(body))))
    return _proto_spans(_parsed(body, "trace"))


def logs_of(body: bytes, encoding: Encoding) -> list[LogRecord]:
    """Return those log records of an ``ExportLogsServiceRequest`` that name an event.

    Args:
        body: The message.
        encoding: How it is written.

    Raises:
        OtlpError: It is none.
        ConfigError: It is protobuf, and the extra `bridge` is not installed.
    """
    if encoding is Encoding.JSON:
        return list(_guarded(lambda: list(_json_logs(_json(body)))))
    return list(_proto_logs(_parsed(body, "logs")))


def is_valid(span: Span) -> bool:
    """Whether a span has ids, as it must: without them its events would have none of their own."""
    context = span.context
    return context is not None and bool(context.trace_id and context.span_id)


# Protobuf


def _parsed(body: bytes, signal: str) -> Any:
    message = _request_class(signal)()
    try:
        message.ParseFromString(body)
    except Exception as error:  # noqa: BLE001 - protobuf's implementations differ in what they raise
        raise OtlpError(f"no protobuf of OTLP's {signal}: {type(error).__name__}") from None
    return message


@lru_cache(maxsize=2)
def _request_class(signal: str) -> Any:
    try:
        if signal == "trace":
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
                ExportTraceServiceRequest,
            )

            return ExportTraceServiceRequest
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415
            ExportLogsServiceRequest,
        )
    except ImportError:
        raise ConfigError("protobuf needs the extra: pip install 'otel-analytics[bridge]'") from None
    return ExportLogsServiceRequest


def _proto_spans(message: Any) -> list[Span]:
    spans: list[Span] = []
    for of_resource in message.resource_spans:
        resource = _proto_resource(of_resource.resource.SerializeToString(deterministic=True))
        at_hand: dict[Any, SpanKind] | None = None
        for of_scope in of_resource.scope_spans:
            scope = Scope(of_scope.scope.name)
            for raw in of_scope.spans:
                flags, is_remote = raw.flags, False
                if flags & _SAYS_REMOTE:
                    is_remote = bool(flags & _IS_REMOTE)
                elif raw.parent_span_id and _kind(raw.kind) in _ASKED:
                    if at_hand is None:
                        at_hand = {
                            (each.trace_id, each.span_id): _kind(each.kind)
                            for scoped in of_resource.scope_spans
                            for each in scoped.spans
                        }
                    is_remote = _is_unseen(at_hand.get((raw.trace_id, raw.parent_span_id)))
                spans.append(ProtoSpan(raw, resource, scope, is_parent_remote=is_remote))
    return spans


@lru_cache(maxsize=1024)
def _proto_resource(written: bytes) -> Resource:
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as Message  # noqa: PLC0415

    return resource_of(_proto_attributes(Message.FromString(written).attributes))


def _proto_logs(message: Any) -> Iterator[LogRecord]:
    for of_resource in message.resource_logs:
        resource = _proto_resource(of_resource.resource.SerializeToString(deterministic=True))
        for of_scope in of_resource.scope_logs:
            for raw in of_scope.log_records:
                if getattr(raw, "event_name", "") or _names_an_event(raw):
                    yield _proto_log(raw, resource)


def _names_an_event(raw: Any) -> bool:
    named = (*raw.attributes, *raw.body.kvlist_value.values)
    return any(each.key in semconv.EVENT_NAME for each in named)


def _proto_log(raw: Any, resource: Resource) -> DecodedLog:
    trace_id = int.from_bytes(raw.trace_id[:16], "big")
    return DecodedLog(
        getattr(raw, "event_name", ""),
        _proto_value(raw.body),
        _proto_attributes(raw.attributes),
        raw.time_unix_nano or None,
        raw.observed_time_unix_nano or None,
        trace_id,
        int.from_bytes(raw.span_id[:8], "big"),
        request_number(trace_id, resource),
    )


def _proto_attributes(pairs: Any) -> dict[str, Any]:
    return {each.key: _proto_value(each.value) for each in pairs}


def _proto_value(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "string_value":  # most are
        return value.string_value
    if which == "array_value":
        return tuple([_proto_value(each) for each in value.array_value.values])
    if which == "kvlist_value":
        return _proto_attributes(value.kvlist_value.values)
    return None if which is None else getattr(value, which)


# JSON


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise OtlpError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise OtlpError(f"no JSON of OTLP: {type(value).__name__} instead of an object")
    return value


def _guarded(decode: Callable[[], list[Any]]) -> list[Any]:
    try:
        return decode()
    except OtlpError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever stands where something else was expected
        raise OtlpError(f"no JSON of OTLP: {type(error).__name__} in a field") from None


def spans_of_json(value: Mapping[str, Any]) -> list[DecodedSpan]:
    """Return the spans of OTLP's JSON, parsed.

    Args:
        value: An object with ``resourceSpans``.

    Raises:
        Exception: Any, where it is not as OTLP has it.
    """
    spans: list[DecodedSpan] = []
    for of_resource in _get(value, "resourceSpans", []):
        resource = _json_resource(_get(of_resource, "resource", {}))
        scoped = [
            (Scope(_get(_get(of_scope, "scope", {}), "name", "")), raw)
            for of_scope in _get(of_resource, "scopeSpans", [])
            for raw in _get(of_scope, "spans", [])
        ]
        at_hand = {_place(raw): _json_kind(raw) for _, raw in scoped}
        spans += [_json_span(raw, resource, scope, at_hand) for scope, raw in scoped]
    return spans


def _json_span(
    raw: Mapping[str, Any], resource: Resource, scope: Scope, at_hand: Mapping[Any, SpanKind]
) -> DecodedSpan:
    trace_id, span_id = _place(raw)
    kind, flags = _json_kind(raw), int(_get(raw, "flags", 0))
    parent_id = _id(raw, "parentSpanId", 64)
    is_remote = kind in _ASKED and _is_unseen(at_hand.get((trace_id, parent_id)))
    if flags & _SAYS_REMOTE:
        is_remote = bool(flags & _IS_REMOTE)
    state = _get(raw, "traceState", "")
    return DecodedSpan(
        str(_get(raw, "name", "")),
        kind,
        Context(
            trace_id,
            span_id,
            trace_state=_trace_state(state) if state else _NO_STATE,
            request=request_number(trace_id, resource),
        ),
        Context(trace_id, parent_id, is_remote) if parent_id else None,
        resource,
        scope,
        _status(_numbered(_get(_get(raw, "status", {}), "code", 0), StatusCode, "STATUS_CODE_")),
        _json_attributes(raw),
        [
            Event(str(_get(each, "name", "")), _json_attributes(each), _nanos(each, "timeUnixNano"))
            for each in _get(raw, "events", [])
        ],
        _nanos(raw, "startTimeUnixNano"),
        _nanos(raw, "endTimeUnixNano"),
        int(_get(raw, "droppedEventsCount", 0)),
    )


def _json_logs(value: Mapping[str, Any]) -> Iterator[DecodedLog]:
    for of_resource in _get(value, "resourceLogs", []):
        resource = _json_resource(_get(of_resource, "resource", {}))
        for of_scope in _get(of_resource, "scopeLogs", []):
            for raw in _get(of_scope, "logRecords", []):
                log = _json_log(raw, resource)
                body = log.body if isinstance(log.body, dict) else {}
                if log.event_name or any(name in (*log.attributes, *body) for name in semconv.EVENT_NAME):
                    yield log


def _json_log(raw: Mapping[str, Any], resource: Resource) -> DecodedLog:
    trace_id = _id(raw, "traceId", TRACE_ID_BITS)
    return DecodedLog(
        str(_get(raw, "eventName", "")),
        _json_value(_get(raw, "body", {})),
        _json_attributes(raw),
        _nanos(raw, "timeUnixNano"),
        _nanos(raw, "observedTimeUnixNano"),
        trace_id,
        _id(raw, "spanId", 64),
        request_number(trace_id, resource),
    )


def _json_resource(raw: Mapping[str, Any]) -> Resource:
    return resource_of(_json_attributes(raw))


def _json_kind(raw: Mapping[str, Any]) -> SpanKind:
    return _kind(_numbered(_get(raw, "kind", 0), SpanKind, "SPAN_KIND_"))


def _numbered(value: Any, names: Any, prefix: str) -> int:
    """Return the number of an enumeration's value in OTLP, be it written by its name."""
    if not isinstance(value, str) or value.isdigit():
        return int(value)
    known = names.__members__.get(value.removeprefix(prefix))
    if known is None:
        return 0
    return _STATUS_NUMBERS[known] if names is StatusCode else _KINDS.index(known, 1)


def _place(raw: Mapping[str, Any]) -> tuple[int, int]:
    return _id(raw, "traceId", TRACE_ID_BITS), _id(raw, "spanId", 64)


def _id(raw: Mapping[str, Any], name: str, bits: int) -> int:
    return int(_get(raw, name, "") or "0", 16) & (1 << bits) - 1


def _nanos(raw: Mapping[str, Any], name: str) -> int | None:
    return int(_get(raw, name, 0)) or None


def _get(owner: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a field by its JSON name, or by the name in the protocol, as some tools write it."""
    value = owner.get(name)
    if value is None:
        value = owner.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))
    return default if value is None else value


def _json_attributes(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(_get(each, "key", "")): _json_value(_get(each, "value", {}))
        for each in _get(owner, "attributes", [])
    }


def _json_value(value: Mapping[str, Any]) -> Any:
    for name, read in _JSON_VALUES.items():
        found = _get(value, name, None)
        if found is not None:
            return read(found)
    return None


_JSON_VALUES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,
    "doubleValue": float,
    "arrayValue": lambda value: tuple(_json_value(each) for each in value.get("values", ())),
    "kvlistValue": lambda value: {
        str(_get(each, "key", "")): _json_value(_get(each, "value", {})) for each in value.get("values", ())
    },
    "bytesValue": base64.b64decode,
}


# Both


def request_number(trace_id: int, resource: Resource) -> int:
    """Return what tells one trace in one process from all others; 0 without a trace."""
    return trace_id and trace_id | resource.process << TRACE_ID_BITS


def resource_of(attributes: Mapping[str, Any]) -> Resource:
    """Return a resource; its process's number is the same in every bridge, without anything remembered."""
    said = repr(sorted(attributes.items(), key=itemgetter(0))).encode(errors="replace")
    return Resource(attributes, int.from_bytes(blake2b(said, digest_size=8).digest(), "big"))


def _kind(number: int) -> SpanKind:
    return _KINDS[number] if 0 <= number < len(_KINDS) else SpanKind.INTERNAL


def _status(number: int) -> Status:
    return _STATUSES[number] if 0 <= number < len(_STATUSES) else _STATUSES[0]


_STATUS_NUMBERS: Final = {each.status_code: number for number, each in enumerate(_STATUSES)}


def _is_unseen(parent: SpanKind | None) -> bool:
    """Whether a server's parent is remote, by what is at hand of its own process."""
    return parent is None or parent in _ASKING


def _trace_state(text: str) -> Mapping[str, str]:
    return TraceState.from_header([text])
