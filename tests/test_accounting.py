"""The contract, checked: what was accepted is stored, or dropped for a reason that the books name.

Worker processes track numbered events at a collector that fails at random, and are killed at random. An event
is accepted once its ``track_*`` has returned. The longer run, all of it set by the environment::

    ANALYTICS_SOAK_SECONDS=600 ANALYTICS_SOAK_SEED=7 pytest -m soak tests/test_accounting.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest
from driving import STORING_NOTHING
from spooling import balanced, files_of, process, spooled

from otel_analytics import EngagementEvent, LedgerSnapshot, ViewEvent
from otel_analytics.testing import (
    AcceptPartly,
    Behaviour,
    CloseIdle,
    Exchange,
    FaultyCollector,
    LostAcknowledgement,
)

WORKER = """
import json, random
name, log_path, seed, threads = sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6])
options = json.loads(sys.argv[7])
log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def on_drop(reason, events):
    for event in events:
        os.write(log, f"{reason} {getattr(event, 'target_id', None) or event.content_id[4:]}\\n".encode())

client = spooled(url, path, on_drop=on_drop, **options)
stop = threading.Event()

def keep_tracking(thread):
    dice, number = random.Random(seed * 100 + thread), 0
    while not stop.is_set():
        target = f"/{name}/{thread}/{number}"
        if dice.random() < 0.3:
            client.track_engagement("user", "purchase", target, "content")
        else:
            client.track_api_call(target, "GET", 200)
        os.write(log, f"accepted {target}\\n".encode())
        number += 1
        time.sleep(dice.random() * 0.004)

tracking = [threading.Thread(target=keep_tracking, args=(thread,)) for thread in range(threads)]
for thread in tracking:
    thread.start()
sys.stdin.readline()
stop.set()
for thread in tracking:
    thread.join()
client.shutdown()
books = client.stats()
books = {"accepted": books.accepted, "delivered": books.delivered, "pending": books.pending, **books.dropped}
os.write(log, f"books {json.dumps(books, separators=(',', ':'))}\\n".encode())
"""


@dataclass(frozen=True)
class Plan:
    """How long, and how hard.

    Args:
        seed: Of the collector's faults, of the kills, and of what is tracked.
        seconds: For how long workers track.
        workers: How many there are at a time.
        threads: How many threads of each track.
        kill: How likely a worker's end is SIGKILL rather than a shutdown.
        batch: What the collector advertises.
        options: Of the clients.
    """

    seed: int
    seconds: float = 3.0
    workers: int = 3
    threads: int = 3
    kill: float = 0.7
    batch: str | None = "max=40"
    options: tuple[tuple[str, Any], ...] = ()


def name_of(event: dict[str, Any]) -> str:
    return str(event.get("targetId") or event["contentId"][len("GET:") :])


def is_invalid(event: dict[str, Any]) -> bool:
    return name_of(event).endswith("7")


def is_untimely(event: dict[str, Any]) -> bool:
    return name_of(event).endswith(("1", "2"))


WELL = AcceptPartly(rejected=is_invalid)
STORING: tuple[Behaviour, ...] = (WELL, LostAcknowledgement(), CloseIdle(), CloseIdle(under_request=True))
FAULTS: tuple[Behaviour, ...] = (
    *STORING_NOTHING,
    AcceptPartly(rejected=is_invalid, retry=is_untimely),
)


class Chaos:
    """A collector's behaviour: half of the requests fail, each in a way drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - a test's schedule
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        with self._lock:
            behaviour = self._dice.choice(FAULTS) if self._dice.random() < 0.5 else WELL
            if behaviour is WELL and not any(map(is_invalid, exchange.request.events)):
                behaviour = self._dice.choice(STORING)
        behaviour(exchange)


@dataclass
class Log:
    """What workers wrote down.

    Args:
        accepted: Names of events accepted.
        dropped: Names of those `on_drop` heard of, by reason.
        books: The sum of the books of all that ended by a shutdown.
    """

    accepted: set[str]
    dropped: Counter[tuple[str, str]]
    books: Counter[str]

    @classmethod
    def read(cls, path: Path) -> Log:
        lines = [tuple(line.split(" ")) for line in path.read_text().splitlines()]
        accepted = {name for what, name in lines if what == "accepted"}
        books = [Counter[str](json.loads(text)) for what, text in lines if what == "books"]
        dropped = [(what, name) for what, name in lines if what not in {"accepted", "books"}]
        return cls(accepted, Counter(dropped), sum(books, Counter[str]()))


@pytest.mark.parametrize(
    "plan",
    [
        Plan(seed=1),
        Plan(seed=2, batch=None, workers=2),
        Plan(seed=3, options=(("max_queue_size", 20), ("max_batch_size", 7))),
    ],
    ids=["batches", "singly", "little memory"],
)
def test_killed_workers_lose_nothing(plan: Plan, tmp_path: Path) -> None:
    check(plan, tmp_path)


