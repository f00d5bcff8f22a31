"""One request's JSON: checked, stored, acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otel_analytics.collector.records import record
from otel_analytics.collector.refusal import Refusal, Rejection
from otel_analytics.collector.rules import is_text, problems
from otel_analytics.collector.store import Store
from otel_analytics.contract import REJECTED, Advertisement, Failure, Kind, acknowledgement

Acknowledgement = dict[str, Any]
"""See `contract.acknowledgement`."""


@dataclass(frozen=True)
class BatchLimits(Advertisement):
    """The largest array the collector takes, advertised in every response.

    Args:
        max_events: Most events in one array.
        max_bytes: Largest array in bytes, before compression.
        gzip: Whether gzip is advertised; gzip bodies are read either way.
    """

    max_events: int = 512
    max_bytes: int = 1_000_000
    gzip: bool = True

    def check(self, count: int, size: int) -> None:
        """Look at an array.

        Args:
            count: How many events it has.
            size: Its bytes.

        Raises:
            Refusal: 413 beyond the limits.
        """
        if count > self.max_events:
            raise Refusal(413, f"$: must have at most {self.max_events} events")
        if size > self.max_bytes:
            raise Refusal(413, f"$: must be at most {self.max_bytes} bytes")


class Intake:
    """Takes decoded bodies.

    Args:
        store: Where accepted events go.
        batch: The arrays that are taken; `None` takes none.
    """

    def __init__(self, store: Store, batch: BatchLimits | None) -> None:
        self._store = store
        self._batch = batch

    def take(
        self, kind: Kind, body: Any, size: int, idempotency_key: str | None, now_millis: int
    ) -> Acknowledgement:
        """Store what keeps the contract and acknowledge it.

        Args:
            kind: What the URL says the events are.
            body: One event's object, or an array of them.
            size: The body's size in bytes, for the limit of arrays.
            idempotency_key: The request's; a single event's id where its metadata has none.
            now_millis: The time of receipt.

        Raises:
            Rejection: Every complaint about a single event.
            Refusal: 413 for an array beyond the limits, 415 for any where none are taken.
        """
        if isinstance(body, list):
            return self._take_all(kind, body, size, now_millis)
        return self._take_one(kind, body, idempotency_key, now_millis)

    def _take_one(
        self, kind: Kind, body: Any, idempotency_key: str | None, now_millis: int
    ) -> Acknowledgement:
        complaints = problems(kind, body)
        if complaints:
            self._store.add(kind, [], rejected=1)
            raise Rejection(*complaints)
        key = idempotency_key if is_text(idempotency_key) else None
        self._store.add(kind, [record(kind, body, key, now_millis)])
        return acknowledgement(1)

    def _take_all(self, kind: Kind, bodies: list[Any], size: int, now_millis: int) -> Acknowledgement:
        self._check_limits(len(bodies), size)
        records, failures = [], []
        for index, body in enumerate(bodies):
            complaints = problems(kind, body, f"$[{index}]")
            if complaints:
                failures.append(Failure(index, REJECTED, "; ".join(complaints)))
            else:
                records.append(record(kind, body, None, now_millis))
        self._store.add(kind, records, rejected=len(failures))
        return acknowledgement(len(bodies), failures)

    def _check_limits(self, count: int, size: int) -> None:
        if self._batch is None:
            # Not 400: nothing is wrong with the events, and this tells an exporter to send them singly.
            raise Refusal(415, "$: must be one object; this collector takes no arrays")
        self._batch.check(count, size)
