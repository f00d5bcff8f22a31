"""Who may ask a collector that listens on this machine only.

A web page can have its own name resolve to 127.0.0.1 (DNS rebinding), and then reads what a local server
answers as if it were its own. But its requests still name that host, and those to another origin say where
they come from.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from otel_analytics.collector.refusal import Refusal

# A host is never looked up here; so an address in brackets, an address, or one name (RFC 9110, section 7.2).
_AUTHORITY = r"(?:\[([0-9a-f:.]+)\]|([0-9.]+|localhost))(?::[0-9]*)?"
_HOST = re.compile(_AUTHORITY, re.IGNORECASE)
_ORIGIN = re.compile("https?://" + _AUTHORITY, re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def locals_only(app: ASGIApp) -> ASGIApp:
    """Return the application for requests to this machine's own names and addresses, and from its own pages.

    Raises:
        Refusal: In a request: 421 for another `Host`, 403 for another `Origin`.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if not _is_local(_HOST, headers.get("host", "")):
            raise Refusal(
                421, "Host: must be localhost, 127.0.0.1 or [::1], as it listens on this machine only"
            )
        if not all(_is_local(_ORIGIN, origin) for origin in headers.getlist("origin")):
            raise Refusal(403, "Origin: must be a page of this machine, or left out")
        await app(scope, receive, send)

    return guarded


def _is_local(pattern: re.Pattern[str], text: str) -> bool:
    found = pattern.fullmatch(text)
    return found is not None and is_loopback(found[1] or found[2])
