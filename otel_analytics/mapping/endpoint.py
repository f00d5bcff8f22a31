"""The endpoint of an API call: a route template where there is one, else a folded path.

Whatever strangers request, two things hold: no query string, fragment or credentials get into an endpoint,
and what looks like an id does not make a new one (`EndpointCap` bounds what is left).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from otel_analytics.mapping.path_ids import fold_segment

UNMATCHED: Final = "{unmatched}"
"""No route took the request; strangers probing for weaknesses make these, without end."""
OTHER: Final = "{other}"
"""One raw endpoint more than the process may report."""
UNKNOWN: Final = "{unknown}"
"""The span names neither a route nor a path."""

LONGEST: Final = 1024
"""Characters of a route, path or name that are looked at; beyond that nobody reads it."""

# ASGI's `http.url` is percent-decoded, so a `?` in it may have been part of the path; and clients that encode
# the whole target send their query as `%3F...`. Both are cut: an endpoint cut short harms nobody.
_QUERY_OR_FRAGMENT = re.compile(r"[?#]|%(?:25)*(?:3[fF]|23)")
_SCHEME_AND_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")

_CREDENTIALS = re.compile(r"//[^/@\s]*@")

_GROUP = re.compile(r"\((?:\?P<(\w+)>|\?:)?[^()]*\)[?*+]?")
_REGEX_SIGNS = re.compile(r"\\[AZ]|[\^$]|\\(?=[./-])")
_SPAN_NAME = re.compile(r"[A-Z_]+ (/\S*)")
_PARAMETER = re.compile(r"[{<]")
_CATCH_ALL = re.compile(r"\bpath\b|[*+]")


@lru_cache(maxsize=4096)
def route_endpoint(route: str) -> str:
    """Return a framework's route as an endpoint, e.g. ``items/<int:id>`` as ``/items/<int:id>``.

    Regular expressions, as Django's `re_path` and Tornado report them, lose their anchors, and their groups
    become ``{name}`` or ``{var}``.
    """
    if "(" in route or "^" in route or route.endswith("$"):
        route = _plain_regex(route)
    route = without_query(route)
    return route if route.startswith(("/", "*")) else "/" + route


def _plain_regex(route: str) -> str:
    while (plain := _GROUP.sub(lambda group: f"{{{group[1] or 'var'}}}", route)) != route:
        route = plain
    return _REGEX_SIGNS.sub("", route)


def without_query(target: str) -> str:
    """Return what comes before a query string or fragment, be its sign percent-encoded."""
    found = _QUERY_OR_FRAGMENT.search(target)
    return target[: found.start()] if found else target


def bare_url(text: str) -> str:
    """Return a URL, or any text, without query string, fragment and credentials."""
    return _CREDENTIALS.sub("//", without_query(text))


def raw_path(target: str) -> str:
    """Return the path of a request target in any of its forms: a path, an absolute URL, ``*``."""
    path = without_query(target[:LONGEST])
    if path[:1] != "/" and (authority := _SCHEME_AND_AUTHORITY.match(path)):
        path = path[authority.end() :]
    return path or "/"


def path_endpoint(path: str) -> str:
    """Return a raw path as an endpoint: ids are ``{id}``, text is decoded, repeated slashes are one."""
    if path == "*":
        return path
    segments = [segment for segment in path.split("/") if segment]
    slash = "/" if segments and path.endswith("/") else ""
    return "/" + "/".join(_folded(segments)) + slash


def _folded(segments: Sequence[str]) -> list[str]:
    return [fold_segment(_decoded(segment)) for segment in segments]


def _decoded(segment: str) -> str:
    """Undo percent-encoding and, for WSGI, UTF-8 read as Latin-1 (PEP 3333), where nothing is lost by it."""
    if segment.isascii() and "%" not in segment:
        return segment
    text = unquote(segment)
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode()
    return text if without_query(text) == text and "/" not in text else segment


def mounted_path(route: str, path: str) -> str:
    """Return the part of ``path`` that a mounted application handled, or an empty string.

    The server span of a mounted application knows the mount's prefix only: route ``/v2``, path
    ``/v2/things/9``. A server's root path may stand before the route.
    """
    parts, segments = route.strip("/").split("/"), path.strip("/").split("/")
    surplus = len(segments) - len(parts)
    if surplus <= 0 or _CATCH_ALL.search(route) or _matches(parts, segments[surplus:]):
        return ""
    for skipped in range(surplus):
        if _matches(parts, segments[skipped:]):
            return "/" + "/".join(segments[skipped + len(parts) :])
    return ""


def _matches(parts: Sequence[str], segments: Sequence[str]) -> bool:
    pairs = zip(parts, segments, strict=False)
    return all(part == segment or _PARAMETER.search(part) for part, segment in pairs)


def named_route(name: str, path: str) -> str:
    """Return the route in a span's name, or an empty string.

    By the HTTP conventions a name is ``{method} {route}``. Where instrumentations put the raw path there
    instead, it is no template that the path matches.
    """
    found = _SPAN_NAME.fullmatch(name.replace("%s", "{var}"))  # Tornado, where a group has no parameter
    if not found or not _PARAMETER.search(found[1]) or found[1] == unquote(path):
        return ""
    parts, segments = found[1].strip("/").split("/"), path.strip("/").split("/")
    return found[1] if len(parts) == len(segments) and _matches(parts, segments) else ""


class Tally:
    """Counts without a lock, so that a fork cannot inherit a held one; safe to use from several threads."""

    def __init__(self) -> None:
        self._counted: deque[None] = deque()

    def add(self) -> None:
        """Count one more."""
        self._counted.append(None)

    def take(self) -> int:
        """Return how many were counted since this was asked last; each is counted for one caller."""
        taken = 0
        with suppress(IndexError):  # another thread takes them too
            while self._counted:
                self._counted.popleft()
                taken += 1
        return taken


class EndpointCap:
    """Lets a number of distinct raw endpoints through, and folds all further ones into `OTHER`.

    Without a lock too: several threads at once may let a few more endpoints through than the limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self.folded = Tally()

    def admit(self, endpoint: str) -> str:
        """Return ``endpoint``, or `OTHER` where it would be one too many."""
        if endpoint in self._known:
            return endpoint
        if len(self._known) < self._limit:
            self._known.add(endpoint)
            return endpoint
        self.folded.add()
        return OTHER
