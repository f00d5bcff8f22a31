"""``otel-analytics doctor``: why nothing comes - the options, the way to the collector, OpenTelemetry itself.

Each check gives a `Finding`; none raises. One event is sent, whose `contentId` says that it is a test.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import socket
import ssl
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, NamedTuple

import httpx

from otel_analytics.cli.surroundings import is_entry_point, is_installed, missing_instrumentations
from otel_analytics.config import Config, env_name, unknown_variables
from otel_analytics.contract import (
    ADVERTISEMENT,
    PATHS,
    WRITE_KEY,
    Advertisement,
    Kind,
    parse_advertisement,
    read_acknowledgement,
    rfc3339,
)
from otel_analytics.delivery.http.reasons import one_line, stated_reason
from otel_analytics.errors import ConfigError
from otel_analytics.escaping import escaped
from otel_analytics.events import EngagementEvent, Event, ViewEvent

Say = Callable[[str], None]

TEST_CONTENT: Final = "TEST:/otel-analytics-doctor"
"""What the test events are about; a collector can leave it out of its reports."""
_APP: Final = "otel-analytics-doctor"
_MOST_SKEW_SECONDS: Final = 5
_OK, _CONFLICT = range(200, 300), 409

_REMEDIES: Final[Mapping[int, str]] = {
    401: "the collector does not know this write_key",
    403: "the collector does not allow this write_key to write",
    404: "nothing there: endpoint is the base URL, without /analytics/track",
    405: "nothing there that takes POST: is this the collector's base URL?",
    422: "the collector's schema is another one: try view_metadata=false",
}
_SAMPLERS: Final = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "parentbased_")
    for name in ("always_on", "always_off", "traceidratio")
)
_OTLP: Final[Mapping[str, str]] = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_SIGNALS: Final = ("traces", "metrics", "logs")


class Level(str, Enum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(NamedTuple):
    """What a check found.

    Args:
        area: `options`, `network`, `opentelemetry` or `contract`.
        name: What was looked at.
        level: How it went.
        text: What is there, and the remedy where it is wrong.
    """

    area: str
    name: str
    level: Level
    text: str


def run(options: argparse.Namespace, say: Say) -> bool:
    """Check, and tell.

    Args:
        options: `endpoint`, `write_key`, `collector`, each `None` where not given, and `json`.
        say: Takes a line of the result.

    Returns:
        Whether nothing failed; warnings are no failures.
    """
    found = list(_of_collector(options) if options.collector else _of_exporter(options))
    if options.json:
        say(json.dumps([each._asdict() for each in found]))
    else:
        for line in _lines(found):
            say(escaped(line))
    return all(each.level is not Level.FAILED for each in found)


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    area = ""
    for each in found:
        if each.area != area:
            area = each.area
            yield area
        yield f"  {each.level.value:<8} {each.name:<24} {each.text}"
    counts = {level: sum(each.level is level for each in found) for level in Level}
    yield f"{counts[Level.FAILED]} failed, {counts[Level.WARNING]} warnings, {counts[Level.OK]} ok"


def _of_exporter(options: argparse.Namespace) -> Iterator[Finding]:
    given = {"endpoint": options.endpoint, "write_key": options.write_key}
    yield from option_findings({name: value for name, value in given.items() if value}, os.environ)
    try:
        config = Config.resolve(**given)
    except ConfigError:  # told with the options
        pass
    else:
        yield from _network(config)
    yield from opentelemetry_findings(os.environ)


def _of_collector(options: argparse.Namespace) -> Iterator[Finding]:
    try:
        config = Config.resolve(endpoint=options.collector, write_key=options.write_key)
    except ConfigError as error:
        yield Finding("options", "collector", Level.FAILED, str(error))
        return
    reached = list(_reach(config))
    yield from reached
    if reached[-1].level is not Level.FAILED:
        with _session(config) as session:
            yield from _contract(session, config)


# Options


def option_findings(given: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield each option with its value and its source; all that are wrong, not only the first.

    Args:
        given: Arguments, by option.
        environ: The environment.
    """
    for option in fields(Config):
        name = option.name
        variable = env_name(name)
        source = "argument" if name in given else variable if environ.get(variable) else "default"
        own = {name: given[name]} if name in given else {}
        try:
            config = Config.resolve(environ={variable: environ.get(variable, "")}, **own)
        except ConfigError as error:
            yield Finding("options", name, Level.FAILED, str(error))
            continue
        value = getattr(config, name)
        shown = "<hidden>" if option.metadata["secret"] and value else repr(value)
        yield Finding("options", name, Level.OK, f"{shown} ({source})")
    for unknown in unknown_variables(environ):
        yield Finding("options", "environment", Level.WARNING, f"no option: {unknown}")


