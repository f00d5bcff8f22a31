"""The relay: the contract's two URLs, whose events go on as they came, with the ids they came with.

Applications on the same host send it batches, which are cheap, and it alone pays for a collector that takes
single events.

An event's id is in its metadata. Where it is not, as with other clients, it is the request's
`Idempotency-Key`, or made from it and the event's place, and so the same when the request is sent again.
Without that either, nothing tells two equal events from one that is sent twice: they count as two, as they
would at a collector.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from otel_analytics.bridge.reception import Reception
from otel_analytics.collector.bodies import Item, decoded, parsed_items, read_body
from otel_analytics.collector.intake import BatchLimits
from otel_analytics.collector.refusal import Refusal
from otel_analytics.collector.rules import is_text, problems
from otel_analytics.contract import (
    ADVERTISEMENT,
    EVENT_ID,
    IDEMPOTENCY_KEY,
    REJECTED,
    WRITE_KEY,
    Failure,
    Kind,
    acknowledgement,
)
from otel_analytics.events import EncodedEvent, header_text
from otel_analytics.mapping.ids import NAMESPACE

_MAX_BODY_BYTES: Final = 2_000_000
_LONGEST_ID: Final = 256


class Relay:
    """Takes events at the contract's URLs.

    Args:
        reception: Takes them on.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._batch = BatchLimits(max_events=min(BatchLimits.max_events, reception.largest_queue))
        self.headers: Mapping[str, str] = {ADVERTISEMENT: self._batch.header()}

    async def take(self, kind: Kind, request: Request) -> dict[str, Any]:
        """Take a request's events, and return their acknowledgement: they are accepted.

        Args:
            kind: What the URL says they are.
            request: A view or an engagement, or an array of them.

        Raises:
            Refusal: It breaks the contract, or is too large.
            UnknownSenderError: It does not show the token.
            NoRoomError: There is no room for them now; none was taken.
        """
        headers = request.headers
        self._reception.admit(headers.get("authorization", ""), headers.get(WRITE_KEY, ""))
        sent = await read_body(request, _MAX_BODY_BYTES)
        body = decoded(sent, headers.get("content-encoding", ""), _MAX_BODY_BYTES)
        items, is_array = parsed_items(body)
        if is_array:
            self._batch.check(len(items), len(body))
        return self._take(kind, items, headers.get(IDEMPOTENCY_KEY, ""), is_array=is_array)

    def _take(self, kind: Kind, items: list[Item], key: str, *, is_array: bool) -> dict[str, Any]:
        events, failures = [], []
        for index, item in enumerate(items):
            complaints = problems(kind, item.value, f"$[{index}]" if is_array else "$")
            if not complaints:
                own_key = _key_of_item(key, index) if key and is_array else key
                events.append(EncodedEvent(kind, _event_id(item.value, own_key), item.sent))
            elif is_array:
                failures.append(Failure(index, REJECTED, "; ".join(complaints)))
            else:
                raise Refusal(400, *complaints)
        self._reception.relay(events)
        return acknowledgement(len(items), failures)


def _key_of_item(key: str, index: int) -> str:
    return str(uuid.uuid5(NAMESPACE, f"relayed/{index}/{key}"))


def _event_id(body: Mapping[str, Any], key: str) -> str:
    said = body.get("metadata", {}).get(EVENT_ID)
    event_id = header_text(said if is_text(said) else key or str(uuid.uuid4()))
    # Every server takes so long a one in a header.
    return event_id if len(event_id) <= _LONGEST_ID else str(uuid.uuid5(NAMESPACE, f"long/{event_id}"))
