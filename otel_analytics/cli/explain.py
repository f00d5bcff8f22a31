"""``otel-analytics explain``: each span of a file, the events it becomes, and where each field comes from.

The events are those of the exporter's own mapping and join. Where a field comes from is found by asking that
same mapping again without an attribute, or with another value of it: a field that changes came from it. So no
second set of rules can drift from the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from opentelemetry.trace import SpanKind

from otel_analytics.bridge.otlp import REQUEST, DecodedSpan, Event
from otel_analytics.cli.spans_file import SpansFileError, spans_of
from otel_analytics.config import Config
from otel_analytics.contract import Kind
from otel_analytics.escaping import escaped
from otel_analytics.events import BusinessEvent
from otel_analytics.mapping import semconv
from otel_analytics.mapping.business import BusinessNames
from otel_analytics.mapping.identity import Draft, Requests, Settled
from otel_analytics.mapping.options import MappingOptions, options_from_config
from otel_analytics.mapping.reading import NotMade, link_of, tells_nothing
from otel_analytics.mapping.reasons import NO_SERVER, REASONS, TWICE, Noticed
from otel_analytics.mapping.spans import SpanMapper, why_no_view
from otel_analytics.mapping.values import attributes_of

Say = Callable[[str], None]

_FOREVER: Final = float("inf")
_MOST_TELLING: Final = 100
"""Spans of one trace, of those that tell anything, up to which the fields' sources are looked for."""
_LONGEST_VALUE: Final = 100

_OF_THE_SPAN: Final[Mapping[str, str]] = {
    "duration": "the span's start and end",
    "metadata.timestamp": "the time in the span",
    "metadata.traceId": "the span's context",
    "metadata.spanId": "the span's context",
    "metadata.eventId": "the span's context",
}
_WITHOUT_ATTRIBUTE: Final[Mapping[str, str]] = {
    "contentType": "the contract",
    "sessionId": "derived from trace id and start: no session.id",
    "metadata.sessionId": "derived from trace id and start: no session.id",
    "metadata.entry": "no span above it, or one of a person's browser",
    "metadata.derivedSession": "no session.id",
    "deviceType": "option device_type",
    "app": "option app_name, or no service.name",
    "userId": "derived: no user.id",
    "metricType": "the event's name, option business_events",
    "targetType": "the event's name, option business_events",
    "targetId": "the span's name",
    "metadata.businessEventType": "the event's name",
}

_FAMILIES: Final = tuple(
    keys
    for name, keys in vars(semconv).items()
    if name.isupper() and isinstance(keys, tuple) and name not in {"HTTP", "OF_CALLS", "USER_ID_OF_EVENT"}
)
"""The names of one thing, newest first."""


class Field(NamedTuple):
    """A field of a body.

    Args:
        name: As in the body; what is in `metadata` begins with it.
        value: Its value.
        source: Where it comes from.
    """

    name: str
    value: Any
    source: str


class Explained(NamedTuple):
    """An event that a span gave or did not give.

    Args:
        what: `view`, or the name of the span's event.
        fields: The body's fields; empty where there is no event.
        reason: Why there is none.
    """

    what: str
    fields: Sequence[Field] = ()
    reason: str = ""


class ExplainedSpan(NamedTuple):
    """A span and what became of it."""

    span: DecodedSpan
    events: Sequence[Explained]


class _Made(NamedTuple):
    draft: Draft
    event: Any


def run(options: argparse.Namespace, say: Say) -> bool:
    """Explain a file.

    Args:
        options: `file`, a path or ``-``, and `json`.
        say: Takes a line of the result.

    Returns:
        Whether there were spans.

    Raises:
        SpansFileError: The file cannot be read.
        ConfigError: A variable of this exporter has a value it cannot have.
    """
    spans = spans_of(_text(options.file))
    if not spans:
        raise SpansFileError("no spans in it")
    explained = explain(spans, options_from_config(Config.resolve()))
    # The spans' texts came from other programs, and a terminal obeys what it is shown.
    for line in [_as_json(explained)] if options.json else _lines(explained):
        say(escaped(line))
    return True


