"""One delivery for one process: a queue, its sender, and the end of both.

A fork makes a new one (see `client`): locks, threads and connections do not work in a child.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from otel_analytics import process
from otel_analytics.config import Config
from otel_analytics.contract import PATHS
from otel_analytics.delivery.batch import Batch
from otel_analytics.delivery.hooks import DropNotices, approve
from otel_analytics.delivery.http.negotiation import Negotiation
from otel_analytics.delivery.http.transport import TlsFiles, Transport
from otel_analytics.delivery.http.wire import Outcome, Verdict
from otel_analytics.delivery.life import Life
from otel_analytics.delivery.logs import RateLimitedLog, Secrets, log_safely
from otel_analytics.delivery.queue.ledger import DropReason, Ledger, LedgerSnapshot
from otel_analytics.delivery.queue.memory import MemoryQueue, Queue
from otel_analytics.delivery.schedule import Schedule
from otel_analytics.delivery.sender import Sender, Surroundings
from otel_analytics.delivery.settlement import Settlement
from otel_analytics.delivery.spool.directory import Directory, check_writable
from otel_analytics.delivery.spool.file_queue import Shared
from otel_analytics.delivery.spool.schema import UnsafeFileError
from otel_analytics.delivery.spool.spool import Spool
from otel_analytics.delivery.start import tell_first_delivery
from otel_analytics.delivery.throttle import Throttle
from otel_analytics.errors import ConfigError
from otel_analytics.events import EncodedEvent, Event


class Upstream(Protocol):
    """What holds events back for a while before they are accepted."""

    def release(self) -> None:
        """Hand them all on now."""

    def note(self) -> None:
        """Count now what it has noticed."""


class Delivery:
    """Takes encoded events and brings them to the collector.

    Args:
        config: The options.
        surroundings: Clock, dice, policy; real ones by default.
        life: Its own; a closed one makes a delivery that drops and counts all it is given.
        upstream: What holds events back, to be released before a flush and an end.
    """

    def __init__(
        self,
        config: Config,
        surroundings: Surroundings | None = None,
        life: Life | None = None,
        upstream: Iterable[Upstream] = (),
    ) -> None:
        around = surroundings or Surroundings()
        self._pid = os.getpid()
        self._clock = around.clock
        self._exit_seconds = config.shutdown_timeout_millis / 1000
        self._before_send = config.before_send
        self._life = life or Life()
        self._upstream = upstream
        self._delivered_all = True
        self._shutting_down = threading.Lock()
        self._ledger = Ledger()
        self._last_problem = ""
        self._config = config
        self._has_delivered = False
        self._endpoint = config.endpoint.rstrip("/")
        self._longest_pause = around.policy.ceiling
        self._longest_ask = around.policy.retry_after_ceiling
        self._secrets = Secrets([config.write_key or "", *config.headers.values()])
        self._log = RateLimitedLog(around.clock)
        self._notices = DropNotices(config.on_drop, self._log)
        self._queue = _queue(config, around, self._log, self._notices, self._life, self._ledger)
        throttle = Throttle(config.max_connections, around.policy, around.dice, self._life)
        self._sender = Sender(
            self._queue,
            Schedule(self._queue, Negotiation(config), throttle, self._life),
            self._life,
            lambda: Transport(
                config.endpoint, config.write_key, around.clock, headers=config.headers, tls=tls_files(config)
            ),
            self._log,
            self._report,
            timeout=config.timeout_millis / 1000,
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
        if self._life.is_closed:
            self.drop(DropReason.AFTER_SHUTDOWN, events)
            return
        if patience:
            self._sender.await_room(len(events), self._clock() + patience)
        displaced = self._queue.put(events)
        if displaced:
            self._notices.add(DropReason.QUEUE_FULL, [entry.event for entry in displaced])
            self._log.tell(
                DropReason.QUEUE_FULL.value,
                len(displaced),
                "too many events wait for the collector, the oldest are dropped; see max_queue_size",
            )
        if process.is_exiting():
            # Nobody may come after this to send it, and a thread may not start any more.
            self.exit()
        else:
            self._sender.wake()
        if self._life.is_closed:  # since the look at it above
            self._drop_late()
        self._log.emit()

    def approve(self, event: Event) -> Event | None:
        """Return what `before_send` makes of an event, `None` where that is nothing to be sent."""
        return event if self._before_send is None else approve(event, self._before_send, self._log)

    def drop(self, reason: DropReason, events: Sequence[EncodedEvent]) -> None:
        """Count events that are given up before they wait, and let `on_drop` hear of them."""
        self.refuse(reason, len(events))
        self._notices.add(reason, events)

    def refuse(self, reason: DropReason, count: int = 1) -> None:
        """Count events that were given but cannot be kept."""
        self._queue.refuse(reason, count)
        if reason in _REFUSALS:
            self._log.tell(reason.value, count, _REFUSALS[reason])

    def note(self, what: str, count: int, text: str) -> None:
        """Count what is neither a delivery nor a loss of ours; with a text, log it, one line a minute."""
        self._ledger.note(what, count)
        if text:
            self._log.tell(what, count, text)

    def flush(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all that was accepted is settled; return whether it is."""
        if self._life.is_closed:
            return True
        deadline = self._clock() + timeout
        self._release_upstream()
        return self._sender.flush(self._before_exit(deadline))

    def shutdown(self, timeout: float) -> bool:
        """Send what is left in at most ``timeout`` seconds, drop and name the rest, and close.

        Returns:
            Whether nothing was dropped. A second call waits for the first, and returns the same.
        """
        deadline = self._clock() + timeout
        self._release_upstream()
        deadline = self._before_exit(deadline)
        if not self._shutting_down.acquire(timeout=max(deadline - self._clock(), 0.0)):
            return False
        try:
            if not self._life.is_closed:
                self._delivered_all = self._close(deadline)
            return self._delivered_all
        finally:
            self._shutting_down.release()

    def abandon(self) -> None:
        """Let the threads end once everything is settled: the client is gone, nothing comes any more."""
        if self._pid == os.getpid():  # in a forked child nobody could release the parent's locks
            self._sender.abandon(self)

    def at_exit(self) -> None:
        """Send what is left, as `exit` does."""
        self._release_upstream()
        self.exit()

    def before_fork(self) -> None:
        """Do nothing: a child makes a delivery of its own."""

    def after_fork_in_parent(self) -> None:
        """Do nothing."""

    def after_fork_in_child(self) -> None:
        """Let go in a forked child of what is the parent's: sockets, and what `on_drop` has yet to hear."""
        self._sender.forget()
        self._notices.forget()

    def exit(self) -> bool:
        """Send what is left before the process ends; one deadline holds for all calls of the exit."""
        if self._life.is_closed:
            return True
        finished = self._finish(self._before_exit(self._clock() + self._exit_seconds))
        self._queue.close()  # for good, unless something still comes
        return finished

    def has_room(self, count: int) -> bool:
        """Return whether so many more events would displace none."""
        return not self._life.is_closed and self._queue.has_room(count)

    def mark(self) -> Any:
        """Return a mark of everything accepted so far, for `is_settled`."""
        return self._queue.mark()

    def is_settled(self, mark: Any) -> bool:
        """Return whether everything up to a mark is delivered or dropped."""
        return self._queue.is_settled(mark)

    @property
    def is_closed(self) -> bool:
        """Whether it was shut down."""
        return self._life.is_closed

    def snapshot(self) -> LedgerSnapshot:
        """Return the ledger as it stands."""
        snapshot = self._queue.snapshot()
        self._log.emit()
        return snapshot

    def _release_upstream(self) -> None:
        for upstream in tuple(self._upstream):
            upstream.release()

    def _close(self, deadline: float) -> bool:
        delivered = self._finish(deadline)
        self._life.close()
        self._sender.stop()
        self._drop_late()
        self._queue.close()
        self._log.emit()
        return delivered

    def _finish(self, deadline: float) -> bool:
        finished = self._sender.finish(deadline)
        lost = [] if finished else self._queue.abandon(DropReason.SHUTDOWN)
        if lost:
            self._notices.add(DropReason.SHUTDOWN, [entry.event for entry in lost])
            self._log.tell(
                DropReason.SHUTDOWN.value,
                len(lost),
                "events are dropped at exit: the collector did not take them in time"
                f" ({self._last_problem or 'no answer yet'})",
            )
        self._notices.drain(deadline - self._clock())
        return not lost

    def _drop_late(self) -> None:
        late = self._queue.abandon(DropReason.AFTER_SHUTDOWN)
        if late:
            reason = DropReason.AFTER_SHUTDOWN
            self._notices.add(reason, [entry.event for entry in late])
            self._log.tell(reason.value, len(late), _REFUSALS[reason])

    def _before_exit(self, deadline: float) -> float:
        """Return the deadline, or that of the exit, which is one for all that is done in it."""
        if process.is_exiting() and not self._life.is_ending:
            self._sender.begin_last_chance(self._clock() + self._exit_seconds)
        return min(deadline, self._life.deadline)

    def _report(self, batch: Batch, outcome: Outcome, settlement: Settlement) -> None:
        """Tell the operator, once a minute for each cause, and `on_drop`."""
        if outcome.verdict in _TROUBLE:
            self._tell_trouble(batch, outcome)
        elif not self._has_delivered:
            self._tell_first_delivery(batch, outcome, settlement)
        if outcome.is_page:
            self._log.tell_once("page", _PAGE)
        for (reason, said), events in _losses(batch, outcome, settlement).items():
            stated = self._secrets.hidden(said)
            self._notices.add(reason, events, stated)
            text = (
                f"{self._url(batch)}: {_with(outcome.reason, stated)}; an event is dropped: mend what is sent"
            )
            self._log.tell(reason.value, len(events), text)
        self._log.emit()

    def _tell_first_delivery(self, batch: Batch, outcome: Outcome, settlement: Settlement) -> None:
        delivered = settlement.delivered_of(batch)
        if delivered and not outcome.is_page:
            self._has_delivered = True
            tell_first_delivery(self._config, len(delivered), batch.kind.value)

    def _tell_trouble(self, batch: Batch, outcome: Outcome) -> None:
        level, remedy = _TROUBLE[outcome.verdict]
        remedy = _REMEDIES.get(outcome.reason, remedy)
        hidden = self._secrets.hidden
        self._last_problem = _with(hidden(outcome.reason), hidden(outcome.stated))
        waiting = self._queue.snapshot().pending
        waits = f"{waiting} event{' waits' if waiting == 1 else 's wait'}"
        longest = max(self._longest_pause, min(outcome.retry_after or 0.0, self._longest_ask))
        text = f"{self._url(batch)}: {self._last_problem}; " + remedy.format(
            waits=f"{waits}, sent again in up to {longest:.0f} s"
        )
        self._log.tell(outcome.verdict.name.lower(), len(batch.entries), text, level)

    def _url(self, batch: Batch) -> str:
        return self._secrets.hidden(self._endpoint + PATHS[batch.kind])


