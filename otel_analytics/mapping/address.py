"""Where a request came from.

The socket's peer, or what the server put in its place, unless ``trusted_proxy_hops`` says how many proxies
stand before the application. Each proxy appends the address it saw, so the client is that many entries from
the right; whatever stands further left anybody can have written. A proxy may also write the client into a
header of its own (``client_ip_headers``), which counts behind one only, for the same reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from otel_analytics.mapping import semconv
from otel_analytics.mapping.privacy import IP_POLICIES, parse_address
from otel_analytics.mapping.values import Attributes, as_text

# RFC 7239, section 4: `for=` is a token or a quoted string, its name case-insensitive.
_FOR = re.compile(r'(?:^|[;\s])for\s*=\s*("[^"]*"|[^;\s]*)', re.IGNORECASE)

_LONGEST_NODE = 256

Shown = Callable[[str], "str | None"]


def shown_address(policy: str) -> Shown:
    """Return the function from an address's text to what is told of it, `None` where it is no IP address.

    Args:
        policy: A choice of the option ``client_ip``.
    """
    show = IP_POLICIES[policy]

    @lru_cache(maxsize=4096)
    def shown(text: str) -> str | None:
        address = parse_address(text[:_LONGEST_NODE])
        return None if address is None else show(address)

    return shown


def header_keys(names: Sequence[str]) -> Sequence[str]:
    """Return the attributes of the headers of the option ``client_ip_headers``, the first named first."""
    return tuple(key for name in names for key in semconv.captured_header(name))


def client_address(
    attributes: Attributes, show: Shown, trusted_proxy_hops: int, headers: Sequence[str] = ()
) -> str | None:
    """Return the client's address as it may be told, or `None`.

    Args:
        attributes: The server span's, with captured request headers where there are proxies.
        show: See `shown_address`.
        trusted_proxy_hops: Proxies whose entries count; 0 reads no forwarded header. With fewer entries than
            that the request did not come through all of them, and its peer is the client.
        headers: Attributes of the headers that hold the client's address where there are proxies.
    """
    if trusted_proxy_hops:
        for key in headers:
            # Whoever writes the line last is the nearest.
            if key in attributes and (lines := _entries(attributes, (key,))) and parse_address(lines[-1]):
                return show(lines[-1])
        hops = _forwarded_for(attributes)
        if len(hops) >= trusted_proxy_hops:
            return show(hops[-trusted_proxy_hops])
    return _peer(attributes, show)


def _peer(attributes: Attributes, show: Shown) -> str | None:
    """Return the first address: the client's, unless it is the server's by mistake, then the peer's."""
    for key in semconv.CLIENT_ADDRESS:
        if key in attributes:
            value = attributes[key]
            text = value if type(value) is str else as_text(value)
            if (address := show(text)) is not None and not _is_servers(text, attributes):
                return address
    for key in semconv.PEER_ADDRESS:
        if key in attributes:
            value = attributes[key]
            address = show(value if type(value) is str else as_text(value))
            if address is not None:
                return address
    return None


def _is_servers(text: str, attributes: Attributes) -> bool:
    for key in semconv.SERVER_ADDRESS:
        if key in attributes and _are_one(text, as_text(attributes[key])[:_LONGEST_NODE]):
            return True
    return False


@lru_cache(maxsize=4096)
def _are_one(client: str, server: str) -> bool:
    """Whether two addresses are the same, other than a loopback one, where client and server are one host."""
    address = parse_address(client)
    return address is not None and not address.is_loopback and address == parse_address(server)


def _forwarded_for(attributes: Attributes) -> Sequence[str]:
    """Return the hops, nearest last: X-Forwarded-For, or Forwarded where the former was not captured."""
    hops = _entries(attributes, semconv.X_FORWARDED_FOR)
    return hops or [_node(entry) for entry in _entries(attributes, semconv.FORWARDED)]


def _entries(attributes: Attributes, keys: Sequence[str]) -> list[str]:
    for key in keys:
        value = attributes.get(key)
        if value:
            return [entry.strip() for entry in _header_lines(value).split(",")]
    return []


def _header_lines(value: Any) -> str:
    """Join a header's lines: captured values are a sequence, one item a line (RFC 9110, section 5.3)."""
    return ",".join(map(as_text, value)) if isinstance(value, (tuple, list)) else as_text(value)


def _node(entry: str) -> str:
    found = _FOR.search(entry)
    return found[1].strip('"') if found else ""
