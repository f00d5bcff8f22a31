"""Real servers for tests: a process on a free port that sends what it sees to a collector.

Nothing here asks a server for anything, not even whether it is ready: that would be a call to count.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = "127.0.0.1"
EXAMPLES = Path(__file__).parent.parent / "examples"

_START_SECONDS = 30
_STOP_SECONDS = 10
_POLL_SECONDS = 0.02

_SETTINGS: Mapping[str, str] = {
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_EXPORTER_ANALYTICS_FLUSH_INTERVAL": "50",
    "PYTHONUNBUFFERED": "1",
}
ZERO_CODE: Mapping[str, str] = {
    "OTEL_TRACES_EXPORTER": "analytics",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}


class Served:
    """A running server.

    Args:
        process: Its process.
        port: Where it listens, 0 for one that does not.
        log: The file of all that it says.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._log = log

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def await_listening(self, host: str = HOST) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _is_listening(host, self.port):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(_POLL_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the process's exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(_STOP_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill what is left of the process and its children: they have a session of their own."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_STOP_SECONDS)


def environment(collector_url: str, extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Return this process's environment without its OpenTelemetry settings, pointed at a collector."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    scripts = str(Path(sys.executable).parent)
    return {
        **inherited,
        **_SETTINGS,
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}",
        "OTEL_EXPORTER_ANALYTICS_ENDPOINT": collector_url,
        **extra,
    }


def free_port(host: str = HOST) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(
    command: Sequence[str], env: Mapping[str, str], folder: Path, *, port: int, log: Path, host: str = HOST
) -> Iterator[Served]:
    """Run a command for the length of a block, from when its port takes connections.

    Args:
        command: Program and arguments.
        env: Its whole environment.
        folder: Where it runs.
        port: What it listens on, 0 for nothing.
        log: Where its output goes.
        host: The address it listens on.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    served = Served(process, port, log)
    try:
        if port:
            served.await_listening(host)
        yield served
    finally:
        if process.poll() is None:
            served.stop()


def _is_listening(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex((host, port)) == 0
