"""Names that are derived, never drawn: the same span gives the same ids after a retry, a crash, a replay.

Event ids are name-based UUIDs (RFC 9562, version 5) in `NAMESPACE`, of these names:

* an API call: ``view/<trace id>/<span id>``
* a span event: ``engagement/<trace id>/<span id>/<nanoseconds>/<ordinal>/<event name>``, where the ordinal
  counts events of the same name and time on that span from 0.

Trace and span ids are lower-case hex; so anybody can recompute an id, e.g. with `uuid.uuid5`.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final
from uuid import UUID

NAMESPACE: Final = UUID("6f6da1c4-2cc5-5b0a-9c1f-4b7f0d3a6e52")
"""The namespace of all event ids; changing it would make every event new."""

_NAMESPACE_BYTES = NAMESPACE.bytes
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_NANOS_PER_MILLI = 1_000_000


def view_id(trace_id: str, span_id: str) -> str:
    """Return the event id of the API call that a span describes."""
    return _uuid5(f"view/{trace_id}/{span_id}")


def engagement_id(trace_id: str, span_id: str, name: str, nanos: int, ordinal: int) -> str:
    """Return the event id of a span event.

    Args:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        name: The event's name.
        nanos: The event's time, nanoseconds since the epoch.
        ordinal: How many events of this name and time came before it on its span.
    """
    return _uuid5(f"engagement/{trace_id}/{span_id}/{nanos}/{ordinal}/{name}")


def session_id(start_nanos: int, trace_id: str) -> str:
    """Return ``backend-<unix ms>-<13 characters>``, the contract's form, from the trace instead of dice.

    The last digits of a trace id are its random ones (W3C Trace Context, level 2).
    """
    return f"backend-{start_nanos // _NANOS_PER_MILLI}-{trace_id[-13:]}"


def anonymous_id(session: str, trace_id: str) -> str:
    """Return who somebody is whom nobody knows: the same for all events of a session, or of a request.

    Args:
        session: The session where one is named; its digest stands for it.
        trace_id: 32 hex digits.
    """
    if not session:
        return f"anonymous-{trace_id[-13:]}"
    return f"anonymous-{_digest(session)}"


def hidden_id(text: str) -> str:
    """Return what stands for an id that must not be told: the same for the same, another for another."""
    return f"hidden-{_digest(text)}"


def _digest(text: str) -> str:
    return sha1(text.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()[:13]


def _uuid5(name: str) -> str:
    # Three times as fast as `str(uuid.uuid5(...))`. A lone surrogate is no UTF-8 and still a name.
    raw = _NAMESPACE_BYTES + name.encode(errors="surrogatepass")
    digits = sha1(raw, usedforsecurity=False).hexdigest()
    return (
        f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
    )
