"""Options: from code, from the environment, and what a wrong one says."""

from __future__ import annotations

import pickle
import sys
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from otel_analytics import AnalyticsClient, BusinessEvent, Config, ConfigError
from otel_analytics.config import describe_options, env_name
from otel_analytics.option_kinds import Choice, Number
from otel_analytics.options import Options
from otel_analytics.testing import FaultyCollector


def resolve(environ: dict[str, str] | None = None, **options: Any) -> Config:
    return Config.resolve(environ=environ or {}, **options)


def test_defaults() -> None:
    config = resolve()
    assert config == Config()
    assert (config.endpoint, config.batching, config.max_queue_size) == (
        "http://localhost:4380",
        "auto",
        10_000,
    )


def test_code_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"OTEL_EXPORTER_ANALYTICS_TIMEOUT": "1000", "OTEL_EXPORTER_ANALYTICS_APP_NAME": "env"}
    config = resolve(environ, app_name="code", write_key=None)
    assert (config.timeout_millis, config.app_name, config.write_key) == (1000, "code", None)


def test_an_empty_variable_is_an_unset_one() -> None:
    assert resolve({"OTEL_EXPORTER_ANALYTICS_ENDPOINT": ""}).endpoint == "http://localhost:4380"


FROM_ENVIRONMENT = [
    ("VIEW_METADATA", "False", "view_metadata", False),
    ("DEBUG", "1", "debug", True),
    ("BATCHING", "OFF", "batching", "off"),
    ("FLUSH_INTERVAL", "250", "flush_interval_millis", 250),
    ("SHUTDOWN_TIMEOUT", "0", "shutdown_timeout_millis", 0),
    ("WRITE_KEY", " wk_1 ", "write_key", "wk_1"),
    ("ENDPOINT", "https://a.example/base/", "endpoint", "https://a.example/base"),
    ("HEADERS", "x-tenant=shop, Authorization = Bearer%20a%2Cb%3D ,%78-empty=,", "headers",
     {"X-Tenant": "shop", "Authorization": "Bearer a,b=", "X-Empty": ""}),
    ("CERTIFICATE", "/etc/ca.pem", "certificate", "/etc/ca.pem"),
    ("INSECURE_KEY", "true", "insecure_key", True),
    ("CLIENT_IP_HEADERS", "CF-Connecting-IP, X-Real-IP", "client_ip_headers",
     ("CF-Connecting-IP", "X-Real-IP")),
    ("BUSINESS_EVENTS", "paid=purchase, lead=signup", "business_events",
     {"paid": BusinessEvent("purchase"), "lead": BusinessEvent("signup")}),
    ("BUSINESS_EVENTS", '{"paid": {"metric_type": "purchase", "target_type": "invoice"}}', "business_events",
     {"paid": BusinessEvent("purchase", "invoice")}),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text", "option", "value"), FROM_ENVIRONMENT)
def test_environment(variable: str, text: str, option: str, value: Any) -> None:
    assert getattr(resolve({f"OTEL_EXPORTER_ANALYTICS_{variable}": text}), option) == value


WRONG = [
    ("endpoint", "ftp://a.example"),
    ("endpoint", "analytics.example.com"),
    ("endpoint", "http://"),
    ("endpoint", "https://a.example:port"),
    ("endpoint", 7),
    ("timeout_millis", 0),
    ("timeout_millis", -1),
    ("timeout_millis", "5s"),
    ("timeout_millis", True),
    ("timeout_millis", 1.5),
    ("timeout_millis", float("nan")),
    ("batching", "maybe"),
    ("compression", "br"),
    ("max_queue_size", 0),
    ("client_ip", "hash"),
    ("view_metadata", "yes"),
    ("business_events", ["paid"]),
    ("business_events", {"paid": ""}),
    ("business_events", {"": "purchase"}),
    ("business_events", {"paid": {"metrics": "purchase"}}),
    ("app_name", ""),
    ("client_ip_headers", "X-Real-IP"),
    ("client_ip_headers", ["X-Real-IP: 7"]),
    ("client_ip_headers", [""]),
]


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_a_wrong_value_names_option_value_and_remedy(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(**{option: value})
    message = str(raised.value)
    assert message.startswith(f"{option}=")
    assert repr(value)[:100] in message
    assert "must" in message
    assert env_name(option) in message
    assert raised.value.__context__ is None  # a first error behind it would quote what is hidden here


def test_a_wrong_variable_is_named_by_its_own_name() -> None:
    with pytest.raises(
        ConfigError, match=r"^OTEL_EXPORTER_ANALYTICS_TIMEOUT='soon': must be a whole number of"
    ):
        resolve({"OTEL_EXPORTER_ANALYTICS_TIMEOUT": "soon"})


@pytest.mark.parametrize("key", ["wk\r\nX-Other: 1", "wk\x00", "schlüssel", ""])
def test_a_wrong_key_is_not_shown(key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(write_key=key)
    assert "<hidden>" in str(raised.value)
    assert not key or key not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ("authorization=hunter2", "must map names"),
        (["hunter2"], "must map names"),
        ({"hunter2 ": "x"}, "must have names"),
        ({"": "hunter2"}, "must have names"),
        ({"X-A": "hunter2\r\nX-B: 1"}, "must be visible ASCII"),
        ({"X-A": " hunter2"}, "must be visible ASCII"),
        ({"X-A": b"hunter2"}, "must be visible ASCII"),
        ({"x-write-KEY": "hunter2"}, "must not hold X-Write-Key"),
        ({"content-length": "hunter2"}, "must not hold Content-Length"),
        ({"Idempotency-Key": "hunter2"}, "must not hold Idempotency-Key"),
    ],
)
def test_wrong_headers_are_refused_and_not_shown(headers: Any, wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"^headers=<hidden>: {wanted}") as raised:
        resolve(headers=headers)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("text", ["hunter2", "a=1,hunter2", "a=hunter2%0d%0a", "a=hunter2%ff", "a b=hunter2"])
def test_wrong_headers_in_the_environment_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^OTEL_EXPORTER_ANALYTICS_HEADERS=<hidden>: must") as raised:
        resolve({"OTEL_EXPORTER_ANALYTICS_HEADERS": text})
    assert "hunter2" not in str(raised.value)


def test_headers_of_one_name_in_different_cases_are_one() -> None:
    assert resolve(headers={"x-TENANT": "a", "X-tenant": "b"}).headers == {"X-Tenant": "b"}


def test_json_nested_too_deeply_is_a_wrong_value() -> None:
    with pytest.raises(ConfigError, match="must be valid JSON"):
        resolve({"OTEL_EXPORTER_ANALYTICS_BUSINESS_EVENTS": '{"a":' * 200_000})


def test_credentials_in_the_endpoint_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="write_key") as raised:
        resolve(endpoint="https://user:hunter2@a.example")
    assert "hunter2" not in str(raised.value)


