"""What may leave the process: how much of a client's address, which texts name nobody, what texts may say.

No text that is sent holds credentials, a query string or a captured header. It is judged by its value, since
it can stand under any key: a target, a referrer, a field of a log record's body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import takewhile
from typing import Any, Final
from urllib.parse import unquote

from otel_analytics.encoding import CUT, MAX_BODY_BYTES, MAX_TEXT, field_text, readable, readable_items
from otel_analytics.mapping import ids
from otel_analytics.mapping.path_ids import fold_segment
from otel_analytics.mapping.values import as_text

Address = IPv4Address | IPv6Address

_KEPT_BITS: Mapping[int, int] = {4: 24, 6: 48}


def parse_address(text: str) -> Address | None:
    """Return the IP address that ``text`` is, or `None`: a host name, a socket path or ``unknown`` is none.

    Brackets around an IPv6 address, a port behind it and a zone id are accepted and dropped; an IPv4
    address mapped into IPv6 (RFC 4291, 2.5.5.2) is unwrapped.
    """
    host = _without_port(text.strip()).partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") == 1:  # an IPv6 address has at least two
        return text.partition(":")[0]
    return text


def _full(address: Address) -> str | None:
    return str(address)


def _truncate(address: Address) -> str | None:
    return str(ip_network((address, _KEPT_BITS[address.version]), strict=False).network_address)


def _drop(_: Address) -> str | None:
    return None


IP_POLICIES: Mapping[str, Callable[[Address], str | None]] = {
    "full": _full,
    "truncate": _truncate,
    "drop": _drop,
}
"""Each choice of ``client_ip``: what is told of an address."""

_NOBODY: Final = frozenset(
    {
        *("", "none", "null", "nil", "<nil>", "(null)", "<null>", "undefined", "nan", "n/a", "-", "{}", "[]"),
        *("anonymous", "anonymoususer", "<anonymous>", "<anonymoususer>", "unknown", "<unknown>"),
        "00000000-0000-0000-0000-000000000000",  # RFC 9562's nil UUID
    }
)
"""What languages and frameworks write where there is no value or nobody, lower case."""
_PLACEHOLDERS: Final = (
    *("[filtered", "[redacted", "[scrubbed", "[removed", "[masked", "[hidden", "[deleted"),
    *("<filtered", "<redacted", "<scrubbed", "<removed", "<masked", "<hidden", "{redacted", "(redacted"),
    *("redacted", "%redacted", "***", "\u2022\u2022\u2022"),
    *("[object ", "<bound method", "<function", "<coroutine", "<property"),
)
"""How placeholders begin, lower case: of scrubbers (Sentry, logfire, the Collector's processors), and of
objects that somebody made a text of."""
_OF_AN_OBJECT: Final = " object at 0x"


def first_known(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first text under ``keys`` that names somebody or something, else an empty string."""
    for key in keys:
        if key in attributes:
            value = attributes[key]
            text = (value if type(value) is str else as_text(value)).strip()
            if not is_placeholder(text):
                return text
    return ""


def first_id(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return `first_known` as an id of somebody that may be told: of a JWT or a URL with a query, a digest.

    Cut short, the ids of several would be one.
    """
    text = first_known(attributes, keys)
    return text if not text or bare_text(text) == text else ids.hidden_id(text)


def is_placeholder(text: str) -> bool:
    """Whether a text stands where somebody's id should, and names nobody."""
    lower = text.strip().lower()
    return lower in _NOBODY or lower.startswith(_PLACEHOLDERS) or _OF_AN_OBJECT in lower


# Texts
# ------------------------------------------------------------------------------------------------------

REDACTED: Final = "[redacted]"
"""What stands for a credential within a text."""

# Most texts hold none of these, and are done with; to begin with a set is what makes the search fast.
_SIGNS = re.compile(
    r"[?#/=:%eBb](?:(?<=[?#])|(?<=/)/|(?<==)[^=\s]|(?<=:)[^\s@]{0,128}@|(?<=%)(?:25)*(?:2[fF]|3[fF]|23)"
    r"|(?<=:) ?\\?[\"']|(?<=e)yJ|(?<=[Bb])(?:earer|asic) )"
)
_TOKEN = re.compile(r"[^\s\"'<>]+")

# ASGI's `http.url` is percent-decoded, and clients that encode a whole target send their query as `%3F...`.
_QUERY_OF_URL = re.compile(r"[?#]|%(?:25)*(?:3[fF]|23)")
_QUERY = re.compile(r"(?:\?|%(?:25)*3[fF])[\w.~\[\]%-]{0,128}(?:=|%(?:25)*3[dD])")
_ENCODED_URL = re.compile(r"%(?:25)*3[aA]%(?:25)*2[fF]%(?:25)*2[fF]")
_MOST_ENCODED: Final = 3
_END_OF_AUTHORITY = re.compile(r"[/?#]")
_USER_INFO = re.compile(
    r"(?<![\w.~+%-])[\w.~+%-]*:[^\s@/]{0,128}@(?=(?:\[[\da-fA-F:.]+\]|[\w.-]+)(?::\d|[/?#]))"
)

_AUTHORIZATION = re.compile(r"\b([Bb]earer|[Bb]asic) +(?=[A-Za-z+/._~-]*[0-9=])[\w.~+/=-]{8,}")
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]+\.[\w.-]+")
_SECRETS = r"(token|secret|passw(?:or)?d|pwd|api[_-]?key|signature|credentials?|sess(?:ion)?_?id)"
_SECRET = re.compile(_SECRETS + r"=[^&;,\s]+", re.IGNORECASE)
_SECRET_IN_JSON = re.compile(_SECRETS + r"""(\\?["'] ?: ?\\?["'])[^"'\\]*""", re.IGNORECASE)

_CAPTURED = re.compile(r"(?:http|rpc|messaging)\.(?:\w+\.)?(?:request|response)\.(?:header|metadata|cookie)")
_SECRET_KEYS: Final = frozenset(
    {
        *("headers", "cookies", "cookie", "set-cookie", "set_cookie", "authorization", "proxy-authorization"),
        *("password", "passwd", "pwd", "secret", "client_secret", "private_key"),
        *("api_key", "apikey", "api-key", "x-api-key", "access_token", "refresh_token", "id_token"),
    }
)
"""Last parts of keys whose values are credentials, or hold them, whatever they look like."""

_DEEPEST: Final = 12
_COST: Final = 64
_PLAIN: Final = frozenset({int, float, bool, type(None)})
_COLLECTIONS: Final = (Mapping, list, tuple, set, frozenset)
_NOT_TOLD: Final = "[not told]"


def bare_text(text: str) -> str:
    """Return a text without the credentials and query strings that are in it.

    URLs, in the text or the whole of it, lose user and password, query and fragment (RFC 3986, 3.2.1, 3.4,
    3.5); so do paths, and whatever else has ``?key=``. JWTs (RFC 7519), credentials of an ``Authorization``
    header (RFC 7617, RFC 6750) and values of keys that say so are `REDACTED`. Prose may hold a question mark.
    """
    if not text:
        return text
    if len(text) > MAX_BODY_BYTES:
        text = text[:MAX_TEXT] + CUT  # as it is when the body is encoded
    if not _SIGNS.search(text):
        return text
    text = _AUTHORIZATION.sub(rf"\1 {REDACTED}", text)
    text = _SECRET_IN_JSON.sub(rf"\1\2{REDACTED}", text)
    return _TOKEN.sub(lambda token: _bare(token[0]), text)


def _bare(token: str) -> str:
    for _ in range(_MOST_ENCODED):
        if not _ENCODED_URL.search(token):
            break
        token = unquote(token)
    token = _without_user_info(token) if "@" in token else token
    is_url = "//" in token or token.startswith("/")
    if query := (_QUERY_OF_URL if is_url else _QUERY).search(token):
        token = token[: query.start()]
    if "=" in token and not is_url and _is_query(token):
        return ""
    return _SECRET.sub(rf"\1={REDACTED}", _JWT.sub(REDACTED, token))


def _without_user_info(token: str) -> str:
    before, *parts = token.split("//")
    return "//".join((_USER_INFO.sub("", before), *map(_without_authoritys_user, parts)))


def _without_authoritys_user(part: str) -> str:
    """Return what follows ``//`` without user and password, be there a slash in the password."""
    end = _END_OF_AUTHORITY.search(part)
    authority = part[: end.start()] if end else part
    if "@" in authority:
        return authority.rpartition("@")[2] + part[len(authority) :]
    _, colon, port = authority.partition(":")
    is_password = colon and port and not port.isdigit() and not authority.startswith("[")
    return part.rpartition("@")[2] if is_password else part


def _is_query(token: str) -> bool:
    pairs = token.split("&")
    return len(pairs) > 1 and all("=" in pair for pair in pairs)


@lru_cache(maxsize=1024)
def bare_short(text: str) -> str:
    """Return `bare_text` of a text that comes again and again, such as a user agent."""
    return bare_text(text)


@lru_cache(maxsize=1024)
def name_without_ids(name: str) -> str:
    """Return a span's name without the ids, queries and credentials that are in it."""
    return _PART_OF_NAME.sub(lambda part: fold_segment(part[0]), bare_text(name))


_PART_OF_NAME = re.compile(r"[^\s/\[\](){}<>,;:=#|\"']+")


def told(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes as they may be sent: no captured header, no credential, at any depth."""
    return _Teller().items(attributes, _DEEPEST)


@lru_cache(maxsize=4096)
def is_withheld(key: str) -> bool:
    """Whether what stands under a key is never sent."""
    key = key.lower()
    return bool(_CAPTURED.match(key)) or key.rpartition(".")[2] in _SECRET_KEYS


class _Teller:
    """Walks attributes once; what no body could hold any more is not looked at, and so not told."""

    def __init__(self) -> None:
        self._left = 2 * MAX_BODY_BYTES

    def items(self, items: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        return {
            key: self._value(value, depth) for key, value in items.items() if not is_withheld(as_text(key))
        }

    def _value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if self._left <= 0 or depth < 0:
            return _NOT_TOLD
        if kind is not str and isinstance(value, _COLLECTIONS):
            self._left -= _COST
            return self._collection(value, depth - 1)
        text = value if kind is str else field_text(value)
        self._left -= min(len(text), MAX_TEXT) + _COST
        bare = bare_text(text)
        return value if bare == text else bare

    def _collection(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self.items(readable_items(value), depth)
        return [self._value(item, depth) for item in takewhile(lambda _: self._left > 0, readable(value))]
