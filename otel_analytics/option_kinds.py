"""What an option's value may be: each kind reads text (the environment) and checks values (code).

A kind raises ``ValueError`` that completes the sentence "<option> <value>: must be ..."; `config` adds the
option's name, its environment variable and the remedy.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from otel_analytics.contract import IDEMPOTENCY_KEY, RETRY_COUNT, SENT_AT, WRITE_KEY
from otel_analytics.events import BusinessEvent

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_LARGEST_PORT = 65_535
_LONGEST_URL = 2_048  # more is a mistake, and would keep the patterns below busy for seconds
# Host names only: httpx would quote what else stands there, and look up a host named `%3Chost%3E`.
_AUTHORITY = re.compile(r"https?://(?:\[[^\]@/?#]+\]|[\w.-]+)(?::[0-9]*)?(?:[/?#]|$)", re.IGNORECASE)
# A key pasted in the wrong place is not to look like a host: so one plain word, or a top-level domain.
_BARE_HOST = re.compile(r"[a-z]{1,20}|(?=.{1,64}$)(?:[a-z0-9-]+\.)+[a-z]{2,10}")
# A port that is none is shown after a host with a dot only: `https://user:pw` may be what is left of more.
_ORIGIN = re.compile(
    r"\w+://(?:[^/?#@:\\%=&;\s]*\.[^/?#@:\\%=&;\s]*:[A-Za-z]{1,5}|[^/?#@:\\%=&;\s]*(?::[0-9]{1,5})?)(?=[/?#]|$)"
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_OWN_HEADERS = frozenset(
    {
        *("Connection", "Content-Encoding", "Content-Length", "Content-Type", "Transfer-Encoding", "Upgrade"),
        *(IDEMPOTENCY_KEY, RETRY_COUNT, SENT_AT, WRITE_KEY),
    }
)
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class Kind(Protocol):
    """How one kind of option is read and checked."""

    def parse(self, text: str) -> Any:
        """Read a value from an environment variable's text; raises `ValueError`."""

    def check(self, value: Any) -> Any:
        """Return the value in its final form, or raise `ValueError`."""


@dataclass(frozen=True)
class Number:
    """A whole number in ``unit`` from ``minimum`` to ``maximum``; YAML's ``5e3`` counts as whole.

    Without a maximum, a thread would meet what the platform's waits, counts or SQLite cannot hold.
    """

    minimum: int
    maximum: int
    unit: str

    def parse(self, text: str) -> int:
        """Read decimal digits; ``5_000`` is fine, ``5s`` is not."""
        try:
            return int(text)
        except ValueError:
            raise ValueError(self._expectation) from None

    def check(self, value: Any) -> int:
        """Refuse booleans, fractions and what is out of bounds."""
        whole = not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
        if not whole or not self.minimum <= value <= self.maximum:
            raise ValueError(self._expectation)
        return int(value)

    @property
    def _expectation(self) -> str:
        return f"must be a whole number of {self.unit}, from {self.minimum} to {self.maximum:,}"


@dataclass(frozen=True)
class Flag:
    """A boolean; in the environment ``true`` or ``false`` in any case."""

    def parse(self, text: str) -> bool:
        """Read the usual words for yes and no."""
        word = text.lower()
        if word not in _TRUE | _FALSE:
            raise ValueError("must be true or false")
        return word in _TRUE

    def check(self, value: Any) -> bool:
        """Accept booleans only."""
        if not isinstance(value, bool):
            raise ValueError("must be True or False")  # noqa: TRY004 - `config` turns it into ConfigError
        return value