def test_an_unknown_option_says_what_may_be_meant() -> None:
    with pytest.raises(ConfigError, match="endpont is not an option: did you mean endpoint"):
        resolve(endpont="https://a.example")


def test_the_key_is_in_no_repr() -> None:
    config = resolve(write_key="wk_secret", headers={"Authorization": "wk_secret"})
    assert "wk_secret" not in f"{config!r}{config}"
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes


def test_whole_floats_and_yaml_booleans_are_what_they_mean() -> None:
    config = resolve(timeout_millis=5e3, batching=False)
    assert (config.timeout_millis, config.batching) == (5000, "off")


def test_every_option_is_described() -> None:
    for option in describe_options():
        assert option["help"].endswith(".")
        assert option["env"].startswith("OTEL_EXPORTER_ANALYTICS_")
        assert not option["env"].endswith("_MILLIS")
        assert option["unit"] == "milliseconds" or not option["name"].endswith("_millis")


BAD_ENDPOINTS = [
    "http://analytics\u200b.example.com", "http://b\u00fccher_x.de", "http://\u2603", "http://[v1.x]",
    "http://[::1", "http://[", "http://[]", "http://]", "http://xn--a", "http://a..b", "http://.",
    "http://.a.example", f"http://{'a' * 64}.example", f"http://{'a.' * 40_000}example",
    f"http://a.example/{'b' * 65_500}", "http://a b", "http://a%zz", "http://<host>", "http://{host}",
    "http://$HOST", "http://a\\b", "http://a.example:-1", "http://a.example:0", "http://a.example:65536",
    "http://a.example:+80", "http://a.example:\uff18\uff10", "http://999.1.1.1", "http://a.example/\ud800",
    "http://h\ud800", "http://:80", "http:///x", "http:a.example", "http:/a.example", "//a.example",
    "http://a.example/\x00", "http://a.example/\u202e", "http://a.example/\u00a0", "http://a.example\n",
    "http://a.example/?", "http://a.example/#", "http://@a.example", "://a.example", "", " ",
    "http://a,b", "http://a;b", "http://\u2100.example",
]  # fmt: skip


