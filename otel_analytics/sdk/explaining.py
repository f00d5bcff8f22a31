"""What `debug` says of spans: of each that could have given an event, what it gave, or why nothing.

Names without ids, and the words of `mapping.reasons`; no attribute of a span, and nobody's name. Without
`debug` nothing of this is ever called.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.trace import SpanKind

from otel_analytics.contract import Kind
from otel_analytics.delivery.logs import log_safely
from otel_analytics.errors import FOREIGN_ERRORS
from otel_analytics.events import EncodedEvent
from otel_analytics.mapping import semconv
from otel_analytics.mapping.business import BusinessNames
from otel_analytics.mapping.identity import Draft, EndedSpan, Request
from otel_analytics.mapping.privacy import name_without_ids
from otel_analytics.mapping.protocol import Span
from otel_analytics.mapping.reading import NotMade
from otel_analytics.mapping.reasons import REASONS, SECOND, TWICE
from otel_analytics.mapping.spans import why_no_view
from otel_analytics.mapping.values import as_text, attributes_of, first_text

_LONGEST_NAME: Final = 128
_VIEW: Final = "view"


@dataclass(frozen=True)
class _Told:
    """Makes a draft's event, and tells what came of it."""

    of: str
    what: str
    make: Callable[[Request], Any]

    def __call__(self, request: Request) -> Any:
        made = self.make(request)
        with suppress(*FOREIGN_ERRORS):  # an event is not lost for a line
            _tell(self.of, self.what, _outcome(made))
        return made


def tell_view(span: Span, view: Any) -> None:
    """Tell which view a span gave, or why none."""
    with suppress(*FOREIGN_ERRORS):
        _tell(_shown(span), _VIEW, _outcome(view))


def told(draft: Draft, of: str) -> Draft:
    """Return a draft that tells what becomes of it when it is made.

    Args:
        draft: Of an event.
        of: What it is of.
    """
    what = _VIEW if draft.is_view else _bounded(draft.name)
    return draft._replace(make=_Told(of, what, draft.make))


def told_span(span: Span, ended: EndedSpan, business: BusinessNames) -> EndedSpan:
    """Tell what a span does not give, and have it told what it does.

    Args:
        span: An ended span.
        ended: What was read of it.
        business: Which of its events count.
    """
    try:
        shown = _shown(span)
        _tell_nothings(span, shown, ended, business)
    except FOREIGN_ERRORS:
        return ended
    return ended._replace(drafts=[told(draft, shown) for draft in ended.drafts])


def _tell_nothings(span: Span, shown: str, ended: EndedSpan, business: BusinessNames) -> None:
    if span.kind is SpanKind.SERVER and not any(draft.is_view for draft in ended.drafts):
        _tell(shown, _VIEW, _none(REASONS[why_no_view(span)]))
    for event in span.events:
        name = as_text(event.name)
        counts_by_itself = first_text(attributes_of(event), semconv.METRIC_TYPE)
        if not (counts_by_itself or business.is_expected(name)):
            _tell(shown, _bounded(name), _none(business.why_not(name)))


def tell_left_out(draft: Draft) -> None:
    """Tell of an event that another one already is."""
    if isinstance(draft.make, _Told):
        _tell(draft.make.of, draft.make.what, _none(REASONS[SECOND if draft.is_view else TWICE]))


def _tell(of: str, what: str, outcome: str) -> None:
    log_safely(logging.DEBUG, "%s: %s: %s", of, what, outcome)


def _outcome(made: Any) -> str:
    """Return what is counted as what."""
    if isinstance(made, NotMade):
        return _none(REASONS.get(made.reason, made.reason))
    body = json.loads(made.body) if isinstance(made, EncodedEvent) else made.body()
    return str(body["contentId" if made.kind is Kind.VIEW else "metricType"])


def _none(reason: str) -> str:
    return f"none - {reason}"


def _shown(span: Span) -> str:
    return f"{span.kind.name.lower()} span {_bounded(as_text(span.name))!r}"


def _bounded(name: str) -> str:
    return name_without_ids(name[:_LONGEST_NAME])
