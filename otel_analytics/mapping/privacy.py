"""How much of a client's address leaves the process (option ``client_ip``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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
