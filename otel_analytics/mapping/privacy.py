"""What may leave the process: how much of a client's address, and which texts name nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from otel_analytics.mapping.values import first_text

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
    {"none", "null", "nil", "<nil>", "undefined", "nan", "n/a", "-", "[object object]"}
)
"""What languages write where there is no value, lower case."""
_REDACTED: Final = (
    *("[filtered", "[redacted", "[scrubbed", "[removed", "[masked", "<redacted", "redacted", "***"),
)
"""How placeholders of scrubbers begin, lower case (Sentry, logfire, the Collector's processors)."""


def first_known(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first text under ``keys`` that names somebody or something, else an empty string."""
    for key in keys:
        if key in attributes:
            text = first_text(attributes, (key,)).strip()
            if text and text.lower() not in _NOBODY and not is_redacted(text):
                return text
    return ""


def is_redacted(text: str) -> bool:
    """Whether somebody has put a placeholder where an id was."""
    return text[:16].lower().startswith(_REDACTED)
