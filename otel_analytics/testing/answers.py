"""What a collector may answer, all of it good HTTP. Each behaviour says whether it stores the events.

A behaviour is a callable that takes an `Exchange`, so a test can bring its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_analytics.testing.exchange import Exchange

Which = Collection[int] | Callable[[Any], bool]
"""Events of a request: their indices, or a predicate of an event's decoded body."""


@dataclass(frozen=True)
class Accept:
    """Store and acknowledge: a collector that is well.

    Args:
        status: Any 2xx.
        after_millis: How long it takes to answer.
    """

    status: int = 200
    after_millis: float = 0

    def __call__(self, exchange: Exchange) -> None:
        """Store, then answer."""
        exchange.store()
        if self.after_millis:
            exchange.wait(self.after_millis)
        exchange.acknowledge(status=self.status)


@dataclass(frozen=True)
class Answer:
    """Answer just this; stores where the status is 2xx.

    Args:
        status: The status.
        body: As it is sent.
        headers: Beside ``Content-Type`` and ``Content-Length``, or in their place.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        if self.status // 100 == 2:  # noqa: PLR2004 - the class of success (RFC 9110, section 15)
            exchange.store()
        exchange.answer(self.status, self.body, self.headers)


@dataclass(frozen=True)
class AcceptPartly:
    """Store and acknowledge all but some events of a batch; a lone event of those is answered 400 or 503.

    Args:
        rejected: Those that are invalid.
        retry: Those that are wanted again.
    """

    rejected: Which = ()
    retry: Which = ()

    def __call__(self, exchange: Exchange) -> None:
        """Store the others and answer 200."""
        failures = self._failures(exchange.request.events)
        exchange.store(lambda index: index not in failures)
        if failures and not exchange.request.is_batch:
            exchange.answer(400 if failures[0] == "rejected" else 503)
            return
        listed = [{"index": index, "status": s, "reason": "test"} for index, s in failures.items()]
        exchange.acknowledge(listed)

    def _failures(self, events: list[Any]) -> dict[int, str]:
        statuses = {"rejected": self.rejected, "retry": self.retry}
        return {
            index: status
            for index, event in enumerate(events)
            for status, which in statuses.items()
            if _is_among(which, index, event)
        }


@dataclass(frozen=True)
class Poison:
    """Fail whole requests that hold a certain event, store and acknowledge all others.

    Args:
        is_poison: Tells such an event from its decoded body.
        status: The answer; `None` resets the connection instead.
    """

    is_poison: Callable[[Any], bool]
    status: int | None = 400

    def __call__(self, exchange: Exchange) -> None:
        """Look for the poison."""
        if not any(map(self.is_poison, exchange.request.events)):
            Accept()(exchange)
        elif self.status is None:
            exchange.reset()
        else:
            exchange.answer(self.status)


@dataclass(frozen=True)
class TooLarge:
    """Answer 413 to what is above a limit; store and acknowledge all else.

    Args:
        above_events: Most events of a request.
        above_bytes: Most bytes of its decompressed body.
    """

    above_events: float = float("inf")
    above_bytes: float = float("inf")

    def __call__(self, exchange: Exchange) -> None:
        """Measure."""
        request = exchange.request
        if len(request.events) > self.above_events or len(request.body) > self.above_bytes:
            exchange.answer(413)
        else:
            Accept()(exchange)


@dataclass(frozen=True)
class Unavailable:
    """Ask for patience; stores nothing.

    Args:
        status: 503, 429, ...
        retry_after: The header's value: seconds, an HTTP date, or anything.
    """

    status: int = 503
    retry_after: float | str | None = None

    def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        exchange.answer(self.status, b"{}", headers)


@dataclass(frozen=True)
class Redirect:
    """Point somewhere else; stores nothing.

    Args:
        to: Another collector's URL; the request's path is added.
        status: Any 3xx.
    """

    to: str
    status: int = 307

    def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        exchange.answer(self.status, b"", {"Location": self.to + exchange.request.path})


def _is_among(which: Which, index: int, event: Any) -> bool:
    return which(event) if callable(which) else index in which