@pytest.mark.parametrize("endpoint", BAD_ENDPOINTS, ids=range(len(BAD_ENDPOINTS)))
def test_an_endpoint_no_request_could_use_is_refused_at_construction(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"^endpoint=.*: must "):
        resolve(endpoint=endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[::1]:4380",
        "http://my_host:80",
        "HTTP://A.example",
        "https://b\u00fccher.de",
        "http://127.0.0.1/base",
        "http://a.example.",
        "http://localhost:4380",
        "https://xn--bcher-kva.de",
        "https://a.example:8443/base/path",
        "https://a.example/caf\u00e9",
        "https://a.example/%20",
        "http://10.0.0.1:65535",
    ],
)
def test_an_endpoint_that_requests_can_use_is_taken(endpoint: str) -> None:
    assert resolve(endpoint=endpoint).endpoint == endpoint


SECRET_ENDPOINTS = [
    "https://user:hunter2@a.example",
    "https://user:hunter2@[bad",
    "user:hunter2@a.example",
    "https//user:hunter2@a.example?token=x",
    "https://a.example/?key=hunter2",
    "https://a.example/#hunter2",
    "https://a.example:8080/hunter2/?",
    "https://user:hunter2%40a.example",
    "https://user:hunter2/x@a.example",
    "https://user:hunter2@a\u2100b.example",
    "https://hunter2@a.example:port",
    "hunter2",
    "hunter2.A1b.xyz",
    b"https://user:hunter2@a.example",
    ["https://user:hunter2@a.example"],
]