def test_what_the_full_spool_drops_is_named_exactly(tmp_path: Path) -> None:
    """Nobody is killed here, so that `on_drop` hears of every loss, and not one event is unaccounted for."""
    options = (("max_queue_size", 10), ("max_spool_bytes", 40_000))
    log, stored, stats = run(Plan(seed=4, kill=0, options=options), tmp_path)
    dropped = {name for _, name in log.dropped}
    assert set(log.dropped.values()) == {1}, "each loss is told once"
    reasons = Counter(reason for reason, _ in log.dropped)
    books = log.books + Counter({"accepted": stats.accepted, "delivered": stats.delivered, **stats.dropped})
    assert reasons.keys() == {"spool_full", "rejected"}
    assert reasons == Counter({reason: books[reason] for reason in reasons})
    assert dropped | stored == log.accepted
    # Where the acknowledgement was lost, an event may be stored and later be the one that gives way.
    assert {reason for reason, name in log.dropped if name in stored} <= {"spool_full"}
    # What one leaves is accepted once more by whoever adopts it.
    assert books["accepted"] - books["pending"] == len(log.accepted)
    assert books["delivered"] == len(log.accepted - dropped)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak(tmp_path: Path) -> None:
    def option(name: str, default: str) -> str:
        return os.environ.get(f"ANALYTICS_SOAK_{name}", default)

    plan = Plan(
        seed=int(option("SEED", str(int(time.time())))),
        seconds=float(option("SECONDS", "120")),
        workers=int(option("WORKERS", "4")),
        threads=int(option("THREADS", "3")),
        kill=float(option("KILL", "0.7")),
        batch=option("BATCH", "max=100") or None,
    )
    print(plan)  # noqa: T201 - to run the same again
    check(plan, tmp_path)


def check(plan: Plan, folder: Path) -> None:
    log, stored, stats = run(plan, folder)
    invalid = {name for name in log.accepted if name.endswith("7")}
    # A call that a kill interrupted may have been accepted, though it never returned to say so.
    interrupted = stored - log.accepted
    assert not any(name.endswith("7") for name in stored)
    assert log.accepted - stored == invalid
    assert {reason for reason, _ in log.dropped} == {"rejected"} >= set(stats.dropped)
    assert set(log.books) <= {"accepted", "delivered", "pending", "rejected"}
    assert set(Counter(name.rpartition("/")[0] for name in interrupted).values()) <= {1}, "one of a thread"


def run(plan: Plan, folder: Path) -> tuple[Log, set[str], LedgerSnapshot]:
    """Let workers track, fail and die; then deliver what is left to a collector that is well again."""
    path, log = folder / "spool", folder / "log"
    with FaultyCollector(then=Chaos(plan.seed), batch=plan.batch) as collector:
        let_workers_work(plan, collector.url, path, log)
        collector.behave(then=WELL)
        with log.open("a", buffering=1) as lines:
            stats = deliver_the_rest(collector.url, path, lines)
        stored = collector.stored
    ids_of: dict[str, set[str]] = {}
    for event in stored:
        ids_of.setdefault(name_of(event.body), set()).add(event.event_id)
    assert all(len(same) == 1 for same in ids_of.values()), "duplicates have the same id"
    print(f"{stats}, {len(stored) - len(ids_of)} duplicates by id")  # noqa: T201 - the figures
    return Log.read(log), set(ids_of), stats


def let_workers_work(plan: Plan, url: str, path: Path, log: Path) -> None:
    ends = Ends(plan)
    with ExitStack() as stack:
        workers = [ends.start(stack, url, path, log) for _ in range(plan.workers)]
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until:
            time.sleep(ends.dice.random() * 0.5)
            number = ends.dice.randrange(plan.workers)
            ends.end(workers[number])
            workers[number] = ends.start(stack, url, path, log)
        for worker in workers:
            ends.end(worker)


class Ends:
    """Starts workers and ends them, by dice."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = random.Random(plan.seed)  # noqa: S311 - a test's schedule
        self._numbers: Iterator[int] = iter(range(1_000_000))

    def start(self, stack: ExitStack, url: str, path: Path, log: Path) -> subprocess.Popen[str]:
        number = next(self._numbers)
        arguments = (f"w{number}", str(log), str(self.plan.seed + number), str(self.plan.threads))
        options = json.dumps(dict(self.plan.options))
        return stack.enter_context(process(WORKER, url, path, *arguments, options))

    def end(self, worker: subprocess.Popen[str]) -> None:
        if self.dice.random() < self.plan.kill:
            worker.kill()
        else:
            worker.communicate("end\n", timeout=20)


def deliver_the_rest(url: str, path: Path, lines: TextIO) -> LedgerSnapshot:
    with spooled(url, path, on_drop=writing(lines)) as last:
        until = time.monotonic() + 20
        while not (last.flush(5_000) and not files_of(path)) and time.monotonic() < until:
            time.sleep(0.05)
        last.shutdown()
        # But for the lock of one that was killed before it had a file.
        assert {file.suffix for file in path.iterdir()} <= {".lock"}, "nothing is left behind"
        stats = balanced(last.stats())
        assert stats.pending == 0
        return stats


def writing(lines: TextIO) -> Callable[[str, Sequence[ViewEvent | EngagementEvent]], None]:
    """Return an `on_drop` that writes as the workers' does."""

    def on_drop(reason: str, events: Sequence[ViewEvent | EngagementEvent]) -> None:
        for event in events:
            name = event.target_id if isinstance(event, EngagementEvent) else event.content_id[len("GET:") :]
            lines.write(f"{reason} {name}\n")

    return on_drop