def tls_files(config: Config) -> TlsFiles:
    """Return the files that the options name."""
    return TlsFiles(config.certificate, config.client_certificate, config.client_key)


def _losses(
    batch: Batch, outcome: Outcome, settlement: Settlement
) -> Mapping[tuple[DropReason, str], Sequence[EncodedEvent]]:
    """Return the events given up, by why and by what the collector says of it."""
    if not settlement.dropped:
        return {}
    indices = {entry.sequence: index for index, entry in enumerate(batch.entries)}
    losses: dict[tuple[DropReason, str], list[EncodedEvent]] = {}
    for entry, reason in settlement.dropped:
        stated = outcome.stated_of(indices[entry.sequence])
        losses.setdefault((reason, stated), []).append(entry.event)
    return losses


def _with(reason: str, stated: str) -> str:
    return f"{reason} ({stated})" if stated else reason


def with_usable_spool(config: Config, *, in_code: bool) -> Config:
    """See whether the spool can be used, so that a path that cannot work is known at construction.

    Args:
        config: The options.
        in_code: Whether the path was set in code, where a wrong one is a wrong option. From the environment
            it is one line in the log: no spool is no reason for no analytics.

    Returns:
        The options, without the spool where there never can be one. A directory that is missing, full or
        read-only may not stay so: memory serves as long, and the log says so.

    Raises:
        ConfigError: There is something else in its place, and the option was set in code.
    """
    path = config.spool_path
    if path is None:
        return config
    try:
        check_writable(_directory(path))
    except (UnsafeFileError, NotADirectoryError) as error:
        text = f"spool_path={path!r}: cannot be used ({error}). Name a directory of its own"
        if in_code:
            raise ConfigError(f"{text}, which is made where its parent exists.") from None
        log_safely(logging.WARNING, "%s; events wait in memory", text)
        return replace(config, spool_path=None)
    except OSError as error:
        log_safely(
            logging.WARNING, "spool_path=%r: %s; events wait in memory until that changes", path, error
        )
    return config