class Choice:
    """One of a few words; YAML 1.1 reads a bare ``on`` or ``off`` as a boolean, so those are words again."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def parse(self, text: str) -> str:
        """Words are case-insensitive in the environment."""
        return self.check(text.lower())

    def check(self, value: Any) -> str:
        """Return the word."""
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        if word not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return str(word)


@dataclass(frozen=True)
class Text:
    """Any text; ``empty`` says whether the empty string is a value of its own (set in code only)."""

    empty: bool = False

    def parse(self, text: str) -> str:
        """Take the text as it is."""
        return text

    def check(self, value: Any) -> str:
        """Refuse what is no string."""
        if not isinstance(value, str) or not (value or self.empty):
            raise ValueError("must be a string" if self.empty else "must be a non-empty string")
        return value


@dataclass(frozen=True)
class FilePath:
    """The path of a file, as the file system could hold it; whether it can be opened is not asked here."""

    def parse(self, text: str) -> str:
        """Take the text as it is."""
        return text

    def check(self, value: Any) -> str:
        """Return the path as a text; refuse what no file can be called."""
        path = Text().check(os.fspath(value) if isinstance(value, os.PathLike) else value)
        try:
            encoded = os.fsencode(path)
        except UnicodeEncodeError:
            raise ValueError("must be a path in the file system's encoding") from None
        if b"\0" in encoded:
            raise ValueError("must be a path without NUL characters")
        return path


@dataclass(frozen=True)
class HeaderValue:
    """Text that can stand in an HTTP header (RFC 9110, section 5.5), kept to visible ASCII."""

    def parse(self, text: str) -> str:
        """Drop the blanks around it, which a copied secret often has."""
        return text.strip()

    def check(self, value: Any) -> str:
        """Refuse control characters: they would split the request."""
        if not isinstance(value, str) or not _VISIBLE_ASCII.fullmatch(value):
            raise ValueError("must be visible ASCII characters, without line breaks or blanks around them")
        return value


@dataclass(frozen=True)
class Headers:
    """HTTP headers, their names in any case, but for those that every request has of its own.

    In the environment ``name=value,name=value``, both percent-encoded, as OpenTelemetry's OTLP exporters have
    them (specification of the protocol exporter, "Specifying headers via environment variables").
    """

    def parse(self, text: str) -> dict[str, str]:
        """Read the pairs between the commas."""
        pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be name=value, separated by commas and percent-encoded")
        return self.check({unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs})

    def check(self, value: Any) -> dict[str, str]:
        """Return the values by their names as HTTP usually writes those."""
        if not isinstance(value, Mapping):
            raise ValueError("must map names of HTTP headers to texts")  # noqa: TRY004 - as above
        return {self._name(name): self._text(text) for name, text in value.items()}

    @staticmethod
    def _name(name: Any) -> str:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError("must have names of HTTP headers for keys")
        usual = "-".join(part.capitalize() for part in name.split("-"))
        if usual in _OWN_HEADERS:
            raise ValueError(f"must not hold {usual}, which every request has of its own")
        return usual

    @staticmethod
    def _text(text: Any) -> str:
        return "" if text == "" else HeaderValue().check(text)


@dataclass(frozen=True)
class BaseUrl:
    """An absolute http or https URL without credentials, query or fragment; a trailing slash is dropped."""

    def parse(self, text: str) -> str:
        """Take the text as it is."""
        return text.strip()

    def check(self, value: Any) -> str:
        """Return the URL without its trailing slash."""
        from otel_analytics.delivery.http.transport import parse_endpoint  # noqa: PLC0415 - httpx comes with it

        wanted = "must be a URL such as https://analytics.example.com"
        if not isinstance(value, str):
            raise ValueError(wanted)  # noqa: TRY004 - `config` turns it into ConfigError
        if len(value) > _LONGEST_URL:
            raise ValueError(f"must be a URL of at most {_LONGEST_URL:,} characters")
        if " " in value or not value.isprintable():
            raise ValueError("must not hold blanks or invisible characters")
        url = parse_endpoint(value)
        if url is None or url.scheme not in {"http", "https"} or not _AUTHORITY.match(value):
            raise ValueError("must not hold credentials; use write_key" if "@" in value else wanted)
        if not url.host or (url.port is not None and not 0 < url.port <= _LARGEST_PORT):
            raise ValueError(wanted)
        if "?" in value or "#" in value:
            raise ValueError("must not have a query or fragment")
        return value.rstrip("/")

    def show(self, value: Any) -> str:
        """Return what an error may show: scheme and host at most, since the rest may hold a secret."""
        if not isinstance(value, str):
            return repr(value) if isinstance(value, (int, float)) else f"<{type(value).__name__}>"
        if not value or _BARE_HOST.fullmatch(value):
            return repr(value)
        origin = None if "@" in value or len(value) > _LONGEST_URL else _ORIGIN.match(value)
        if origin is None:
            return "<hidden>"
        return repr(value if origin.group() == value else f"{origin.group()}/...")


@dataclass(frozen=True)
class BusinessEvents:
    """More business events: ``{"invoice_paid": "purchase"}`` or a `BusinessEvent` for each name.

    In the environment ``invoice_paid=purchase,lead_created=signup``, or the same as a JSON object.
    """

    def parse(self, text: str) -> dict[str, BusinessEvent]:
        """Read the short form or JSON."""
        if text.lstrip().startswith("{"):
            try:
                return self.check(json.loads(text))
            except (json.JSONDecodeError, RecursionError):
                raise ValueError("must be valid JSON where it begins with {") from None
        pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
        events = {name.strip(): metric_type.strip() for name, _, metric_type in pairs}
        if any("=" in metric_type for metric_type in events.values()):
            raise ValueError("must be name=metric_type, separated by commas")
        return self.check(events)

    def check(self, value: Any) -> dict[str, BusinessEvent]:
        """Return each name's `BusinessEvent`."""
        if not isinstance(value, Mapping):
            raise ValueError("must map event names to metric types")  # noqa: TRY004 - as above
        return {self._name(name): self._event(event) for name, event in value.items()}

    @staticmethod
    def _name(name: Any) -> str:
        if not isinstance(name, str) or not name:
            raise ValueError("must have non-empty strings for event names")
        return name

    @staticmethod
    def _event(event: Any) -> BusinessEvent:
        if isinstance(event, BusinessEvent):
            return event
        if isinstance(event, Mapping):
            try:
                return BusinessEvent(**event)
            except TypeError:
                raise ValueError("must have BusinessEvent's fields for keys") from None
        return BusinessEvent(event)


