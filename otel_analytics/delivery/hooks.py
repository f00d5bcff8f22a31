"""The application's own functions: `before_send` and `on_drop`.

`before_send` decides about every event once, before it is encoded, so what it takes out never reaches the
queue, a disk or another process; where it raises, the event is dropped: whoever filters personal data wants
nothing sent that the filter has not seen. `on_drop` hears of every loss on a thread of its own, so a slow one
holds up nothing.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_analytics.delivery.logs import RateLimitedLog
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.errors import FOREIGN_ERRORS, EventError
from otel_analytics.events import EncodedEvent, Event, decode

if TYPE_CHECKING:
    from typing_extensions import Self

BeforeSend = Callable[[Event], Event | None]
OnDrop = Callable[["StatedReason", Sequence[Event]], object]

_MOST_WAITING = 10_000  # events
_IDLE_SECONDS = 1.0


def approve(event: Event, before_send: BeforeSend, log: RateLimitedLog) -> Event | None:
    """Return what `before_send` makes of an event; `None`: it is not to be sent."""
    try:
        approved = before_send(event)
        if approved is None:
            return None
        if approved.kind is not event.kind:
            raise EventError("before_send must return an event of the same kind")
        # The id stays: it is what makes a repeated delivery count once.
        return replace(approved, event_id=event.event_id)
    except FOREIGN_ERRORS as error:
        log.tell("before_send_failed", 1, f"before_send raised {type(error).__name__}; the event is dropped")
        return None


class StatedReason(str):
    """Why events were dropped: a word of `DropReason`, which may have words of the collector beside it.

    Args:
        word: Its value as text.
        stated: What the collector said of it, an attribute of the same name; empty: nothing.
    """

    __slots__ = ("stated",)
    stated: str

    def __new__(cls, word: str, stated: str = "") -> Self:
        """Hold both."""
        reason = super().__new__(cls, word)
        reason.stated = stated
        return reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, {self.stated!r})"


class DropNotices:
    """Calls `on_drop` on a thread of its own, started with a loss, and ended where none came for a second.

    Losses for one reason that wait together become one call; how many wait for a slow function is bounded.

    Args:
        on_drop: The function; `None` makes every notice nothing.
        log: Hears of a function that raises, or is too slow.
    """

    def __init__(self, on_drop: OnDrop | None, log: RateLimitedLog) -> None:
        self._on_drop = on_drop
        self._log = log
        self._waiting: deque[tuple[str, str, EncodedEvent]] = deque(maxlen=_MOST_WAITING)
        self._wake: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # its `put` is atomic, whatever interrupts it
        self._lock = threading.Lock()
        self._heard = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._calls = 0

    def add(self, reason: DropReason, events: Sequence[EncodedEvent], stated: str = "") -> None:
        """Tell of dropped events, and of what the collector said, without waiting.

        May be called under a lock.
        """
        if self._on_drop is None or not events:
            return
        with self._lock:
            missed = max(len(self._waiting) + len(events) - _MOST_WAITING, 0)
            self._waiting.extend((reason.value, stated, event) for event in events)
        if missed:
            self._log.defer("on_drop_slow", missed, "on_drop is too slow to hear of every dropped event")
        self._start()
        self._wake.put(None)

    def drain(self, seconds: float) -> None:
        """Wait until everything told so far was heard, at most ``seconds``."""
        if self._on_drop is None or not (self._waiting or self._calls):
            return
        if not self._start():
            self._call_all(self._on_drop)
        with self._heard:
            self._heard.wait_for(lambda: not self._waiting and not self._calls, max(seconds, 0.0))

    def forget(self) -> None:
        """In a forked child: what was told is the parent's to hear."""
        self._waiting.clear()

    def _start(self) -> bool:
        """Start the thread; false where the interpreter starts none any more."""
        with self._lock:
            if self._on_drop is None or self._thread is not None:
                return True
            thread = threading.Thread(
                target=self._run, args=(self._on_drop,), name="otel-analytics-hooks", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _run(self, on_drop: OnDrop) -> None:
        try:
            while not self._is_idle():
                self._call_all(on_drop)
        except BaseException:  # what stops a thread: a later loss starts another
            self._thread = None
            raise

    def _is_idle(self) -> bool:
        """Wait for something to tell; where nothing comes the thread ends."""
        with suppress(queue.Empty):
            self._wake.get(timeout=_IDLE_SECONDS)
            return False
        with self._lock:
            if self._waiting:
                return False
            self._thread = None  # under the lock: whoever adds after this starts another
        return True

    def _call_all(self, on_drop: OnDrop) -> None:
        while (notice := self._next()) is not None:
            try:
                self._call(on_drop, *notice)
            finally:
                with self._heard:
                    self._calls -= 1
                    self._heard.notify_all()

    def _next(self) -> tuple[StatedReason, list[EncodedEvent]] | None:
        with self._lock:
            if not self._waiting:
                return None
            self._calls += 1
            reason = self._waiting[0][:2]
            events = []
            while self._waiting and self._waiting[0][:2] == reason:
                events.append(self._waiting.popleft()[2])
        return StatedReason(*reason), events

    def _call(self, on_drop: OnDrop, reason: StatedReason, encoded: Sequence[EncodedEvent]) -> None:
        try:
            events = [decode(event) for event in encoded]
            on_drop(reason, events)
        except FOREIGN_ERRORS as error:
            self._log.tell("on_drop_failed", len(encoded), f"on_drop raised {type(error).__name__}")