def _directory(path: str) -> Path:
    """Return the spool's directory by the one name that all clients of a process have for it."""
    absolute = Path(path).absolute()
    return absolute.parent.resolve() / absolute.name


def _queue(
    config: Config,
    around: Surroundings,
    log: RateLimitedLog,
    notices: DropNotices,
    life: Life,
    ledger: Ledger,
) -> Queue:
    linger = config.flush_interval_millis / 1000
    numbers = count(1)
    memory = MemoryQueue(
        max_queue_size=config.max_queue_size,
        linger=linger,
        clock=around.clock,
        ledger=ledger,
        numbers=numbers,
    )
    if config.spool_path is None:
        return memory
    shared = Shared(
        Directory(_directory(config.spool_path), config.max_spool_bytes),
        max_age=config.max_spool_age_hours * 3600,
        linger=linger,
        clock=around.clock,
        wall_clock=around.wall_clock,
        log=log,
        notices=notices,
        life=life,
        numbers=numbers,
        on_lost=memory.adopt,
    )
    return Spool(shared, memory, config.max_queue_size)


# What was configured to be dropped is counted and needs no line in the log.
_REFUSALS = {
    DropReason.AFTER_SHUTDOWN: "an event came after shutdown and is dropped",
    DropReason.INVALID: "an event is dropped: what was given makes no event",
    DropReason.ANONYMOUS: "an engagement of nobody known is dropped, since anonymous_user_id is empty",
}

_PAGE = (
    "the collector answers with an HTML page: usually that is a login form or a proxy, which stores nothing;"
    " check endpoint"
)
_DOWN = "{waits}"
_TROUBLE: Mapping[Verdict, tuple[int, str]] = {
    Verdict.UNAVAILABLE: (logging.WARNING, _DOWN),
    Verdict.FAILED: (logging.WARNING, _DOWN),
    Verdict.REFUSED: (logging.ERROR, "check endpoint and write_key; {waits}"),
    Verdict.NO_BATCHES: (logging.WARNING, "the collector takes no batches; events are sent singly"),
}
_REMEDIES: Mapping[str, str] = {
    "HTTP 401": "the key is missing or wrong: set write_key; {waits}",
    "HTTP 403": "the key is not allowed to write: check write_key; {waits}",
    "HTTP 404": "nothing takes events at this address: check endpoint's host, port and path; {waits}",
}
"""What mends an answer, where that is known better than by its verdict."""