@pytest.mark.parametrize("endpoint", SECRET_ENDPOINTS, ids=range(len(SECRET_ENDPOINTS)))
def test_a_secret_in_a_bad_endpoint_is_nowhere_in_the_error(endpoint: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(endpoint=endpoint)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    if isinstance(endpoint, str):
        with pytest.raises(ConfigError) as raised:
            resolve({"OTEL_EXPORTER_ANALYTICS_ENDPOINT": endpoint})
        assert "hunter2" not in str(raised.value)
        assert raised.value.__context__ is None


NUMBERS = [option.name for option in fields(Config) if isinstance(option.metadata["kind"], Number)]
BOUNDS = r".*: must be a whole number of \w+, from [01] to [\d,]+\."
TOO_LARGE: list[Any] = [
    10**13,
    sys.maxsize,
    2**63,
    10**400,
    10**5000,
    1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_would_break_a_thread_later_is_refused_with_its_bounds(name: str) -> None:
    for value in TOO_LARGE:
        with pytest.raises(
            ConfigError, match=rf"^{name}=.*: must be a whole number of \w+, from [01] to [\d,]+\."
        ):
            resolve(**{name: value})
    for text in ("10000000000000", "9" * 5000, "inf", "nan", "1e400"):
        with pytest.raises(
            ConfigError, match=rf"^{env_name(name)}=.*: must be a whole number of \w+, from [01] to "
        ):
            resolve({env_name(name): text})


@pytest.mark.parametrize("name", NUMBERS)
def test_the_bounds_themselves_are_taken(name: str) -> None:
    (kind,) = (option.metadata["kind"] for option in fields(Config) if option.name == name)
    for bound, beyond in ((kind.minimum, kind.minimum - 1), (kind.maximum, kind.maximum + 1)):
        assert getattr(resolve(**{name: bound}), name) == bound
        with pytest.raises(ConfigError):
            resolve(**{name: beyond})


def test_a_client_at_the_upper_bounds_delivers(tmp_path: Path) -> None:
    largest = {
        option.name: option.metadata["kind"].maximum for option in fields(Config) if option.name in NUMBERS
    }
    for spool_path in (None, str(tmp_path / "spool")):
        with FaultyCollector() as collector:
            client = AnalyticsClient(collector.url, spool_path=spool_path, **largest)
            client.track_view("a", "page")
            assert client.flush(20_000)
            client.shutdown()
            assert len(collector.bodies("view")) == 1


@pytest.mark.parametrize("path", ["a\x00.db", "\x00", "/\ud800/spool.db", "", 7, b"spool.db"])
def test_a_path_no_file_can_have_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match=r"^spool_path=.*: must be a .* OTEL_EXPORTER_ANALYTICS_SPOOL_PATH"):
        AnalyticsClient(spool_path=path)


def test_all_wrong_settings_are_told_at_once() -> None:
    environ = {"OTEL_EXPORTER_ANALYTICS_TIMEOUT": "soon", "OTEL_EXPORTER_ANALYTICS_WRITE_KEY": "hunter2\n3"}
    with pytest.raises(ConfigError) as raised:
        resolve(environ, batching="maybe", max_queue_size=-1, endpont="http://a.example")
    told = str(raised.value)
    for wrong in ("TIMEOUT='soon'", "WRITE_KEY=<hidden>", "batching='maybe'", "max_queue_size=-1"):
        assert wrong in told
    assert "did you mean endpoint?" in told
    assert "hunter2" not in told


def test_mistyped_variables_are_named_once_and_together(caplog: pytest.LogCaptureFixture) -> None:
    names = ("ENDPIONT", "TIMEOUT_MILLIS", "FOO_OF_NOTHING")
    environ = {f"OTEL_EXPORTER_ANALYTICS_{name}": "hunter2" for name in names}
    for _ in range(2):
        resolve(environ)
    (record,) = caplog.records
    told = record.getMessage()
    assert "ANALYTICS_ENDPIONT (did you mean OTEL_EXPORTER_ANALYTICS_ENDPOINT?)" in told
    assert "ANALYTICS_TIMEOUT_MILLIS (did you mean OTEL_EXPORTER_ANALYTICS_TIMEOUT?)" in told
    assert "ANALYTICS_FOO_OF_NOTHING (like no option)" in told
    assert "hunter2" not in told


def test_type_checkers_know_every_option_and_what_it_may_be() -> None:
    stored = typing.get_type_hints(Config)
    known = typing.get_type_hints(Options)
    assert list(known) == [option.name for option in fields(Config) if option.name != "endpoint"]
    for option in fields(Config):
        if option.name == "endpoint":
            continue
        given = typing.get_args(known[option.name])
        assert type(None) in given, option.name
        kind = option.metadata["kind"]
        if isinstance(kind, Choice):
            assert typing.get_args(given[0]) == kind.words
        elif stored[option.name] in {int, bool, str | None, tuple[str, ...]}:
            wanted = (
                typing.get_args(stored[option.name])
                if type(None) in typing.get_args(stored[option.name])
                else (stored[option.name],)
            )
            assert set(wanted) <= set(given), option.name


def test_a_path_may_be_a_path(tmp_path: Path) -> None:
    assert Config(spool_path=tmp_path / "spool").spool_path == str(tmp_path / "spool")  # type: ignore[arg-type]