# The way to the collector


def _network(config: Config) -> Iterator[Finding]:
    reached = list(_reach(config))
    yield from reached
    if reached[-1].level is Level.FAILED:
        return
    with _session(config) as session:
        yield from _sent(session, config)


def _session(config: Config) -> httpx.Client:
    keys = {WRITE_KEY: config.write_key} if config.write_key else {}
    context: Any = _tls(config) if config.endpoint.startswith("https:") else True
    return httpx.Client(
        headers={"User-Agent": _APP, **keys, **config.headers},
        timeout=config.timeout_millis / 1000,
        verify=context,
    )


def _tls(config: Config) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.certificate)
    if config.client_certificate:
        context.load_cert_chain(config.client_certificate, config.client_key)
    return context


def _reach(config: Config) -> Iterator[Finding]:
    """Yield how far a connection comes: the name, the port, TLS; at the first failure it ends."""
    url = httpx.URL(config.endpoint)
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not urllib.request.proxy_bypass(url.host):
        yield Finding("network", "proxy", Level.OK, f"through {httpx.URL(proxy).host}, by the environment")
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        addresses = sorted({str(each[4][0]) for each in socket.getaddrinfo(url.host, port)})
    except OSError as error:
        yield Finding("network", "resolve", Level.FAILED, f"{url.host}: {error}: is the name right?")
        return
    yield Finding("network", "resolve", Level.OK, f"{url.host} is {', '.join(addresses)}")
    try:
        connection = socket.create_connection((url.host, port), config.timeout_millis / 1000)
    except OSError as error:
        text = f"{url.host} port {port}: {error}: does a collector run there?"
        yield Finding("network", "connect", Level.FAILED, text)
        return
    with connection:
        yield Finding("network", "connect", Level.OK, f"port {port}")
        if url.scheme == "https":
            yield _encrypted(connection, url.host, config)


def _encrypted(connection: socket.socket, host: str, config: Config) -> Finding:
    try:
        with _tls(config).wrap_socket(connection, server_hostname=host) as encrypted:
            certificate: Mapping[str, Any] = encrypted.getpeercert() or {}
            until = certificate.get("notAfter", "")
            return Finding("network", "tls", Level.OK, f"{encrypted.version()}, certificate until {until}")
    except OSError as error:  # ssl.SSLError is one
        remedy = "see the options certificate, client_certificate"
        if "WRONG_VERSION_NUMBER" in str(error):
            remedy = "nothing speaks TLS there: is it http:// that endpoint begins with?"
        return Finding("network", "tls", Level.FAILED, f"{error}: {remedy}")


def _sent(session: httpx.Client, config: Config) -> Iterator[Finding]:
    began = time.time()
    answer = _post(session, config, Kind.VIEW, _test_view().body(view_metadata=config.view_metadata))
    seconds = time.time() - began
    if isinstance(answer, str):
        yield Finding("network", "test event", Level.FAILED, answer)
        return
    yield _answered(answer)
    yield Finding("network", "latency", Level.OK, f"{seconds * 1000:.0f} ms, connecting included")
    yield _clock(answer.headers.get("Date"), began + seconds / 2)
    advertised = parse_advertisement(answer.headers.get(ADVERTISEMENT))
    yield Finding("network", "batches", Level.OK, _batches(config, advertised))
    yield Finding("network", "compression", Level.OK, _compression(config, advertised))


