"""Every option, once: name, default, unit and help stand in `Config`'s fields and nowhere else.

The environment variables, the README's table and the command line's help are made from these declarations.
Keyword arguments win over the environment, the environment over defaults.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

from otel_analytics.delivery.logs import log_safely
from otel_analytics.errors import ConfigError
from otel_analytics.events import BusinessEvent
from otel_analytics.mapping import semconv
from otel_analytics.option_kinds import (
    BaseUrl,
    BusinessEvents,
    Choice,
    FilePath,
    Flag,
    HeaderNames,
    Headers,
    HeaderValue,
    Hook,
    Kind,
    Names,
    Number,
    Patterns,
    Text,
)
from otel_analytics.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in `typing` from Python 3.11 on

ENV_PREFIX = "OTEL_EXPORTER_ANALYTICS_"
_DAY_MILLIS = 86_400_000
_LONGEST_NAME = 100
_MOST_NAMED = 20
IDENTITY_KEYS = (*semconv.USER_ID, *semconv.SESSION_ID)


def _option(default: Any, kind: Kind, text: str, *, secret: bool = False) -> Any:
    metadata = {"kind": kind, "help": text, "secret": secret}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All options of the exporter and the client, checked. Durations are milliseconds.

    Args:
        **options: Any option by name; `None` means "not given". See the README's table.

    Raises:
        ConfigError: An option has a value it cannot have. `Config` itself takes values only;
            `Config.resolve` reads the environment too.
    """

    endpoint: str = _option(
        "http://localhost:4380",
        BaseUrl(),
        "Base URL of the collector; events go to `/analytics/track/...` below it.",
    )
    write_key: str | None = _option(
        None, HeaderValue(), "Sent as `X-Write-Key`; never in a log, repr or traceback.", secret=True
    )
    headers: Mapping[str, str] = _option(
        {},
        Headers(),
        "More headers of each request, such as `Authorization`; in the environment `name=value,name=value`, "
        "percent-encoded. Their values are secrets, as the key is.",
        secret=True,
    )
    certificate: str | None = _option(
        None,
        FilePath(),
        "A PEM file with the certificates to trust an https collector by, instead of the system's.",
    )
    client_certificate: str | None = _option(
        None, FilePath(), "A PEM file with the certificate to show to an https collector that asks for one."
    )
    client_key: str | None = _option(
        None, FilePath(), "A PEM file with its private key, unencrypted, where that is not in the same file."
    )
    insecure_key: bool = _option(
        False,  # noqa: FBT003 - the option's default
        Flag(),
        "That key and headers go over plain HTTP to another host is meant so, and needs no warning.",
    )
    app_name: str | None = _option(
        None, Text(), "The `app` of views; without it, the resource's `service.name`."
    )
    timeout_millis: int = _option(
        5000, Number(1, _DAY_MILLIS, "milliseconds"), "Longest time of one request, connecting included."
    )
    batching: str = _option(
        "auto",
        Choice("auto", "on", "off"),
        "`auto`: batches once the collector advertises them; `on`: from the first request; `off`: never.",
    )
    max_batch_size: int = _option(
        512, Number(1, 1_000_000, "events"), "Most events in a batch; the collector's limit wins if smaller."
    )
    max_batch_bytes: int = _option(
        1_000_000,
        Number(1, 1_000_000_000, "bytes"),
        "Largest batch, uncompressed; the collector's limit wins if smaller.",
    )
    max_queue_size: int = _option(
        10_000,
        Number(1, 10_000_000, "events"),
        "Events waiting in memory, for views and for engagements each.",
    )
    max_connections: int = _option(
        64,
        Number(1, 1000, "connections"),
        "Most requests in flight when sending singly; as many as rate and latency ask for.",
    )
    flush_interval_millis: int = _option(
        1000, Number(1, _DAY_MILLIS, "milliseconds"), "Longest wait of an event for a batch to fill."
    )
    shutdown_timeout_millis: int = _option(
        5000,
        Number(0, _DAY_MILLIS, "milliseconds"),
        "Longest time the process waits at exit for what is not sent yet.",
    )
    flush_on_sigterm: bool = _option(
        True,  # noqa: FBT003 - the option's default
        Flag(),
        "Set up by the environment, send what waits when SIGTERM would kill the process; see `sdk.shutdown`.",
    )
    spool_path: str | None = _option(
        None,
        FilePath(),
        "A directory, shared by all worker processes: events survive crashes, restarts and outages.",
    )
    max_spool_bytes: int = _option(
        256_000_000,
        Number(1, 1_000_000_000_000, "bytes"),
        "Most bytes of events in the spool; views make room for engagements.",
    )
    max_spool_age_hours: int = _option(
        72,
        Number(1, 87_600, "hours"),
        "Events that could not be delivered for so long are dropped from the spool.",
    )
    compression: str = _option(
        "auto",
        Choice("auto", "none", "gzip"),
        "`auto`: gzip where the collector advertised it; `gzip`: always; `none`: never.",
    )
    view_metadata: bool = _option(
        True,  # noqa: FBT003 - the option's default
        Flag(),
        "Add `metadata` (event id, time, status code, route, trace) to views; false for a collector "
        "whose schema forbids unknown keys.",
    )
    business_events: Mapping[str, BusinessEvent] = _option(
        {},
        BusinessEvents(),
        'Event names beside the built-in five: `{"invoice_paid": "purchase"}`, or a `BusinessEvent`.',
    )
    client_ip: str = _option(
        "full",
        Choice("full", "truncate", "drop"),
        "`truncate` keeps /24 of an IPv4 and /48 of an IPv6 address; `drop` sends none.",
    )
    anonymous_user_id: str | None = _option(
        None,
        Text(empty=True),
        "`userId` of an engagement nobody is known for. Without it, `anonymous-...` made from the session or "
        "the request, so that strangers are not one buyer; empty: such events are dropped and counted.",
    )
    count_unsampled: bool = _option(
        True,  # noqa: FBT003 - the option's default
        Flag(),
        "Set up by the environment, count also the calls that tracing samples out; its own sample stays.",
    )
    identity_wait_millis: int = _option(
        5000,
        Number(0, 600_000, "milliseconds"),
        "Longest time an event waits for its request's server span to end, which tells its user; 0: none.",
    )
    trusted_baggage: tuple[str, ...] = _option(
        (),
        Names(*IDENTITY_KEYS),
        "Keys of inbound baggage that tell who a request is from, such as `user.id`; none by default, since "
        "anybody can send baggage. Needs the span processor.",
    )
    trusted_proxy_hops: int = _option(
        0,
        Number(0, 100, "proxies"),
        "Proxies before the application whose X-Forwarded-For (or Forwarded) entry is trusted, counted from "
        "the right; the header must be captured by the instrumentation.",
    )
    client_ip_headers: tuple[str, ...] = _option(
        (),
        HeaderNames(),
        "Headers into which the proxy before the application writes the client's address, such as "
        "`X-Real-IP`, `CF-Connecting-IP`; read before X-Forwarded-For, and only with `trusted_proxy_hops`.",
    )
    device_type: str = _option(
        "desktop", Text(), "`deviceType` of views: a fixed word, or `auto` to read it from the user agent."
    )
    excluded_endpoints: tuple[str, ...] = _option(
        (),
        Patterns(),
        "Endpoints that give no view: shell patterns of `METHOD:endpoint` or of the endpoint alone.",
    )
    max_endpoints: int = _option(
        1000,
        Number(1, 1_000_000, "endpoints"),
        "Distinct endpoints taken from raw paths, and as many from routes that equal their path; further ones"
        " become `{other}`.",
    )
    before_send: Callable[..., Any] | None = _option(  # noqa: RUF009 - a declaration as all others
        None,
        Hook(),
        "A function of an event that returns it, a changed one (`dataclasses.replace`), or `None` to drop "
        "it. It runs where the event is made, before the event waits anywhere; where it raises, the event is "
        "dropped. Set in code only.",
    )
    on_drop: Callable[..., Any] | None = _option(  # noqa: RUF009 - the same
        None,
        Hook(),
        "A function of a reason and the events dropped for it, on a thread of its own; `reason.stated` is "
        "what the collector said, if anything. Set in code only.",
    )
    debug: bool = _option(False, Flag(), "Log every delivery at DEBUG, without payloads.")  # noqa: FBT003

    def __post_init__(self) -> None:
        """Check every option, whoever made this object; what is wrong is told at once."""
        problems: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            if value is None and option.default is None:
                continue
            try:
                object.__setattr__(self, option.name, _checked(option, value, option.name))
            except ConfigError as error:
                problems.append(str(error))
        _raise_all(problems)

    @classmethod
    def resolve(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        endpoint: str | None = None,
        **options: Unpack[Options],
    ) -> Config:
        """Build from keyword arguments and the environment.

        Args:
            environ: The environment to read, `os.environ` by default.
            endpoint: Base URL of the collector.
            **options: Options by name; `None` is "not given".

        Raises:
            ConfigError: Unknown options, or values that they cannot have; all of them in one message.
        """
        known = {option.name: option for option in fields(cls)}
        given: dict[str, Any] = {"endpoint": endpoint, **options}
        problems = [_unknown_option(name, known) for name in given if name not in known]
        environ = os.environ if environ is None else environ
        _tell_unknown(environ)
        values = {name: value for name, value in given.items() if value is not None and name in known}
        for name, option in known.items():
            # The OpenTelemetry specification: an empty variable is an unset one.
            text = environ.get(env_name(name), "")
            if name not in values and text:
                try:
                    values[name] = _parsed(option, text)
                except ConfigError as error:
                    problems.append(str(error))
        made = None
        try:
            made = cls(**values)
        except ConfigError as error:
            problems.append(str(error))
        _raise_all(problems)
        return cast("Config", made)  # what cannot be made is a problem


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return each variable that looks like an option's and is none, with the one that may be meant.

    Args:
        environ: The environment to read.
    """
    known = {env_name(option.name): option.name for option in fields(Config)}
    names = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    return [_unknown_variable(name, known) for name in names]


def _unknown_variable(name: str, known: Mapping[str, str]) -> str:
    exact = env_name(name.removeprefix(ENV_PREFIX).lower())  # durations there have no `_MILLIS`
    # Without the prefix, which all have in common: else every name would be close to every other.
    short = {variable.removeprefix(ENV_PREFIX): variable for variable in known}
    close = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), short, n=1)
    meant = exact if exact in known else short[close[0]] if close else ""
    return f"{name[:_LONGEST_NAME]} ({f'did you mean {meant}?' if meant else 'like no option'})"


_told: set[str] = set()


def _tell_unknown(environ: Mapping[str, str]) -> None:
    """Name what is mistyped once in a process, all in one line."""
    unknown = [each for each in unknown_variables(environ) if each not in _told]
    if unknown:
        _told.update(unknown)
        log_safely(
            logging.WARNING,
            "environment variables that are no option and do nothing: %s",
            ", ".join(unknown[:_MOST_NAMED]),
        )


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError(" ".join(problems))


def env_name(option: str) -> str:
    """Return an option's environment variable; as in the SDK, durations there lose their ``_millis``."""
    return ENV_PREFIX + option.removesuffix("_millis").upper()


