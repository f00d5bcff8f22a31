"""The shop as its own process, instrumented the zero-code way: by environment variables alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from otel_analytics.config import env_name

_HOST = "127.0.0.1"
_START_SECONDS = 30
_STOP_SECONDS = 5
_POLL_SECONDS = 0.05
_LOG_TAIL_CHARACTERS = 2_000
_BATCH_DELAY_MILLIS = "200"  # the defaults, 5 s and 1 s, suit a server better than somebody who watches

_SHOP = ("-m", "uvicorn", "otel_analytics.demo.shop:app", "--no-access-log", "--host", _HOST)
# What the console script `opentelemetry-instrument` holds; scripts need not be on the PATH.
_INSTRUMENT = ("-c", "from opentelemetry.instrumentation.auto_instrumentation import run; run()")
_SETTINGS: Mapping[str, str] = {
    "OTEL_TRACES_EXPORTER": "analytics",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_SERVICE_NAME": "demo-shop",
    "OTEL_BSP_SCHEDULE_DELAY": _BATCH_DELAY_MILLIS,
    env_name("flush_interval_millis"): _BATCH_DELAY_MILLIS,
}


class ShopError(Exception):
    """The shop did not start or answer; the message ends with what it said."""


class Shop:
    """A running shop: its URL, and what it has said so far."""

    def __init__(self, url: str, log: IO[bytes]) -> None:
        self.url = url
        self._log = log

    def log_tail(self) -> str:
        """Return the end of the shop's output."""
        # Not through `self._log`: it shares its position with the process that writes.
        with open(self._log.name, "rb") as reader:  # noqa: PTH123 - named by `tempfile`
            return reader.read().decode(errors="replace")[-_LOG_TAIL_CHARACTERS:]


@contextmanager
def running_shop(collector_url: str, write_key: str) -> Iterator[Shop]:
    """Run the shop on a free port for the length of a block; afterwards it is gone, whatever happened.

    Args:
        collector_url: The exporter's endpoint.
        write_key: The exporter's write key.

    Raises:
        ShopError: It did not start in 30 s.
    """
    port = _free_port()
    with tempfile.NamedTemporaryFile(prefix="otel-analytics-shop-", suffix=".log") as log:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, our own arguments
            [sys.executable, *_INSTRUMENT, sys.executable, *_SHOP, "--port", str(port)],
            env=_environment(collector_url, write_key),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the shop itself
        )
        shop = Shop(f"http://{_HOST}:{port}", log)
        try:
            _await_listening(process, port, shop)
            yield shop
        finally:
            _stop(process)


def _environment(collector_url: str, write_key: str) -> dict[str, str]:
    # The caller's own OpenTelemetry settings are for the caller's own applications.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    own = {env_name("endpoint"): collector_url, env_name("write_key"): write_key}
    return {**inherited, **_SETTINGS, **own}


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _await_listening(process: subprocess.Popen[bytes], port: int, shop: Shop) -> None:
    """Wait by connecting, not by a request: that would be a call to count."""
    deadline = time.monotonic() + _START_SECONDS
    while not _is_listening(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ShopError(f"the shop did not start. It said:\n{shop.log_tail()}")
        time.sleep(_POLL_SECONDS)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)