def _answered(answer: httpx.Response) -> Finding:
    status = answer.status_code
    if status in _OK and _is_page(answer):
        return Finding("network", "test event", Level.FAILED, f"{status}: {_PAGE}")
    if status in _OK:
        return Finding("network", "test event", Level.OK, f"{status}: {TEST_CONTENT} was taken")
    said = stated_reason(answer.headers.get("Content-Type", ""), answer.content)
    remedy = _REMEDIES.get(status, "redirects are not followed" if status in range(300, 400) else "")
    text = ": ".join(filter(None, (str(status), said, remedy)))
    return Finding("network", "test event", Level.FAILED, text)


def _is_page(answer: httpx.Response) -> bool:
    return "html" in answer.headers.get("Content-Type", "").lower() and bool(answer.content.strip())


_PAGE: Final = "an HTML page, usually a login form or a proxy, which stores nothing: check endpoint"


def _clock(date: str | None, now: float) -> Finding:
    """Compare the clocks by the answer's `Date`, whose resolution is a second (RFC 9110, section 6.6.1)."""
    try:
        skew = parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except (ValueError, TypeError):
        return Finding("network", "clock", Level.OK, "unknown: the answer has no Date")
    if abs(skew) <= _MOST_SKEW_SECONDS:
        return Finding("network", "clock", Level.OK, f"within {_MOST_SKEW_SECONDS} s of the collector's")
    which = "behind" if skew > 0 else "ahead of"
    text = f"{abs(skew):.0f} s {which} the collector's: events will have wrong times"
    return Finding("network", "clock", Level.WARNING, text)


def _batches(config: Config, advertised: Advertisement | None) -> str:
    if config.batching != "auto":
        return f"{config.batching}, by the option batching"
    return advertised.header() if advertised else "singly: the collector advertises none"


def _compression(config: Config, advertised: Advertisement | None) -> str:
    if config.compression != "auto":
        return f"{config.compression}, by the option compression"
    return "gzip" if advertised and advertised.gzip else "none: the collector advertises none"


