"""A span event becomes an engagement where its name is a business event's or it carries a metric type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from otel_analytics.contract import Kind, rfc3339
from otel_analytics.events import BusinessEvent, EncodedEvent, Event, Form
from otel_analytics.mapping import ids, semconv
from otel_analytics.mapping.business import BusinessNames, Recognised, recognised
from otel_analytics.mapping.endpoint import UNKNOWN
from otel_analytics.mapping.identity import Draft, Link, Request
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.privacy import bare_text, first_id, first_known, name_without_ids, told
from otel_analytics.mapping.protocol import LogRecord
from otel_analytics.mapping.reading import NotMade, SpanReading
from otel_analytics.mapping.reasons import ANONYMOUS, IGNORED
from otel_analytics.mapping.values import Attributes, as_text, attributes_of, first_text, is_true

_LONGEST_NAME: Final = 256


class Occurrence(NamedTuple):
    """Something that happened, and that may be a business event.

    Args:
        name: Its name.
        nanos: When, nanoseconds since the epoch.
        attributes: Its own.
        event_id: The id of the engagement that it may become.
        link: The span on which it happened.
        trace_id: 32 hex digits.
        trace: The metadata by which it is found in the traces, and how many it stands for.
        span_name: The last resort for a target.
        span_attributes: Of its span, where that is at hand; they may name its target.
        is_log: Whether a log record tells it.
    """

    name: str
    nanos: int
    attributes: Attributes
    event_id: str
    link: Link
    trace_id: str
    trace: Mapping[str, Any]
    span_name: str = ""
    span_attributes: Mapping[str, Any] = MappingProxyType({})
    is_log: bool = False


def drafted(
    occurrence: Occurrence, names: BusinessNames, options: MappingOptions, form: Form
) -> Draft | None:
    """Return a business event as a draft of an engagement; `None` where it is no business event.

    Args:
        occurrence: What happened.
        names: Which names are business events'.
        options: How events are mapped.
        form: What engagements are made as.
    """
    attributes = occurrence.attributes
    found = _recognised(occurrence.name, attributes, names)
    if found is None:
        return None
    user_id = first_id(attributes, semconv.USER_ID_OF_EVENT)
    return Draft(
        occurrence.link,
        partial(_engagement, found, occurrence, user_id, options, form),
        nanos=occurrence.nanos,
        size=_size(attributes),
        name=found.name,
        is_log=occurrence.is_log,
        user_id=user_id,
    )


def span_events(reading: SpanReading) -> Iterator[Occurrence]:
    """Yield each event of a span; its id counts those of the same name and time before it."""
    ordinals: Counter[tuple[str, int]] = Counter()
    trace_id, span_id, found_by = reading.trace_id, reading.span_id, reading.trace
    if reading.weight is not None:
        found_by = {**found_by, "sampleWeight": reading.weight}
    for event in reading.span.events:
        key = name, nanos = as_text(event.name), event.timestamp or reading.start
        event_id = ids.engagement_id(trace_id, span_id, name, nanos, ordinals[key])
        ordinals[key] += 1
        yield Occurrence(
            *(name, nanos, attributes_of(event), event_id, reading.link, trace_id, found_by),
            *(as_text(reading.span.name), reading.attributes),
        )


def log_event(record: LogRecord) -> Occurrence:
    """Return what a log record tells; without a name, or an attribute ``event.name``, it is no event.

    The Events API of the logs specification; a body that is a mapping counts as attributes.

    Args:
        record: A log record.
    """
    body = record.body if isinstance(record.body, Mapping) else {}
    attributes = {**body, **attributes_of(record)}
    name = as_text(getattr(record, "event_name", None)) or first_text(attributes, semconv.EVENT_NAME)
    nanos = record.timestamp or record.observed_timestamp or 0
    return occurrence_at(name, nanos, attributes, record.trace_id or 0, record.span_id or 0, is_log=True)


def occurrence_at(
    name: str, nanos: int, attributes: Attributes, trace_id: int, span_id: int, *, is_log: bool = False
) -> Occurrence:
    """Return something that happened on a span that is not at hand, or on none: its ids are 0 then."""
    trace, span = f"{trace_id:032x}", f"{span_id:016x}"
    event_id = ids.engagement_id(trace, span, name, nanos, 0)
    found_by = {"traceId": trace, "spanId": span} if trace_id else {}
    return Occurrence(
        name, nanos, attributes, event_id, Link(trace_id, span_id), trace, found_by, is_log=is_log
    )


def _size(attributes: Attributes) -> int:
    """Return about how many bytes attributes hold; texts are what can be large."""
    return 512 + sum(len(value) for value in attributes.values() if isinstance(value, (str, bytes, tuple)))


def _recognised(name: str, attributes: Attributes, names: BusinessNames) -> Recognised | None:
    """Return what an event counts as; its own metric type wins over the table's."""
    own = bare_text(first_text(attributes, semconv.METRIC_TYPE))
    if not own:
        return names.recognise(name)
    found = names.known(name)
    if found is None:
        return recognised(bare_text(name), BusinessEvent(own))
    return found._replace(business=replace(found.business, metric_type=own))


