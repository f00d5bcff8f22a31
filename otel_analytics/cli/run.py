"""``otel-analytics run -- CMD``: a command under OpenTelemetry's auto-instrumentation, and what it sends.

The command is a child; signals go to it, and its exit status is this command's. What is said here goes to
standard error, since standard output is the command's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from otel_analytics.cli.surroundings import missing_instrumentations
from otel_analytics.cli.tail import Tail, TailError, follow
from otel_analytics.config import env_name

Say = Callable[[str], None]

NOT_FOUND: Final = 127
"""What a shell answers for a command that is not there."""
_BY_SIGNAL: Final = 128
# What the console script `opentelemetry-instrument` holds; scripts need not be on the PATH.
_INSTRUMENT: Final = ("-c", "from opentelemetry.instrumentation.auto_instrumentation import run; run()")
_DEFAULTS: Final[Mapping[str, str]] = {
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_BSP_SCHEDULE_DELAY": "200",  # the default, 5 s, suits a server better than somebody who watches
    env_name("flush_interval_millis"): "200",
}
_FORWARDED: Final = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_BY_TERMINAL: Final = ("SIGINT", "SIGQUIT")
"""A terminal sends them to the command as well: it must not have them twice."""


def run(command: Sequence[str], say: Say) -> int:
    """Run a command until it ends.

    Args:
        command: With its arguments.
        say: Takes a line.

    Returns:
        The command's exit status; 128 and the signal's number where one ended it.
    """
    if shutil.which(command[0]) is None:
        say(f"otel-analytics: {command[0]}: command not found")
        return NOT_FOUND
    for framework, package in missing_instrumentations():
        say(f"otel-analytics: {framework} is not instrumented: pip install {package}")
    if os.environ.get(env_name("endpoint")):
        return _status(command, environment(os.environ))
    return _with_collector(command, say)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the command; what is set stays, and this exporter joins those of traces."""
    exporters = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    others = [name for name in exporters if name not in ("", "none", "analytics")]
    set_here = {name: value for name, value in environ.items() if value}
    return {**_DEFAULTS, **set_here, "OTEL_TRACES_EXPORTER": ",".join([*others, "analytics"])}


def _with_collector(command: Sequence[str], say: Say) -> int:
    from otel_analytics.collector import DevCollector  # noqa: PLC0415 - an extra

    with DevCollector(write_key=os.environ.get(env_name("write_key")) or None) as collector:
        say(f"otel-analytics: what arrives is shown at {collector.url}")
        child: MutableMapping[str, str] = environment(os.environ)
        child[env_name("endpoint")] = collector.url
        with _tailing(collector.url, say):
            return _status(command, child)


@contextmanager
def _tailing(url: str, say: Say) -> Iterator[None]:
    """Show what arrives at a collector for the length of a block."""
    tail, stopped = Tail(url), threading.Event()

    def work() -> None:
        with suppress(TailError):  # a collector that does not answer must not end the command
            follow(tail, say, stopped)

    thread = threading.Thread(target=work, name="otel-analytics-tail", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        tail.close()


def _status(command: Sequence[str], environ: Mapping[str, str]) -> int:
    with _signals_for_child() as started:
        child = subprocess.Popen([sys.executable, *_INSTRUMENT, *command], env=environ)  # noqa: S603 - as told
        started(child)
        code = child.wait()
    return code if code >= 0 else _BY_SIGNAL - code


@contextmanager
def _signals_for_child() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Hand signals on for the length of a block; those that come before the child is there wait for it."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)
        if not children:
            early.append(number)

    def started(child: subprocess.Popen[bytes]) -> None:
        children.append(child)
        for number in early:
            child.send_signal(number)

    # A handler, not SIG_IGN: the command would inherit that.
    by_terminal = (lambda _, __: None) if sys.stdin is not None and sys.stdin.isatty() else forward
    handlers = {**dict.fromkeys(_FORWARDED, forward), **dict.fromkeys(_BY_TERMINAL, by_terminal)}
    numbers = {name: getattr(signal, name) for name in handlers if hasattr(signal, name)}
    before = {number: signal.signal(number, handlers[name]) for name, number in numbers.items()}
    try:
        yield started
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