def explain(spans: Sequence[DecodedSpan], options: MappingOptions) -> list[ExplainedSpan]:
    """Return what becomes of ended spans, in their order, each with where its fields come from."""
    made = _by_span(_made(spans, SpanMapper(options, trace_of=REQUEST)))
    traces: dict[int, list[DecodedSpan]] = defaultdict(list)
    for span in spans:
        traces[_place(span)[0]].append(span)
    sources: dict[tuple[str, str], list[str]] = {}
    for trace in traces.values():
        sources.update(_sources(trace, options))
    return [
        ExplainedSpan(span, list(_explained(span, made[_place(span)], sources, options))) for span in spans
    ]


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SpansFileError(f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _place(span: DecodedSpan) -> tuple[int, int]:
    return tuple(link_of(span, REQUEST)[:2])  # type: ignore[return-value]


def _made(spans: Sequence[DecodedSpan], mapper: SpanMapper) -> list[_Made]:
    """Return what a process gives whose spans were seen to start and to end."""
    requests = Requests(_FOREVER)
    settled: list[Settled] = []
    for span in spans:
        settled += requests.started(link_of(span, REQUEST), 0, is_server=span.kind is SpanKind.SERVER)
    for span in sorted(spans, key=lambda span: span.end_time or span.start_time or 0):
        settled += requests.ended(mapper.read(span), 0)
    settled += requests.drain()
    return [_Made(draft, draft.make(request)) for draft, request in settled]


def _by_span(made: Sequence[_Made]) -> dict[tuple[int, int], list[_Made]]:
    by_span: dict[tuple[int, int], list[_Made]] = defaultdict(list)
    for each in made:
        by_span[each.draft.link.trace_id, each.draft.link.span_id].append(each)
    return by_span


def _explained(
    span: DecodedSpan,
    made: Sequence[_Made],
    sources: Mapping[tuple[str, str], Sequence[str]],
    options: MappingOptions,
) -> Iterator[Explained]:
    views = [each for each in made if each.draft.is_view]
    yield from (_of_made("view", each.event, sources) for each in views)
    if not views:
        yield Explained("view", reason=_no_view(span))
    left = [each for each in made if not each.draft.is_view]
    names = BusinessNames(options.business_events, Noticed())
    for event in span.events:
        at = event.timestamp or span.start_time or span.end_time or 0
        found = next(
            (each for each in left if each.draft.nanos == at and _is_of(each.draft, event, names)), None
        )
        if found is None:
            yield Explained(event.name, reason=_no_engagement(event, options.business_events))
            continue
        left.remove(found)
        yield _of_made(event.name, found.event, sources)


def _is_of(draft: Draft, event: Event, names: BusinessNames) -> bool:
    known = names.known(event.name)
    return draft.name == (known.name if known else event.name) or semconv.METRIC_TYPE[0] in attributes_of(
        event
    )


def _no_view(span: DecodedSpan) -> str:
    if span.kind is not SpanKind.SERVER:
        return REASONS[NO_SERVER].format(kind=span.kind.name.lower())
    return REASONS[why_no_view(span)]


def _no_engagement(event: Event, business_events: Mapping[str, BusinessEvent]) -> str:
    names = BusinessNames(business_events, Noticed())
    if names.known(event.name) or semconv.METRIC_TYPE[0] in attributes_of(event):
        return REASONS[TWICE]
    return names.why_not(event.name)


def _of_made(what: str, event: Any, sources: Mapping[tuple[str, str], Sequence[str]]) -> Explained:
    if isinstance(event, NotMade):
        return Explained(what, reason=REASONS[event.reason])
    fields = _fields(event)
    return Explained(
        what,
        [
            Field(
                name,
                value,
                ", ".join(sources.get((event.event_id, name), ())) or _other_source(event.kind, name),
            )
            for name, value in fields.items()
        ],
    )


def _other_source(kind: Kind, name: str) -> str:
    if kind is Kind.ENGAGEMENT and name == "metadata.timestamp":
        return "the event's time"
    return _OF_THE_SPAN.get(name) or _WITHOUT_ATTRIBUTE.get(name) or "derived"


def _fields(event: Any) -> dict[str, Any]:
    body = event.body()
    metadata = body.pop("metadata")
    return {**body, **{f"metadata.{name}": value for name, value in metadata.items()}}


# Where a field comes from


class _Owner(NamedTuple):
    """Whose attributes are taken away: a span's, one of its events', its resource's."""

    span: int
    event: int | None = None
    resource: bool = False


def _sources(trace: Sequence[DecodedSpan], options: MappingOptions) -> dict[tuple[str, str], list[str]]:
    """Return the attributes that each field of each event of a trace comes from."""
    telling = [at for at, span in enumerate(trace) if span.kind is SpanKind.SERVER or not tells_nothing(span)]
    if len(telling) > _MOST_TELLING:
        return {}
    whole = _all_fields(trace, options)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for owner in (owner for at in telling for owner in _owners(at, trace[at])):
        attributes = _attributes(trace, owner)
        for keys in _groups(attributes, is_resource=owner.resource):
            _find(trace, options, owner, keys, whole, found)
    return found


def _find(
    trace: Sequence[DecodedSpan],
    options: MappingOptions,
    owner: _Owner,
    keys: Sequence[str],
    whole: Mapping[str, Mapping[str, Any]],
    found: dict[tuple[str, str], list[str]],
) -> None:
    """Note which fields change without what these keys say, and the first of them that says it alone."""
    attributes = _attributes(trace, owner)
    # Taken away, a route may be found in the span's name as well: changed, it tells that it is read first.
    others = [
        _all_fields(_with(trace, owner, less), options)
        for less in (_less(attributes, keys), _altered(attributes, keys))
    ]
    changed = [
        (event_id, name)
        for event_id, fields in whole.items()
        for name, value in fields.items()
        if name not in _OF_THE_SPAN
        and any(event_id in other and other[event_id].get(name) != value for other in others)
    ]
    for key in keys if changed else ():
        alone = _all_fields(_with(trace, owner, _less(attributes, set(keys) - {key})), options)
        told = [each for each in changed if alone.get(each[0], {}).get(each[1]) == whole[each[0]][each[1]]]
        changed = [each for each in changed if each not in told]
        for each in told:
            found[each].append(_spelt(trace, owner, key, each[0], whole))


def _spelt(
    trace: Sequence[DecodedSpan],
    owner: _Owner,
    key: str,
    event_id: str,
    whole: Mapping[str, Mapping[str, Any]],
) -> str:
    span = trace[owner.span]
    if owner.resource:
        return f"{key} of the resource"
    if owner.event is not None:
        return f"{key} of the event"
    is_own = whole[event_id].get("metadata.spanId") == f"{span.context.span_id:016x}"
    return key if is_own else f"{key} of span {span.name}"


def _owners(at: int, span: DecodedSpan) -> Iterator[_Owner]:
    yield _Owner(at)
    yield from (_Owner(at, event) for event in range(len(span.events)))
    yield _Owner(at, resource=True)


def _attributes(trace: Sequence[DecodedSpan], owner: _Owner) -> Mapping[str, Any]:
    span = trace[owner.span]
    if owner.resource:
        return dict(span.resource.attributes)
    return attributes_of(span if owner.event is None else span.events[owner.event])


def _groups(attributes: Mapping[str, Any], *, is_resource: bool) -> Iterator[Sequence[str]]:
    """Yield the keys that are there, those that name the same thing together."""
    left = dict.fromkeys(semconv.SERVICE_NAME if is_resource else attributes)
    for family in _FAMILIES:
        here = [key for key in family if key in left and key in attributes]
        if here:
            yield here
        for key in here:
            del left[key]
    yield from ([key] for key in left if key in attributes)


def _less(attributes: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in keys}


def _altered(attributes: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {
        key: f"{value}-else" if key in keys and isinstance(value, str) else value
        for key, value in attributes.items()
    }


def _with(trace: Sequence[DecodedSpan], owner: _Owner, attributes: Mapping[str, Any]) -> list[DecodedSpan]:
    span = trace[owner.span]
    if owner.resource:
        changed = span._replace(resource=span.resource._replace(attributes=attributes))
    elif owner.event is None:
        changed = span._replace(attributes=attributes)
    else:
        events = [*span.events]
        events[owner.event] = events[owner.event]._replace(attributes=attributes)
        changed = span._replace(events=events)
    return [*trace[: owner.span], changed, *trace[owner.span + 1 :]]


def _all_fields(trace: Sequence[DecodedSpan], options: MappingOptions) -> dict[str, dict[str, Any]]:
    made = (each.event for each in _made(trace, SpanMapper(options, trace_of=REQUEST)))
    return {event.event_id: _fields(event) for event in made if not isinstance(event, NotMade)}


# As text, and as JSON


def _lines(explained: Sequence[ExplainedSpan]) -> Iterator[str]:
    for span, events in explained:
        context = span.context
        yield f"{span.kind.name} {span.name}  (span {context.span_id:016x}, trace {context.trace_id:032x})"
        for what, fields, reason in events:
            yield f"  {what}" + (f": none - {reason}" if reason else "")
            yield from _columns(fields)
    count = sum(bool(event.fields) for each in explained for event in each.events)
    yield f"{len(explained):,} spans, {count:,} events"


def _columns(fields: Sequence[Field]) -> Iterator[str]:
    rows = [
        (name, json.dumps(value, ensure_ascii=False, default=str)[:_LONGEST_VALUE], source)
        for name, value, source in fields
    ]
    widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
    for name, value, source in rows:
        yield f"    {name:<{widths[0]}}  {value:<{widths[1]}}  {source}"


def _as_json(explained: Sequence[ExplainedSpan]) -> str:
    return json.dumps([_span_as_json(*each) for each in explained], ensure_ascii=False, default=str)


def _span_as_json(span: DecodedSpan, events: Sequence[Explained]) -> dict[str, Any]:
    return {
        "traceId": f"{span.context.trace_id:032x}",
        "spanId": f"{span.context.span_id:016x}",
        "name": span.name,
        "kind": span.kind.name,
        "events": [_event_as_json(each) for each in events],
    }


def _event_as_json(event: Explained) -> dict[str, Any]:
    if event.reason:
        return {"what": event.what, "reason": event.reason}
    return {"what": event.what, "fields": [each._asdict() for each in event.fields]}