def _post(
    session: httpx.Client, config: Config, kind: Kind, body: Any, **headers: str
) -> httpx.Response | str:
    """Send a body, bytes or what becomes JSON; return the answer, or why there is none."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    own = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
    try:
        return session.post(
            config.endpoint + PATHS[kind],
            content=content,
            headers={**own, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )
    except (httpx.HTTPError, OSError) as error:
        cut_off = isinstance(error, httpx.RemoteProtocolError) and config.endpoint.startswith("http:")
        remedy = ": does it speak TLS? Then endpoint begins with https://" if cut_off else ""
        return one_line(f"{type(error).__name__}: {error}{remedy}")


def _test_view() -> ViewEvent:
    who = str(uuid.uuid4())
    now = rfc3339(time.time_ns())
    return ViewEvent(
        who, now, TEST_CONTENT, "post", f"{_APP}-{who}", "desktop", _APP, metadata={"test": True}
    )


def _test_engagement() -> EngagementEvent:
    now = rfc3339(time.time_ns())
    return EngagementEvent(str(uuid.uuid4()), now, _APP, "comment", TEST_CONTENT, metadata={"test": True})


# A collector against the contract

_TEST_EVENTS: Final[Mapping[Kind, Callable[[], Event]]] = {
    Kind.VIEW: _test_view,
    Kind.ENGAGEMENT: _test_engagement,
}
_REFUSED: Final = range(400, 500)


def _contract(session: httpx.Client, config: Config) -> Iterator[Finding]:
    advertised: Advertisement | None = None
    for kind, make in _TEST_EVENTS.items():
        event = make()
        key = {"Idempotency_Key": event.event_id}
        first = _post(session, config, kind, event.body(), **key)
        yield _expected(kind, "one event", first, _OK)
        yield _expected(
            kind, "sent again", _post(session, config, kind, event.body(), **key), (*_OK, _CONFLICT)
        )
        yield _expected(kind, "a field missing", _post(session, config, kind, {"app": _APP}), _REFUSED)
        yield _expected(kind, "no JSON", _post(session, config, kind, b"{"), _REFUSED)
        if isinstance(first, httpx.Response):
            advertised = parse_advertisement(first.headers.get(ADVERTISEMENT))
        if advertised is not None and advertised.max_events:
            yield from _arrays(session, config, kind, advertised)
    bare = _post(session, config, Kind.VIEW, _test_view().body(view_metadata=False))
    yield _expected(Kind.VIEW, "without metadata", bare, _OK)
    if config.write_key:
        wrong = {WRITE_KEY.replace("-", "_"): "otel-analytics-doctor-wrong"}
        refused = _post(session, config, Kind.VIEW, _test_view().body(), **wrong)
        yield _expected(Kind.VIEW, "a wrong key", refused, (401, 403))
    if advertised is None:
        yield Finding("contract", "batches", Level.OK, "none are advertised, so events come singly")


def _arrays(
    session: httpx.Client, config: Config, kind: Kind, advertised: Advertisement
) -> Iterator[Finding]:
    make = _TEST_EVENTS[kind]
    yield _acknowledged(kind, "a batch", _post(session, config, kind, [make().body(), make().body()]), [])
    mixed = [make().body(), {"app": _APP}]
    yield _acknowledged(kind, "a batch, one bad", _post(session, config, kind, mixed), [1])
    if advertised.gzip:
        body = gzip.compress(json.dumps([make().body(), make().body()]).encode())
        answer = _post(session, config, kind, body, Content_Encoding="gzip")
        yield _acknowledged(kind, "a batch, gzip", answer, [])


def _expected(kind: Kind, what: str, answer: httpx.Response | str, wanted: Sequence[int]) -> Finding:
    name = f"{kind.value}: {what}"
    if isinstance(answer, str):
        return Finding("contract", name, Level.FAILED, answer)
    said = stated_reason(answer.headers.get("Content-Type", ""), answer.content)
    if answer.status_code in wanted:
        return Finding("contract", name, Level.OK, str(answer.status_code))
    text = f"{answer.status_code}, not {_in_words(wanted)}" + (f": {said}" if said else "")
    return Finding("contract", name, Level.FAILED, text)


def _in_words(statuses: Sequence[int]) -> str:
    if isinstance(statuses, range):
        return f"{statuses[0]} to {statuses[-1]}"
    return f"{statuses[0]} to {statuses[-2]}, or {statuses[-1]}"


def _acknowledged(kind: Kind, what: str, answer: httpx.Response | str, bad: Sequence[int]) -> Finding:
    """Judge the answer to an array of two events."""
    found = _expected(kind, what, answer, _OK)
    if found.level is Level.FAILED or isinstance(answer, str):
        return found
    try:
        failures = [each.index for each in read_acknowledgement(answer.content, 2)]
    except ValueError as error:
        return found._replace(level=Level.FAILED, text=str(error))
    if failures != bad:
        return found._replace(level=Level.FAILED, text=f"failures has {failures}, not {list(bad)}")
    return found


# OpenTelemetry


def opentelemetry_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what of this environment's OpenTelemetry set-up decides whether spans come.

    Args:
        environ: The environment.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        text = "true: there are no spans at all"
        yield Finding("opentelemetry", "OTEL_SDK_DISABLED", Level.FAILED, text)
    for signal in _SIGNALS:
        yield _exporter(signal, environ)
    yield _sampler(environ)
    yield _conventions(environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", ""))
    yield _service(environ)
    yield _distribution()
    yield from _instrumentations(environ)


def _conventions(mode: str) -> Finding:
    """Judge the mode; instrumentations pass over a word that they do not know."""
    said = [word.strip() for word in mode.split(",")]
    near = {word: get_close_matches(word, _CONVENTIONS, n=1) for word in said if word not in _CONVENTIONS}
    wrong = [f"{word!r}: did you mean {meant[0]}?" for word, meant in near.items() if meant]
    if wrong:
        return Finding("opentelemetry", "semantic conventions", Level.WARNING, ", ".join(wrong))
    text = f"{mode or 'not set: old names'} (all are read)"
    return Finding("opentelemetry", "semantic conventions", Level.OK, text)


_CONVENTIONS: Final = ("http", "http/dup", "database", "database/dup", "rpc", "rpc/dup")


def _exporter(signal: str, environ: Mapping[str, str]) -> Finding:
    """Judge a signal's exporters: one that is not there makes the distribution set up nothing at all."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    set_to = environ.get(variable, "").strip()
    # What opentelemetry-distro sets where nothing is set.
    text = set_to or ("otlp" if is_installed("opentelemetry-distro") else "none")
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
    group = f"opentelemetry_{signal}_exporter"
    absent = [name for name in names if not is_entry_point(group, _by_protocol(name, signal, environ))]
    by = "" if set_to else " (default)"
    if absent:
        remedy = (
            f"{', '.join(absent)} is not installed{by}: nothing is set up; set {variable}=none, or install it"
        )
        return Finding("opentelemetry", variable, Level.FAILED, remedy)
    if signal == "traces" and "analytics" not in names:
        return Finding(
            *("opentelemetry", variable, Level.WARNING),
            f"{text}{by}: without analytics among them, spans come here only where code sets this package up",
        )
    return Finding("opentelemetry", variable, Level.OK, f"{text}{by}")