def _engagement(
    found: Recognised,
    occurrence: Occurrence,
    named: str,
    options: MappingOptions,
    form: Form,
    request: Request,
) -> Event | EncodedEvent | NotMade:
    """Make an engagement of a business event, or say why it is deliberately none."""
    attributes = occurrence.attributes
    if is_true(attributes.get(semconv.IGNORE)):
        return NotMade(Kind.ENGAGEMENT, IGNORED)
    session_id = first_id(attributes, semconv.SESSION_ID) or request.session_id
    user_id = named or request.user_id or first_id(occurrence.span_attributes, semconv.CUSTOMER_ID)
    user_id = user_id or _anonymous(session_id, occurrence, options)
    if not user_id:
        return NotMade(Kind.ENGAGEMENT, ANONYMOUS)
    return form.engagement(
        occurrence.event_id,
        rfc3339(occurrence.nanos),
        user_id,
        found.business.metric_type,
        _target_id(found, occurrence) or request.viewed or _last_resort(found, occurrence),
        bare_text(first_text(attributes, semconv.TARGET_TYPE)) or found.business.target_type,
        metadata={
            **_circumstances(session_id, request, occurrence),
            **_passed_on(attributes),
            "businessEventType": found.name,
            **occurrence.trace,
        },
    )


def _anonymous(session_id: str, occurrence: Occurrence, options: MappingOptions) -> str:
    if options.anonymous_user_id is not None:
        return options.anonymous_user_id
    return ids.anonymous_id(session_id, _trace_of(occurrence))


def _trace_of(occurrence: Occurrence) -> str:
    """Return what tells an event's request from others; without a trace, the event itself."""
    return occurrence.trace_id if occurrence.link.trace_id else occurrence.event_id.replace("-", "")


def _circumstances(session_id: str, request: Request, occurrence: Occurrence) -> dict[str, Any]:
    """Return what an engagement has no field for; what is unknown is left out.

    A status is told where the request failed: what was done in it may have been undone, or be repeated.
    """
    if not session_id and request.method:
        session_id = ids.session_id(request.start, occurrence.trace_id)  # the same as its request's view
    said = {
        "sessionId": session_id,
        "route": request.route,
        "ipAddress": request.address,
        "statusCode": request.failure,
    }
    return {key: value for key, value in said.items() if value}


def _target_id(found: Recognised, occurrence: Occurrence) -> str:
    """Return what the event, else its span, names as its target."""
    for attributes in (occurrence.attributes, occurrence.span_attributes):
        if target := bare_text(first_known(attributes, found.targets)):
            return target
    return ""


def _last_resort(found: Recognised, occurrence: Occurrence) -> str:
    """Return a name as a target, of which there are few: that of the span, without ids, or the event's."""
    return name_without_ids(occurrence.span_name[:_LONGEST_NAME]) or found.name or UNKNOWN


def _passed_on(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes that are nobody's field, as they may be told."""
    return told({key: value for key, value in attributes.items() if key not in semconv.NOT_PASSED_ON})
