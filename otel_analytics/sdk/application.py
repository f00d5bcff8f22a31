"""What application code calls: `identify` and `track`, from anywhere, without a client in hand.

Neither raises, waits, or needs to know how analytics is set up.
"""

from __future__ import annotations

import os
import time
from typing import Any

from opentelemetry.trace import Span, get_current_span

from otel_analytics import process
from otel_analytics.encoding import field_text
from otel_analytics.mapping import semconv
from otel_analytics.mapping.engagements import Occurrence, occurrence_at
from otel_analytics.sdk.intake import SpanIntake


def identify(user_id: object, *, session_id: object = None) -> None:
    """Say who makes the current request.

    Sets `user.id` and `session.id` on the request's server span, from anywhere inside the request: a
    dependency, a thread or task with a copied context, below any other span. Where no processor of this
    package sees the server span, the current span gets them, and the request is joined to it. Outside of a
    span, or once it has ended, nothing happens.

    Args:
        user_id: Who; anything but text is said as text. `None` or an empty text leaves it as it is.
        session_id: In which visit; the same.
    """
    span = _request_span()
    if not span.is_recording():
        context = span.get_span_context()
        if context.is_valid and not context.trace_flags.sampled:
            for intake in process.residents(SpanIntake):
                intake.note_sampled_out()
        return
    for key, value in ((semconv.USER_ID[0], user_id), (semconv.SESSION_ID[0], session_id)):
        text = field_text(value)
        if text:
            span.set_attribute(key, text)


def track(name: str, /, **attributes: Any) -> None:
    """Record a business event: on the current span while it is recorded, directly where it is not.

    In a background task after the response, on a span that tracing does not record, in a cron job without any
    span: the event arrives, with the user of its request where there is one. ::

        track("payment_processed", order_id=order.id, amount=12.5)

    Args:
        name: The event's name, one of the option ``business_events`` or of the built-in five; any other
            needs an attribute ``analytics.metric_type``. Without one it is counted and named in the log.
        **attributes: About it. `target_id`, `target_type` and `user_id` are read as `target.id`,
            `target.type` and `user.id` are; others are its metadata.
    """
    name = field_text(name)  # anything may be given, and its `__str__` may raise
    span = get_current_span()
    intakes = _intakes()
    seeing = [intake for intake in intakes if intake.will_see(span)]
    if seeing:
        span.add_event(name, attributes)
        for intake in seeing:
            intake.look_at(name, attributes)
        return
    occurrence = _occurrence(name, span, attributes)
    for intake in intakes:
        intake.tell(occurrence)


def _request_span() -> Span:
    span = get_current_span()
    found = (intake.server_span(span.get_span_context()) for intake in process.residents(SpanIntake))
    return next((server for server in found if server is not None), span)


_kept: list[SpanIntake] = []
"""Without an adapter nobody else holds it."""


def _intakes() -> list[SpanIntake]:
    """Return the intakes of this process; without any, that of the environment's options."""
    known: list[SpanIntake] = process.residents(SpanIntake)
    if known:
        # Where all are shut down, they count what is lost.
        return [each for each in known if not each.client.is_closed] or known
    # Imported late: most programs have an intake, and never need what sets one up.
    from otel_analytics.sdk.autoconfigure import environment_client  # noqa: PLC0415
    from otel_analytics.sdk.intake import intake_of  # noqa: PLC0415

    client = environment_client()
    _kept[:] = [] if client is None else [intake_of(client)]
    return list(_kept)


def _occurrence(name: str, span: Span, attributes: dict[str, Any]) -> Occurrence:
    context = span.get_span_context()
    ids = (context.trace_id, context.span_id) if context.is_valid else (0, 0)
    happened = occurrence_at(name, time.time_ns(), attributes, *ids)
    # Nothing else will ever make this event again, so its id need not be found again.
    digits = os.urandom(16).hex()
    event_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    return happened._replace(event_id=event_id)
