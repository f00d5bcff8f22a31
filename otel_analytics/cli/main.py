"""The command ``otel-analytics``: a subcommand is an entry of `_COMMANDS`, its work a module elsewhere."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from otel_analytics._version import __version__
from otel_analytics.cli import bridge, docs
from otel_analytics.cli.argument_types import count, number, port
from otel_analytics.config import env_name
from otel_analytics.contract import Kind
from otel_analytics.errors import AnalyticsError, ConfigError

_DONE, _FAILED, _UNUSABLE, _INTERRUPTED = 0, 1, 2, 130

_MODULES_OF_EXTRA: Mapping[str, tuple[str, ...]] = {
    "collector": ("starlette", "uvicorn"),
    "bridge": ("starlette", "uvicorn", "grpc", "opentelemetry.proto"),
    "demo": (
        "starlette",
        "uvicorn",
        "fastapi",
        "opentelemetry.distro",
        "opentelemetry.instrumentation.fastapi",
        "rich",
    ),
}


class _Command(NamedTuple):
    help: str
    extra: str | None
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; the process's own by default.

    Returns:
        The exit code: 0 done, 1 failed, 2 unusable (arguments, a missing extra), 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    command = _COMMANDS[options.command]
    if command.extra is not None and not _installed(command.extra):
        extra = f"otel-analytics[{command.extra}]"
        return _fail(f"{options.command} needs an extra: pip install '{extra}'", _UNUSABLE)
    try:
        return command.run(options)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-analytics", description="Product analytics straight from OpenTelemetry."
    )
    parser.add_argument("--version", action="version", version=f"otel-analytics {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.help, description=command.help))
    return parser


def _installed(extra: str) -> bool:
    return all(map(_can_import, _MODULES_OF_EXTRA[extra]))


def _can_import(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def _fail(message: str, code: int) -> int:
    print(f"otel-analytics: {message}", file=sys.stderr)
    return code


def _say(line: str) -> None:
    print(line, flush=True)


def _add_collector_arguments(parser: argparse.ArgumentParser) -> None:
    key_variable = env_name("write_key")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine only)"
    )
    parser.add_argument(
        "--port", type=port, default=4380, help="port to listen on, 0 for a free one (%(default)s)"
    )
    parser.add_argument("--write-key", help=f"what X-Write-Key must be; else ${key_variable}; else none")
    parser.add_argument(
        "--database", metavar="PATH", help="SQLite file to keep events in (default: memory, until it stops)"
    )
    parser.add_argument(
        "--max-events",
        type=count,
        default=100_000,
        metavar="N",
        help="events to keep, the newest, in 100 MB at most (%(default)s)",
    )
    parser.add_argument("--no-batch", action="store_true", help="take and advertise single events only")


def _run_collector(options: argparse.Namespace) -> int:
    from otel_analytics.collector import BatchLimits, StoreError, StoreLimits, run  # noqa: PLC0415 - an extra

    try:
        run(
            announce=_say,
            host=options.host,
            port=options.port,
            write_key=options.write_key or os.environ.get(env_name("write_key")) or None,
            database=options.database,
            batch=None if options.no_batch else BatchLimits(),
            keep=StoreLimits(max_events=options.max_events),
        )
    except StoreError as error:
        return _fail(str(error), _FAILED)
    except OSError as error:
        return _fail(f"cannot listen on {options.host} port {options.port}: {error.strerror}", _FAILED)
    return _DONE


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--requests", type=count, default=200, metavar="N", help="requests to send (%(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave shop and collector running until Ctrl-C")


def _run_demo(options: argparse.Namespace) -> int:
    from otel_analytics.demo.run import run_demo  # noqa: PLC0415 - an extra

    return _DONE if run_demo(requests=options.requests, keep=options.keep) else _FAILED


def _add_spool_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in _SPOOL_ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("path", type=Path, metavar="PATH", help="the directory, as in spool_path")
        for argument, settings in _SPOOL_ARGUMENTS[name].items():
            action.add_argument(argument, **settings)


def _run_spool(options: argparse.Namespace) -> int:
    from otel_analytics.cli.spool import run  # noqa: PLC0415 - not for all the other commands to wait for

    return _reported(lambda: run(options, _say))


def _add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="OTLP JSON, or what the console exporter prints; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON array, an object a span")


def _run_explain(options: argparse.Namespace) -> int:
    from otel_analytics.cli.explain import run  # noqa: PLC0415 - not for all the other commands to wait for

    return _reported(lambda: run(options, _say))


def _add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", help=f"the collector's base URL; else ${env_name('endpoint')}")
    parser.add_argument("--write-key", help=f"sent as X-Write-Key; else ${env_name('write_key')}")
    parser.add_argument(
        "--collector", metavar="URL", help="check a collector against the contract instead, with test events"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON array, an object a check")


def _run_doctor(options: argparse.Namespace) -> int:
    from otel_analytics.cli.doctor import run  # noqa: PLC0415 - not for all the other commands to wait for

    return _reported(lambda: run(options, _say))


def _add_tail_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", help=f"the dev collector's base URL; else ${env_name('endpoint')}")


def _run_tail(options: argparse.Namespace) -> int:
    from otel_analytics.cli.tail import run  # noqa: PLC0415 - not for all the other commands to wait for

    return _reported(lambda: run(options, _say))


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command, with its arguments"
    )


def _run_run(options: argparse.Namespace) -> int:
    from otel_analytics.cli.run import run  # noqa: PLC0415 - not for all the other commands to wait for

    command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not command:
        return _fail("run needs a command: otel-analytics run -- uvicorn app:app", _UNUSABLE)
    if not _can_import("opentelemetry.distro"):
        return _fail("run needs a package: pip install opentelemetry-distro", _UNUSABLE)
    if not (os.environ.get(env_name("endpoint")) or _installed("collector")):
        return _fail("run needs an endpoint, or: pip install 'otel-analytics[collector]'", _UNUSABLE)
    return run(command, lambda line: print(line, file=sys.stderr, flush=True))


def _run_bridge(options: argparse.Namespace) -> int:
    try:
        return _reported(lambda: bridge.run(options, _say))
    except OSError as error:
        return _fail(f"cannot listen on {error.strerror}", _FAILED)


def _reported(work: Callable[[], bool]) -> int:
    """Do what may fail in ways that have a message; return the exit code."""
    try:
        return _DONE if work() else _FAILED
    except ConfigError as error:
        return _fail(str(error), _UNUSABLE)
    except AnalyticsError as error:
        return _fail(str(error), _FAILED)


_SPOOL_ACTIONS: Mapping[str, str] = {
    "status": "Say what a spool holds, and what became of the rest.",
    "list": "List the events that a spool holds, oldest first.",
    "replay": "Deliver what a spool holds now; exit code 1 where something is left, or was dropped.",
    "purge": "Throw events away; they count as dropped for the reason `purged`.",
}
_KIND: Mapping[str, Any] = {"choices": [kind.value for kind in Kind], "help": "of this kind only"}
_SPOOL_ARGUMENTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "status": {"--json": {"action": "store_true", "help": "as one JSON object"}},
    "list": {
        "--limit": {"type": count, "default": 100, "metavar": "N", "help": "at most so many (%(default)s)"},
        "--kind": _KIND,
        "--json": {"action": "store_true", "help": "a JSON object a line, with the body"},
    },
    "replay": {
        "--endpoint": {"help": f"the collector's base URL; else ${env_name('endpoint')}"},
        "--write-key": {"help": f"sent as X-Write-Key; else ${env_name('write_key')}"},
        "--patience": {
            "type": number,
            "default": 30.0,
            "metavar": "SECONDS",
            "help": "give up after so long without a delivery (%(default)g)",
        },
    },
    "purge": {
        "--older-than": {"type": number, "metavar": "HOURS", "help": "accepted so long ago only"},
        "--kind": _KIND,
        "--yes": {"action": "store_true", "help": "do not ask"},
    },
}

_COMMANDS: Mapping[str, _Command] = {
    "demo": _Command(
        "Send traffic through an instrumented shop and show what arrives.",
        "demo",
        _add_demo_arguments,
        _run_demo,
    ),
    "collector": _Command(
        "Run the dev collector: receive, check, keep and show events.",
        "collector",
        _add_collector_arguments,
        _run_collector,
    ),
    "spool": _Command(
        "Look into a spool, deliver what it holds, or throw it away.",
        None,
        _add_spool_arguments,
        _run_spool,
    ),
    "explain": _Command(
        "Show the events that spans of a file become, and where each field comes from.",
        None,
        _add_explain_arguments,
        _run_explain,
    ),
    "doctor": _Command(
        "Check the options, the way to the collector, and OpenTelemetry's set-up; send a test event.",
        None,
        _add_doctor_arguments,
        _run_doctor,
    ),
    "bridge": _Command(
        "Take OTLP of any language, and events of other clients, and deliver them.",
        "bridge",
        bridge.add_arguments,
        _run_bridge,
    ),
    "tail": _Command(
        "Show a line for each event that arrives at a running dev collector.",
        None,
        _add_tail_arguments,
        _run_tail,
    ),
    "run": _Command(
        "Run a command instrumented, with a dev collector unless an endpoint is set, and show what arrives.",
        None,
        _add_run_arguments,
        _run_run,
    ),
    "docs": _Command("Show the manual: a topic, or which there are.", None, docs.add_arguments, docs.run),
}
