"""The application's own functions: `before_send` and `on_drop`, never on the thread that tracks.

`before_send` decides about every event once, just before its first request; where it raises, the event is
dropped: whoever filters personal data wants nothing sent that the filter has not seen. `on_drop` hears of
every loss on a thread of its own, so that a slow one holds up nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from otel_analytics.delivery.batch import Batch, Entry
from otel_analytics.delivery.logs import Reporter
from otel_analytics.delivery.queue.ledger import DropReason
from otel_analytics.errors import EventError
from otel_analytics.events import EncodedEvent, Event, decode, encode

BeforeSend = Callable[[Event], Event | None]
OnDrop = Callable[[str, Sequence[Event]], object]

_MOST_WAITING = 10_000  # events
_RAISED = (Exception, SystemExit)  # what a function of somebody else's may raise on a thread of ours


class Approval:
    """Applies `before_send`.

    Args:
        before_send: The function; `None` approves everything.
        view_metadata: Whether views keep their metadata on the wire.
        reporter: Tells the operator of a function that raises.
    """

    def __init__(self, before_send: BeforeSend | None, *, view_metadata: bool, reporter: Reporter) -> None:
        self._before_send = before_send
        self._view_metadata = view_metadata
        self._reporter = reporter

    def of(self, batch: Batch) -> tuple[Batch, tuple[tuple[Entry, DropReason], ...]]:
        """Return what of a batch may be sent, and what may not."""
        if self._before_send is None:
            return batch, ()
        approved: list[Entry] = []
        refused: list[tuple[Entry, DropReason]] = []
        for entry in batch.entries:
            event = entry.event if entry.is_approved else self._decide(entry.event, self._before_send)
            if event is None:
                refused.append((entry, DropReason.BEFORE_SEND))
            else:
                approved.append(entry._replace(event=event, is_approved=True))
        return replace(batch, entries=tuple(approved)), tuple(refused)

    def _decide(self, encoded: EncodedEvent, before_send: BeforeSend) -> EncodedEvent | None:
        try:
            event = before_send(decode(encoded))
            if event is None:
                return None
            if event.kind is not encoded.kind:
                raise EventError("before_send must return an event of the same kind")
            # The id stays: it is what makes a repeated delivery count once.
            return encode(replace(event, event_id=encoded.event_id), view_metadata=self._view_metadata)
        except _RAISED as error:
            self._reporter.tell(
                "before_send_failed", 1, f"before_send raised {type(error).__name__}; the event is dropped"
            )
            return None


class DropNotices:
    """Calls `on_drop` on a thread of its own, started with the first loss.

    Losses for one reason that wait together become one call; how many wait for a slow function is bounded.

    Args:
        on_drop: The function; `None` makes every notice nothing.
        reporter: Tells the operator of a function that raises, or is too slow.
    """

    def __init__(self, on_drop: OnDrop | None, reporter: Reporter) -> None:
        self._on_drop = on_drop
        self._reporter = reporter
        self._waiting: deque[tuple[str, EncodedEvent]] = deque(maxlen=_MOST_WAITING)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._calls = 0

    def add(self, reason: DropReason, events: Sequence[EncodedEvent]) -> None:
        """Tell of dropped events, without waiting."""
        if self._on_drop is None or not events:
            return
        with self._changed:
            missed = max(len(self._waiting) + len(events) - _MOST_WAITING, 0)
            self._waiting.extend((reason.value, event) for event in events)
            self._changed.notify_all()
        if missed:
            self._reporter.tell("on_drop_slow", missed, "on_drop is too slow to hear of every dropped event")
        self._start()

    def drain(self, seconds: float) -> None:
        """Wait until everything told so far was heard, at most ``seconds``."""
        if self._on_drop is None or not (self._waiting or self._calls):
            return
        if not self._start():
            self._call_all(self._on_drop)
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._calls, max(seconds, 0.0))

    def forget(self) -> None:
        """In a forked child: what was told is the parent's to hear."""
        self._waiting.clear()

    def _start(self) -> bool:
        """Start the thread; false where the interpreter starts none any more."""
        with self._changed:
            if self._thread is None and self._on_drop is not None:
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
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
            self._call_all(on_drop)

    def _call_all(self, on_drop: OnDrop) -> None:
        while (notice := self._next()) is not None:
            try:
                self._call(on_drop, *notice)
            finally:
                with self._changed:
                    self._calls -= 1
                    self._changed.notify_all()

    def _next(self) -> tuple[str, list[EncodedEvent]] | None:
        with self._changed:
            if not self._waiting:
                return None
            self._calls += 1
            reason = self._waiting[0][0]
            events = []
            while self._waiting and self._waiting[0][0] == reason:
                events.append(self._waiting.popleft()[1])
        return reason, events

    def _call(self, on_drop: OnDrop, reason: str, encoded: Sequence[EncodedEvent]) -> None:
        try:
            events = [decode(event) for event in encoded]
            on_drop(reason, events)
        except _RAISED as error:
            self._reporter.tell("on_drop_failed", len(encoded), f"on_drop raised {type(error).__name__}")