@dataclass(frozen=True)
class Patterns:
    """Shell patterns; in the environment separated by commas."""

    def parse(self, text: str) -> tuple[str, ...]:
        """Read the patterns between the commas."""
        return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())

    def check(self, value: Any) -> tuple[str, ...]:
        """Return the patterns as a tuple; one alone is no list."""
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError("must be a list of patterns")  # noqa: TRY004 - `config` turns it into ConfigError
        patterns = tuple(value)
        if not all(isinstance(pattern, str) and pattern for pattern in patterns):
            raise ValueError("must have non-empty strings for patterns")
        return patterns


class Names(Patterns):
    """Some of a set of names; in the environment separated by commas."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def check(self, value: Any) -> tuple[str, ...]:
        """Return the names as a tuple."""
        chosen = super().check(value)
        if not set(chosen) <= set(self._names):
            raise ValueError(f"must be a list of some of {', '.join(self._names)}")
        return chosen


class HeaderNames(Patterns):
    """Names of HTTP headers; in the environment separated by commas."""

    def check(self, value: Any) -> tuple[str, ...]:
        """Return the names as a tuple; each is a token (RFC 9110, section 5.1)."""
        names = super().check(value)
        if not all(_TOKEN.fullmatch(name) for name in names):
            raise ValueError("must be a list of header names such as X-Real-IP")
        return names


@dataclass(frozen=True)
class Hook:
    """A function of the application's; it cannot come from the environment."""

    def parse(self, text: str) -> Callable[..., Any]:
        """Refuse: text is no function."""
        raise ValueError(f"must be a function, so it can only be set in code, not as {len(text)} characters")

    def check(self, value: Any) -> Callable[..., Any]:
        """Refuse what cannot be called."""
        if not callable(value):
            raise ValueError("must be callable")  # noqa: TRY004 - `config` turns it into ConfigError
        function: Callable[..., Any] = value
        return function