def describe_options() -> list[dict[str, str]]:
    """Return name, env, default, unit and help of each option, as the README's table shows them."""
    return [
        {
            "name": option.name,
            "env": env_name(option.name),
            "default": _default_text(option),
            "unit": getattr(option.metadata["kind"], "unit", ""),
            "help": option.metadata["help"],
        }
        for option in fields(Config)
    ]


def _default_text(option: Field[Any]) -> str:
    if option.default in (None, MISSING, ()):
        return "none"
    if isinstance(option.default, bool):
        return str(option.default).lower()
    return str(option.default)


def _parsed(option: Field[Any], text: str) -> Any:
    value = _tried(option, option.metadata["kind"].parse, text, env_name(option.name))
    return _checked(option, value, env_name(option.name))


def _checked(option: Field[Any], value: Any, spelling: str) -> Any:
    return _tried(option, option.metadata["kind"].check, value, spelling)


def _tried(option: Field[Any], step: Callable[[Any], Any], value: Any, spelling: str) -> Any:
    try:
        return step(value)
    except (ValueError, TypeError) as error:
        wanted = str(error)
    # Outside of `except`: even with `from None` the first error, which may quote a secret, would hang on.
    raise _config_error(option, value, spelling, wanted)


def _config_error(option: Field[Any], value: Any, spelling: str, wanted: str) -> ConfigError:
    default = _default_text(option)
    return ConfigError(
        f"{spelling}={_shown(option, value)}: {wanted}. Pass {option.name}=... or set "
        f"{env_name(option.name)}, or leave it out for the default ({default})."
    )


def _shown(option: Field[Any], value: Any) -> str:
    if option.metadata["secret"]:
        return "<hidden>"
    show: Callable[[Any], str] = getattr(option.metadata["kind"], "show", repr)
    try:
        return show(value)[:100]
    except Exception:  # noqa: BLE001 - anybody's repr; that of an int with thousands of digits raises
        return f"<{type(value).__name__}>"


def _unknown_option(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(known)}."
    return f"{name} is not an option: {hint}"
