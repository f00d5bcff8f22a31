"""``otel-analytics bridge``: its arguments, and what they mean together."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_analytics.cli.argument_types import address, count, seconds, setting
from otel_analytics.config import Config, env_name
from otel_analytics.errors import ConfigError
from otel_analytics.option_kinds import HeaderValue

if TYPE_CHECKING:
    from otel_analytics.client import AnalyticsClient

TOKEN_VARIABLE: Final = "OTEL_ANALYTICS_BRIDGE_TOKEN"  # noqa: S105 - its name
KAFKA_VARIABLE: Final = "OTEL_ANALYTICS_BRIDGE_KAFKA_CONFIG"
_GROUP: Final = "otel-analytics"
_DEFAULTS: Final = {"max_queue_size": 100_000}
"""Options that a bridge has otherwise than an application, where they are not set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments, none of which has a default: what is given is known by that."""
    for name, settings in _ARGUMENTS.items():
        parser.add_argument(name, **settings)


_ARGUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "--otlp": {
        "type": address,
        "metavar": "HOST:PORT",
        "help": "take OTLP/HTTP here, and events as a relay; port 0 for a free one",
    },
    "--otlp-grpc": {"type": address, "metavar": "HOST:PORT", "help": "take OTLP/gRPC here"},
    "--token": {"help": f"what senders must show; else ${TOKEN_VARIABLE}; else none"},
    "--max-body-bytes": {
        "type": count,
        "metavar": "N",
        "help": "largest request, before and after decompression (16 MiB)",
    },
    "--answer-within": {
        "type": seconds,
        "metavar": "SECONDS",
        "help": "answer after so long though events wait for their server spans (once all are accepted)",
    },
    "--spool": {
        "metavar": "DIR",
        "help": f"keep events here until they are delivered; else ${env_name('spool_path')}",
    },
    "--kafka": {"metavar": "BOOTSTRAP", "help": "read from Kafka: its brokers, HOST:PORT,HOST:PORT"},
    "--topic": {"action": "append", "metavar": "NAME", "help": "a topic of traces; may be repeated"},
    "--logs-topic": {"action": "append", "metavar": "NAME", "help": "a topic of logs; may be repeated"},
    "--group": {"metavar": "NAME", "help": f"the consumer group ({_GROUP})"},
    "--kafka-config": {
        "action": "append",
        "type": setting,
        "metavar": "NAME=VALUE",
        "help": f"any setting of librdkafka; may be repeated; before them the lines of ${KAFKA_VARIABLE}",
    },
    "--kafka-poison": {"metavar": "DIR", "help": "keep messages here that cannot be read"},
    "--endpoint": {"help": f"the collector's base URL; else ${env_name('endpoint')}"},
    "--write-key": {"help": f"sent as X-Write-Key; else ${env_name('write_key')}"},
}
_OF_SERVERS: Final = ("token", "max_body_bytes", "answer_within")
_OF_KAFKA: Final = ("topic", "logs_topic", "group", "kafka_config", "kafka_poison")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> bool:
    """Work until SIGINT or SIGTERM.

    Args:
        options: Those that `add_arguments` declares, each `None` where not given.
        say: Takes a line for the operator.

    Returns:
        Whether nothing was lost.

    Raises:
        ConfigError: The arguments, or options in the environment, make no bridge.
        OSError: An address cannot be listened on.
    """
    from otel_analytics.client import AnalyticsClient  # noqa: PLC0415 - not for `--help` to wait for

    _check({name for name, value in vars(options).items() if value is not None})
    options.token = _token(options)
    config = _config(options)
    if options.kafka and config.spool_path:
        raise ConfigError("Kafka keeps what is not delivered: leave spool_path out")
    work = _read_kafka if options.kafka else _serve
    client = AnalyticsClient(config=config)
    is_whole = work(options, client, say)
    ledger = client.stats()
    say(f"Stopped: {ledger.accepted} events accepted, {ledger.delivered} delivered")
    return is_whole


def _check(given: set[str]) -> None:
    """Look at what arguments mean together."""
    sources = given & {"otlp", "otlp_grpc", "kafka"}
    if not sources:
        raise ConfigError(
            "bridge needs a source: --otlp HOST:PORT, --otlp-grpc HOST:PORT or --kafka BOOTSTRAP"
        )
    if "kafka" in sources and len(sources) > 1:
        raise ConfigError("a bridge reads from Kafka or listens for OTLP: run one for each")
    idle = [name for name in (_OF_SERVERS if "kafka" in sources else _OF_KAFKA) if name in given]
    if idle:
        source = "--otlp" if "kafka" in sources else "--kafka"
        raise ConfigError(f"{', '.join(map(_spelt, idle))}: only with {source}")
    if "kafka" in sources and not given & {"topic", "logs_topic"}:
        raise ConfigError("--kafka needs --topic NAME or --logs-topic NAME")


def _spelt(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _serve(options: argparse.Namespace, client: AnalyticsClient, say: Callable[[str], None]) -> bool:
    from otel_analytics.bridge.reception import Limits  # noqa: PLC0415 - an extra
    from otel_analytics.bridge.server import Address, serve  # noqa: PLC0415 - the same

    given = {name: getattr(options, name) for name in ("otlp", "otlp_grpc")}
    addresses = {name: Address(*where) for name, where in given.items() if where is not None}
    bytes_given = {} if options.max_body_bytes is None else {"body_bytes": options.max_body_bytes}
    limits = Limits(answer_seconds=options.answer_within, **bytes_given)
    return serve(client, announce=say, token=options.token, limits=limits, **addresses)


def _read_kafka(options: argparse.Namespace, client: AnalyticsClient, say: Callable[[str], None]) -> bool:
    from otel_analytics.bridge.intake import Intake, Signal  # noqa: PLC0415 - an extra
    from otel_analytics.collector.signals import stop_signals  # noqa: PLC0415 - the same

    try:
        from otel_analytics.bridge.kafka import KafkaReader, PoisonFiles  # noqa: PLC0415 - the same
    except ImportError:
        raise ConfigError("--kafka needs an extra: pip install 'otel-analytics[bridge]'") from None

    topics = dict.fromkeys(options.logs_topic or (), Signal.LOGS)
    topics |= dict.fromkeys(options.topic or (), Signal.TRACES)
    poison = None if options.kafka_poison is None else PoisonFiles(Path(options.kafka_poison))
    with client, stop_signals() as stop:
        reader = KafkaReader(Intake(client), topics, _kafka_config(options), poison=poison)
        where = f"{', '.join(topics)} at {options.kafka}"
        say(f"Bridge: reads {where}, to {client.config.endpoint} (Ctrl-C stops it)")
        reader.run(stop)
    return True  # what is not delivered is not committed


def _kafka_config(options: argparse.Namespace) -> dict[str, str | int]:
    lines = os.environ.get(KAFKA_VARIABLE, "").splitlines()
    try:
        lasting = dict(setting(line) for line in lines if line.strip())
    except ValueError:
        lasting = None
    if lasting is None:  # outside of `except`, whose error may hold a password
        raise ConfigError(f"{KAFKA_VARIABLE}=<hidden>: must be lines of NAME=VALUE")
    own = {"bootstrap.servers": options.kafka, "group.id": options.group or _GROUP}
    return {**lasting, **dict(options.kafka_config or ()), **own}


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
