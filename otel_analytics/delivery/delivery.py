"""One delivery for one process: an queue, its sender, and the end of both.

A fork makes a new one (see `client`): locks, threads and connections do not work in a child.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from otel_analytics.config import Config
from otel_analytics.delivery.hooks import Approval, DropNotices
from otel_analytics.delivery.http.negotiation import Negotiation
from otel_analytics.delivery.http.transport import Transport
from otel_analytics.delivery.logs import Reporter
from otel_analytics.delivery.queue.ledger import DropReason, LedgerSnapshot
from otel_analytics.delivery.queue.memory import MemoryQueue, Queue
from otel_analytics.delivery.sender import Sender, Surroundings
from otel_analytics.delivery.spool.schema import check_writable, is_damage
from otel_analytics.delivery.spool.spool import Spool, SpoolLimits
from otel_analytics.errors import ConfigError
from otel_analytics.events import EncodedEvent


class Delivery:
    """Takes encoded events and brings them to the collector.

    Args:
        config: The options.
        surroundings: Clock, dice, policy; real ones by default.
    """

    def __init__(self, config: Config, surroundings: Surroundings | None = None) -> None:
        around = surroundings or Surroundings()
        self._clock = around.clock
        self._exit_seconds = config.shutdown_timeout_millis / 1000
        self._exit_deadline: float | None = None
        self._closed = False
        self._noted: Counter[str] = Counter()
        self._noting = threading.Lock()
        self._ended = False
        self._reporter = Reporter(around.clock)
        self._notices = DropNotices(config.on_drop, self._reporter)
        self._queue = _queue(config, around, self._reporter, self._notices)
        self._sender = Sender(
            self._queue,
            Negotiation(config),
            lambda: Transport(config.endpoint, config.write_key, around.clock),
            self._reporter,
            Approval(config.before_send, view_metadata=config.view_metadata, reporter=self._reporter),
            self._notices,
            timeout=config.timeout_millis / 1000,
            max_connections=config.max_connections,
            surroundings=around,
        )

    def accept(self, events: Sequence[EncodedEvent], patience: float = 0.0) -> None:
        """Take events; never waits for the network, except where the interpreter is already exiting.

        Args:
            events: What to take.
            patience: Longest wait, seconds, for room in a full lane while the collector is taking events.
        """
        if not events:
            return
        if self._closed:
            self.refuse(DropReason.AFTER_SHUTDOWN, len(events))
            self._notices.add(DropReason.AFTER_SHUTDOWN, events)
            return
        if patience:
            self._sender.await_room(len(events), self._clock() + patience)
        displaced = self._queue.put(events)
        if displaced:
            self._notices.add(DropReason.QUEUE_FULL, [entry.event for entry in displaced])
            self._reporter.tell(
                DropReason.QUEUE_FULL.value,
                len(displaced),
                "too many events wait for the collector, the oldest are dropped; see max_queue_size",
            )
        if interpreter_is_exiting():
            # Nobody may come after this to send it, and a thread may not start any more.
            self.exit()
        else:
            self._sender.wake()
        if self._ended:
            self._drop_late()

    def refuse(self, reason: DropReason, count: int = 1) -> None:
        """Count events that were given but cannot be kept."""
        self._queue.refuse(reason, count)
        if reason in _REFUSALS:
            self._reporter.tell(reason.value, count, _REFUSALS[reason])

    def note(self, what: str, count: int, text: str) -> None:
        """Count and log what is neither a delivery nor a loss of ours; one line a minute for each."""
        with self._noting:
            self._noted[what] += count
        self._reporter.tell(what, count, text)

    def flush(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all that was accepted is settled; return whether it is."""
        return self._closed or self._sender.flush(self._before_exit(self._clock() + timeout))

    def shutdown(self, timeout: float) -> bool:
        """Send what is left in at most ``timeout`` seconds, drop and name the rest, and close.

        Returns:
            Whether nothing was dropped. A second call does nothing and returns true.
        """
        if self._closed:
            return True
        self._closed = True
        delivered = self._finish(self._before_exit(self._clock() + timeout))
        self._sender.stop()
        # A thread may have passed the look at `_closed` before; it looks at this after its event is in.
        self._ended = True
        self._drop_late()
        self._queue.close()
        return delivered

    def forget(self) -> None:
        """Let go in a forked child of what is the parent's: sockets, and what `on_drop` has yet to hear."""
        self._sender.forget()
        self._notices.forget()

    def exit(self) -> bool:
        """Send what is left before the process ends; one deadline holds for all calls of the exit."""
        if self._exit_deadline is None:
            self._exit_deadline = self._clock() + self._exit_seconds
        return self._finish(self._exit_deadline)

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger as it stands."""
        return replace(self._queue.snapshot(), noted=dict(self._noted))

    def _finish(self, deadline: float) -> bool:
        finished = self._sender.finish(deadline)
        lost = [] if finished else self._queue.abandon(DropReason.SHUTDOWN)
        if lost:
            self._notices.add(DropReason.SHUTDOWN, [entry.event for entry in lost])
            self._reporter.tell(
                DropReason.SHUTDOWN.value,
                len(lost),
                "events are dropped at exit: the collector did not take them in time"
                f" ({self._sender.last_problem or 'no answer yet'})",
            )
        self._notices.drain(deadline - self._clock())
        return not lost

    def _drop_late(self) -> None:
        late = self._queue.abandon(DropReason.AFTER_SHUTDOWN)
        if late:
            reason = DropReason.AFTER_SHUTDOWN
            self._notices.add(reason, [entry.event for entry in late])
            self._reporter.tell(reason.value, len(late), _REFUSALS[reason])

    def _before_exit(self, deadline: float) -> float:
        if interpreter_is_exiting() and self._exit_deadline is None:
            self._exit_deadline = self._clock() + self._exit_seconds
        return deadline if self._exit_deadline is None else min(deadline, self._exit_deadline)


def check_spool(path: str) -> None:
    """Open the spool once, so that a path that cannot work is known at construction.

    Raises:
        ConfigError: The file cannot be opened or made, or is another program's.
    """
    try:
        check_writable(Path(path))
    except (sqlite3.Error, OSError) as error:
        if is_damage(error):
            return  # it is set aside at the first use, with a line in the log
        raise ConfigError(
            f"spool_path={path!r}: cannot be used ({error})."
            " Name a file of its own, in a directory that exists and that this process may write."
        ) from None


def _queue(config: Config, around: Surroundings, reporter: Reporter, notices: DropNotices) -> Queue:
    linger = config.flush_interval_millis / 1000
    if config.spool_path is None:
        return MemoryQueue(max_queue_size=config.max_queue_size, linger=linger, clock=around.clock)
    return Spool(
        Path(config.spool_path).absolute(),
        SpoolLimits(
            config.max_spool_bytes,
            config.max_spool_age_hours * 3600,
            max(around.lease, config.timeout_millis / 1000 * 2),
        ),
        max_queue_size=config.max_queue_size,
        linger=linger,
        clock=around.clock,
        wall_clock=around.wall_clock,
        reporter=reporter,
        notices=notices,
    )


# What was configured to be dropped is counted and needs no line in the log.
_REFUSALS = {
    DropReason.AFTER_SHUTDOWN: "an event came after shutdown and is dropped",
    DropReason.INVALID: "an event is dropped: what was given makes no event",
    DropReason.ANONYMOUS: "an engagement of nobody known is dropped, since anonymous_user_id is empty",
}


def interpreter_is_exiting() -> bool:
    """Whether the main thread has ended, as it has when ``atexit`` functions run (CPython 3.10 to 3.13)."""
    return not threading.main_thread().is_alive()
