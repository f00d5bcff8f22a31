"""A span event becomes an engagement where its name is a business event's or it carries a metric type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from otel_analytics.contract import Kind, rfc3339
from otel_analytics.events import BusinessEvent, EncodedEvent, Event, Form
from otel_analytics.mapping import ids, semconv
from otel_analytics.mapping.endpoint import UNKNOWN, bare_url
from otel_analytics.mapping.options import MappingOptions
from otel_analytics.mapping.reading import NotMade, SpanReading
from otel_analytics.mapping.values import Attributes, as_text, attributes_of, first_text, is_true

IGNORED: Final = "ignored"
ANONYMOUS: Final = "anonymous"


class _Occurrence(NamedTuple):
    """A span event; ``ordinal`` counts those of the same name and time before it on its span."""

    name: str
    nanos: int
    ordinal: int
    attributes: Attributes


def engagements(
    viewed: str, reading: SpanReading, options: MappingOptions, form: Form
) -> Iterator[Event | EncodedEvent | NotMade]:
    """Yield each business event of a span as an engagement, or why it is deliberately none.

    Args:
        viewed: The request's `contentId` where the span is a request's server span, else empty.
        reading: The span.
        options: How spans become events.
        form: What engagements are made as.
    """
    for occurrence in _occurrences(reading):
        business = _business_event(occurrence, options)
        if business is not None:
            yield _engagement(business, occurrence, viewed, reading, options, form)


def _occurrences(reading: SpanReading) -> Iterator[_Occurrence]:
    ordinals: Counter[tuple[str, int]] = Counter()
    for event in reading.span.events:
        key = as_text(event.name), event.timestamp or reading.start
        yield _Occurrence(*key, ordinals[key], attributes_of(event))
        ordinals[key] += 1


def _business_event(occurrence: _Occurrence, options: MappingOptions) -> BusinessEvent | None:
    """Return what an event counts as; its own metric type wins over the table's."""
    business = options.business_events.get(occurrence.name)
    own = first_text(occurrence.attributes, semconv.METRIC_TYPE)
    if not own:
        return business
    if business is None:
        return BusinessEvent(own)
    return BusinessEvent(own, business.target_type, business.target_id_attribute)


def _engagement(
    business: BusinessEvent,
    occurrence: _Occurrence,
    viewed: str,
    reading: SpanReading,
    options: MappingOptions,
    form: Form,
) -> Event | EncodedEvent | NotMade:
    attributes = occurrence.attributes
    if is_true(attributes.get(semconv.IGNORE)):
        return NotMade(Kind.ENGAGEMENT, IGNORED)
    user_id = first_text(attributes, semconv.USER_ID) or reading.user_id or options.anonymous_user_id
    if not user_id:
        return NotMade(Kind.ENGAGEMENT, ANONYMOUS)
    name, nanos, ordinal, _ = occurrence
    return form.engagement(
        ids.engagement_id(reading.trace_id, reading.span_id, name, nanos, ordinal),
        rfc3339(nanos),
        user_id,
        business.metric_type,
        _target_id(business, attributes) or viewed or _span_name(reading) or name or UNKNOWN,
        first_text(attributes, semconv.TARGET_TYPE) or business.target_type,
        metadata={**_passed_on(attributes), "businessEventType": name, **reading.trace},
    )


def _target_id(business: BusinessEvent, attributes: Attributes) -> str:
    named = first_text(attributes, semconv.TARGET_ID)
    if named or business.target_id_attribute is None:
        return named
    return first_text(attributes, (business.target_id_attribute,))


def _span_name(reading: SpanReading) -> str:
    return bare_url(as_text(reading.span.name))


def _passed_on(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes that are nobody's field; of a URL, what may be told."""
    return {
        key: bare_url(as_text(value)) if key in semconv.URL_VALUES else value
        for key, value in attributes.items()
        if key not in semconv.NOT_PASSED_ON
    }