def _by_protocol(name: str, signal: str, environ: Mapping[str, str]) -> str:
    """Return the name under which the SDK looks an exporter up: OTLP has one for each protocol."""
    if name != "otlp":
        return name
    general = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "").strip() or general
    return _OTLP.get(protocol, "otlp_proto_grpc")


def _sampler(environ: Mapping[str, str]) -> Finding:
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    shown = f"{name} {argument}".strip()
    if name not in _SAMPLERS and not is_entry_point("opentelemetry_traces_sampler", name):
        return Finding("opentelemetry", "sampler", Level.WARNING, f"{shown}: no such sampler is installed")
    if name.endswith("always_on"):
        return Finding("opentelemetry", "sampler", Level.OK, shown)
    counted = f"{shown}: set up by the environment, calls sampled out are counted; else they are missing"
    return Finding("opentelemetry", "sampler", Level.WARNING, counted)


def _service(environ: Mapping[str, str]) -> Finding:
    attributes = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = dict(pair.strip().split("=", 1) for pair in attributes.split(",") if "=" in pair)
    name = environ.get("OTEL_SERVICE_NAME") or named.get("service.name") or environ.get(env_name("app_name"))
    if name:
        return Finding("opentelemetry", "service name", Level.OK, name)
    text = "none: views will have the app unknown_service; set OTEL_SERVICE_NAME"
    return Finding("opentelemetry", "service name", Level.WARNING, text)


def _distribution() -> Finding:
    if is_installed("opentelemetry-distro"):
        return Finding("opentelemetry", "distribution", Level.OK, "opentelemetry-distro")
    text = (
        "opentelemetry-distro is not installed: opentelemetry-instrument sets nothing up; set it up in code"
    )
    return Finding("opentelemetry", "distribution", Level.WARNING, text)


def _instrumentations(environ: Mapping[str, str]) -> Iterator[Finding]:
    missing = missing_instrumentations()
    for framework, package in missing:
        text = f"is installed without its instrumentation: pip install {package}"
        yield Finding("opentelemetry", framework, Level.WARNING, text)
    if not missing:
        text = "none is missing for the frameworks installed"
        yield Finding("opentelemetry", "instrumentations", Level.OK, text)
    if disabled := environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").strip():
        yield Finding("opentelemetry", "disabled", Level.WARNING, f"{disabled}, by the environment")
