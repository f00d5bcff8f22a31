"""What a collector, or a network, may do to a connection; each behaviour says whether it stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otel_analytics.testing.answers import Accept
from otel_analytics.testing.exchange import Exchange

_LONG = 60_000
_KILOBYTE = b"x" * 1024


@dataclass(frozen=True)
class Hang:
    """Say nothing for a long time, then close; stores nothing.

    Args:
        before: Before the response, or after its head and before its body.
        millis: For how long.
    """

    before: Literal["response", "body"] = "response"
    millis: float = _LONG

    def __call__(self, exchange: Exchange) -> None:
        """Wait."""
        if self.before == "body":
            exchange.send(exchange.head(200, 2))
        exchange.wait(self.millis)
        exchange.close()


@dataclass(frozen=True)
class SlowDrip:
    """Store, then answer a byte at a time, with each read within any timeout of its own.

    Args:
        part: What drips; the head drips before it is complete, the body after a whole head.
        interval_millis: Between two bytes.
        length: Bytes of the body.
    """

    part: Literal["head", "body"] = "body"
    interval_millis: float = 50
    length: int = 10_000

    def __call__(self, exchange: Exchange) -> None:
        """Drip."""
        exchange.store()
        head, body = exchange.head(200, self.length), b" " * self.length
        if self.part == "body":
            exchange.send(head)
        drops = body if self.part == "body" else head + body
        for drop in drops:
            exchange.send(bytes((drop,)))
            if not exchange.wait(self.interval_millis):
                break


@dataclass(frozen=True)
class ResetAtOnce:
    """Reset the connection without an answer; stores nothing."""

    def __call__(self, exchange: Exchange) -> None:
        """Reset."""
        exchange.reset()


@dataclass(frozen=True)
class ResetMidBody:
    """Reset the connection within the answer's body; stores nothing."""

    def __call__(self, exchange: Exchange) -> None:
        """Answer half of what was announced."""
        exchange.send(exchange.head(200, 2) + b"{")
        exchange.wait(20)  # so that the client has read the half before the reset discards it
        exchange.reset()


@dataclass(frozen=True)
class HalfClose:
    """End the sending side without an answer and keep reading; stores nothing."""

    def __call__(self, exchange: Exchange) -> None:
        """Close one half."""
        exchange.half_close()


@dataclass(frozen=True)
class CloseIdle:
    """Store and acknowledge, then reset the connection while it is idle.

    Args:
        under_request: Reset only as the next request arrives on it, which then is lost unread; the client
            cannot have known.
    """

    under_request: bool = False

    def __call__(self, exchange: Exchange) -> None:
        """Accept, then reset."""
        Accept()(exchange)
        if self.under_request:
            exchange.wait_for_more()
        else:
            exchange.wait(20)  # so that the client has read the answer before the reset discards it
        exchange.reset()


@dataclass(frozen=True)
class LostAcknowledgement:
    """Store, then reset the connection without an answer."""

    def __call__(self, exchange: Exchange) -> None:
        """Store and reset."""
        exchange.store()
        exchange.reset()


@dataclass(frozen=True)
class Garbage:
    """Answer with bytes that are not HTTP; stores nothing.

    Args:
        data: The bytes.
    """

    data: bytes = b"\x16\x03\x01\x00\xa5 this is not HTTP\r\n\r\n"

    def __call__(self, exchange: Exchange) -> None:
        """Send them."""
        exchange.send(self.data)
        exchange.close()


@dataclass(frozen=True)
class Gigantic:
    """Store, then answer with a body that does not end for a long time.

    Args:
        size: Bytes of the body.
        status: The answer's status; stores only where it is 2xx.
    """

    size: int = 50_000_000
    status: int = 200

    def __call__(self, exchange: Exchange) -> None:
        """Send for as long as the client reads."""
        if self.status // 100 == 2:  # noqa: PLR2004 - as in `Answer`
            exchange.store()
        exchange.send(exchange.head(self.status, self.size))
        for _ in range(self.size // len(_KILOBYTE)):
            exchange.send(_KILOBYTE)
        exchange.send(_KILOBYTE[: self.size % len(_KILOBYTE)])
