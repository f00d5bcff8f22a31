"""What every server of a bridge asks before it answers: who sends, is there room, and are the events safe.

One event loop has all of it. A request is answered once its events are accepted, so those that wait in the
join for their server span hold their request's answer; how many are held, and how large they are, is bounded.

A sender that has one request at a time, as SDKs' own exporters do, would hold back that very span until the
answer comes. It can be answered earlier, see `Limits.answer_seconds`.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from otel_analytics.bridge.intake import Intake, NoRoomError, Receipt, Signal
from otel_analytics.bridge.otlp import Encoding
from otel_analytics.client import AnalyticsClient
from otel_analytics.errors import AnalyticsError
from otel_analytics.events import EncodedEvent

_TICK_SECONDS: Final = 0.02
_BEARER: Final = "bearer "


class UnknownSenderError(AnalyticsError):
    """A request without the bridge's token, or with another one."""


@dataclass(frozen=True)
class Limits:
    """What a bridge takes at most.

    Args:
        body_bytes: Largest request, before and after decompression.
        held: Most requests at a time that wait for their answer.
        held_bytes: Most bytes of such requests, as they were sent.
        connections: Most HTTP connections at a time.
        request_seconds: Longest time in seconds that a request takes to come, or its answer to be read.
        answer_seconds: Longest time in seconds that an answer waits for events in the join, which are lost if
            the process is killed after it; `None`: until they are accepted.
        grace_seconds: Longest time in seconds, at the end, in which events still wait for their server spans.
    """

    body_bytes: int = 16 * 2**20
    held: int = 256
    held_bytes: int = 256 * 2**20
    connections: int = 512
    request_seconds: float = 30.0
    answer_seconds: float | None = None
    grace_seconds: float = 2.0


class Reception:
    """Takes requests for a client, and says when they may be answered.

    Args:
        client: Delivers.
        token: What a sender must show; `None` asks for none.
        limits: What is taken at most.
    """

    def __init__(self, client: AnalyticsClient, token: str | None, limits: Limits) -> None:
        self.limits = limits
        self.largest_queue = client.config.max_queue_size
        self.longest_wait = client.config.identity_wait_millis / 1000
        self._intake = Intake(client)
        self._token = None if token is None else token.encode()
        self._held = self._held_bytes = 0
        self._open: dict[Receipt, asyncio.Future[None]] = {}
        self._answered: Receipt | None = None
        self._looking: asyncio.Task[None] | None = None
        self._is_ending = self._is_closed = False

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    @property
    def state(self) -> str:
        """``"ok"`` while it takes requests, and else what is the matter."""
        if self._is_ending:
            return "ending"
        return "ok" if self._held < self.limits.held and self._intake.has_room() else "full"

    def admit(self, authorization: str, key: str = "") -> None:
        """Look at what a sender shows.

        Args:
            authorization: The header of that name, ``Bearer <token>``.
            key: The token alone, as the contract's clients send it.

        Raises:
            UnknownSenderError: Neither is the token.
        """
        if self._token is None:
            return
        if authorization[: len(_BEARER)].lower() == _BEARER:
            key = authorization[len(_BEARER) :].strip()
        if not hmac.compare_digest(key.encode(errors="replace"), self._token):
            raise UnknownSenderError("the token is missing or not this bridge's")

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count bytes of a request from when they have come until it is answered.

        Raises:
            NoRoomError: Too many are here already.
        """
        if self._held_bytes + size > self.limits.held_bytes:
            raise NoRoomError("too many bytes wait for their answers")
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def take(self, body: bytes, signal: Signal, encoding: Encoding) -> int:
        """Take OTLP, and wait until its events are accepted.

        Args:
            body: As `Intake.take` has it.
            signal: The same.
            encoding: The same.

        Returns:
            How many spans were rejected.

        Raises:
            OtlpError: It is none.
            NoRoomError: There is no room for it now; nothing was taken.
        """
        self._make_sure_of_a_place()
        receipt = self._intake.take(body, signal, encoding)
        if not receipt.is_accepted():
            await self._accepted(receipt)
        return receipt.rejected

    def relay(self, events: Sequence[EncodedEvent]) -> None:
        """Take events; they are accepted when it returns.

        Raises:
            NoRoomError: There is no room for them now; none was taken.
        """
        self._make_sure_of_a_place()
        self._intake.submit(events)

    async def end(self) -> None:
        """Take no more, after a while in which the server spans of what is held may still come."""
        self._is_ending = True
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=self.limits.grace_seconds)
        self._is_closed = True
        self._intake.drain()
        if self._looking is not None:
            await self._looking

    def _make_sure_of_a_place(self) -> None:
        if self._is_closed:
            raise NoRoomError("the bridge is ending")
        if self._held >= self.limits.held:
            raise NoRoomError("too many requests wait for their answers")

    async def _accepted(self, receipt: Receipt) -> None:
        accepted = self._open[receipt] = asyncio.get_running_loop().create_future()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        self._held += 1
        try:
            await asyncio.wait([accepted], timeout=self.limits.answer_seconds)
        finally:  # its sender may have gone
            self._held -= 1
        if self._open.pop(receipt, None):
            self._answered = receipt  # the last one's events are the last to be due

    async def _look(self) -> None:
        """Ask the receipts again and again, which is also what lets go of events in time."""
        while self._open or not (self._answered is None or self._answered.is_accepted()):
            await asyncio.sleep(_TICK_SECONDS)
            for receipt in [each for each in self._open if each.is_accepted()]:
                self._open.pop(receipt).set_result(None)
