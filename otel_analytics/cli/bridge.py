"""``otel-analytics bridge``: its arguments, and what they mean together."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any, Final

from otel_analytics.cli.argument_types import address, count, seconds
from otel_analytics.config import Config, env_name
from otel_analytics.errors import ConfigError
from otel_analytics.option_kinds import HeaderValue

TOKEN_VARIABLE: Final = "OTEL_ANALYTICS_BRIDGE_TOKEN"  # noqa: S105 - its name
_DEFAULTS: Final = {"max_queue_size": 100_000}
"""Options that a bridge has otherwise than an application, where they are not set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--otlp",
        type=address,
        metavar="HOST:PORT",
        help="take OTLP/HTTP here, and events as a relay; port 0 for a free one",
    )
    parser.add_argument("--otlp-grpc", type=address, metavar="HOST:PORT", help="take OTLP/gRPC here")
    parser.add_argument("--token", help=f"what senders must show; else ${TOKEN_VARIABLE}; else none")
    parser.add_argument(
        "--max-body-bytes",
        type=count,
        metavar="N",
        help="largest request, before and after decompression (16 MiB)",
    )
    parser.add_argument(
        "--answer-within",
        type=seconds,
        metavar="SECONDS",
        help="answer after so long though events wait for their server spans (once all are accepted)",
    )
    parser.add_argument(
        "--spool",
        metavar="DIR",
        help=f"keep events here until they are delivered; else ${env_name('spool_path')}",
    )
    parser.add_argument("--endpoint", help=f"the collector's base URL; else ${env_name('endpoint')}")
    parser.add_argument("--write-key", help=f"sent as X-Write-Key; else ${env_name('write_key')}")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> bool:
    """Serve until SIGINT or SIGTERM.

    Args:
        options: Those that `add_arguments` declares, each `None` where not given.
        say: Takes a line for the operator.

    Returns:
        Whether nothing was lost.

    Raises:
        ConfigError: The arguments, or options in the environment, make no bridge.
        OSError: An address cannot be listened on.
    """
    from otel_analytics.bridge.reception import Limits  # noqa: PLC0415 - an extra
    from otel_analytics.bridge.server import Address, serve  # noqa: PLC0415 - the same
    from otel_analytics.client import AnalyticsClient  # noqa: PLC0415 - not for `--help` to wait for

    addresses = {
        name: Address(*given)
        for name in ("otlp", "otlp_grpc")
        if (given := getattr(options, name)) is not None
    }
    if not addresses:
        raise ConfigError("bridge needs a source: --otlp HOST:PORT, --otlp-grpc HOST:PORT, or both")
    bytes_given = {} if options.max_body_bytes is None else {"body_bytes": options.max_body_bytes}
    limits = Limits(answer_seconds=options.answer_within, **bytes_given)
    token = _token(options)
    client = AnalyticsClient(config=_config(options))
    return serve(client, announce=say, token=token, limits=limits, **addresses)


def _token(options: argparse.Namespace) -> str | None:
    token = options.token or os.environ.get(TOKEN_VARIABLE) or None
    try:
        return None if token is None else HeaderValue().check(HeaderValue().parse(token))
    except ValueError as error:
        wanted = str(error)
    # Outside of `except`, whose error may quote it.
    raise ConfigError(f"token=<hidden>: {wanted}")


def _config(options: argparse.Namespace) -> Config:
    defaults = {name: value for name, value in _DEFAULTS.items() if not os.environ.get(env_name(name))}
    given: dict[str, Any] = {
        **defaults,
        "endpoint": options.endpoint,
        "write_key": options.write_key,
        "spool_path": options.spool,
    }
    return Config.resolve(**given)
