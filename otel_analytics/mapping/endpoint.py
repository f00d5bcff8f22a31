"""The endpoint of an API call: a route template where there is one, else a folded path.

Whatever strangers request, two things hold: no query string, fragment or credentials get into an endpoint,
and what looks like an id does not make a new one (`EndpointCap` bounds what is left). Where the endpoint
comes from says how far it is believed (`Trust`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum, auto
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from otel_analytics.mapping.path_ids import fold_segments
from otel_analytics.mapping.routes import RAW_PATH_SCOPES, is_parameter, matches_many, read_route

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

_SPAN_NAME = re.compile(r"(?:[A-Z_]+ ){0,2}(/\S*)")  # also `HTTP GET /items`

_MOST_ROUTES: Final = 1000


def without_query(target: str) -> str:
    """Return what comes before a query string or fragment, be its sign percent-encoded."""
    found = _QUERY_OR_FRAGMENT.search(target)
    return target[: found.start()] if found else target


def raw_path(target: str) -> str:
    """Return the path of a request target in any of its forms: a path, an absolute URL, ``*``."""
    path = without_query(target[:LONGEST])
    if path[:1] != "/" and (authority := _SCHEME_AND_AUTHORITY.match(path)):
        path = path[authority.end() :]
    return path or "/"


def path_endpoint(path: str, before: str = "") -> str:
    """Return a raw path as an endpoint: ids are ``{id}``, text is decoded, repeated slashes are one.

    Args:
        path: With its first slash, or ``*``.
        before: The path that it continues.
    """
    if path == "*":
        return path
    segments = [_decoded(segment) for segment in path.split("/") if segment]
    slash = "/" if segments and path.endswith("/") else ""
    return "/" + "/".join(fold_segments(segments, before)) + slash


def _decoded(segment: str) -> str:
    """Undo percent-encoding and, for WSGI, UTF-8 read as Latin-1 (PEP 3333), where nothing is lost by it."""
    if segment.isascii() and "%" not in segment:
        return segment
    text = unquote(segment)
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode()
    return text if without_query(text) == text and "/" not in text else segment


class Trust(IntEnum):
    """How far an endpoint is believed to be one of the application's own."""

    TEMPLATE = auto()
    """A route with parameters."""
    FALLBACK = auto()
    """What a router takes for want of a route; with 404 or 405 it took nothing."""
    ROUTE = auto()
    """A route without parameters. Should instrumentations write paths there, a net is under it."""
    LOOKALIKE = auto()
    """A route that equals the path: most are true, and the net is as narrow as that under paths."""
    NAME = auto()
    """A template in the span's name; anybody may have written it, so it counts as a path does."""
    PATH = auto()
    """A folded path: the endpoint has to be earned by an answer."""


class Place(NamedTuple):
    """Where a request went, before anybody looks at how it was answered.

    Args:
        endpoint: The endpoint that it has if it is one.
        trust: Whether it is.
        unmatched: The endpoint if it is none.
        mounted: Whether a mounted application handled a part of the path.
    """

    endpoint: str
    trust: Trust
    unmatched: str = UNMATCHED
    mounted: bool = False


_NOWHERE: Final = Place(UNKNOWN, Trust.FALLBACK)


def place_of(route: str, target: str, name: str, scope: str) -> Place:
    """Return where a request went.

    Args:
        route: The instrumentation's; empty without one.
        target: The request's path or URL; empty where it is unknown.
        name: The span's.
        scope: The instrumentation's name.
    """
    if not route:
        return _unrouted(raw_path(target) if target else "", name[:LONGEST])
    is_raw = scope in RAW_PATH_SCOPES
    if not is_raw:
        # Nearly all spans end here: the path is the route, or has no more segments than the template.
        itself, template = _usual(route[:LONGEST])
        if itself is not None and target == itself.endpoint:
            return itself
        if template is not None and "%" not in target and target.count("/") <= template.endpoint.count("/"):
            return template
    return _routed(route[:LONGEST], raw_path(target) if target else "", is_raw=is_raw)


@lru_cache(maxsize=4096)
def _usual(text: str) -> tuple[Place | None, Place | None]:
    """Return the place of a path that equals a route, and of one that a template fits."""
    route = read_route(text)
    if route.rest_after is not None:
        return None, None
    template = Place(route.endpoint, Trust.TEMPLATE) if route.is_template else None
    return Place(route.endpoint, Trust.LOOKALIKE), template


@lru_cache(maxsize=4096)
def _routed(text: str, path: str, *, is_raw: bool) -> Place:
    route = read_route(text)
    endpoint = route.endpoint
    equal = endpoint in (path, unquote(path))
    if is_raw and (equal or (route.had_method and not route.is_template and endpoint[-1] != "/")):
        return Place(path_endpoint(path or endpoint), Trust.PATH)
    if route.rest_after is not None:
        return _caught(route.rest_after, path) if path else Place(endpoint, Trust.FALLBACK)
    if endpoint == "/" and not equal and path:
        return Place(endpoint, Trust.FALLBACK)
    if rest := mounted_path(endpoint, path):
        return _within(endpoint, rest, mounted=True)
    if equal:
        return Place(endpoint, Trust.LOOKALIKE)
    return Place(endpoint, Trust.TEMPLATE if route.is_template else Trust.ROUTE)


def _caught(before: str, path: str) -> Place:
    """Return the place of a path that a catch-all took, whose route says only what stands ``before``."""
    # A server's root path, or a stage of AWS's gateway, may stand before the route.
    known, found, rest = path.partition(f"{before}/")
    if not found or not before:
        return Place(path_endpoint(path), Trust.PATH)
    return _within(path_endpoint(known).rstrip("/") + before, "/" + rest)


def _within(prefix: str, rest: str, *, mounted: bool = False) -> Place:
    prefix = prefix.rstrip("/")
    return Place(prefix + path_endpoint(rest, prefix), Trust.PATH, f"{prefix}/{UNMATCHED}", mounted)


@lru_cache(maxsize=4096)
def _unrouted(path: str, name: str) -> Place:
    named = named_route(name, path)
    if named:
        return Place(named, Trust.NAME)
    if path:
        return Place(path_endpoint(path), Trust.PATH)
    found = _SPAN_NAME.fullmatch(name)
    if not found:
        return _NOWHERE
    route = read_route(found[1])
    if route.rest_after is not None:
        return Place(route.endpoint, Trust.FALLBACK)
    if not route.is_template:
        return Place(path_endpoint(route.endpoint), Trust.PATH)
    segments = route.endpoint.split("/")
    folded = (part if is_parameter(part) else path_endpoint(part)[1:] for part in segments)
    return Place("/".join(folded), Trust.NAME)


def mounted_path(route: str, path: str) -> str:
    """Return the part of ``path`` that a mounted application handled, or an empty string.

    The server span of a mounted application knows the mount's prefix only: route ``/v2``, path
    ``/v2/things/9``. A server's root path may stand before the route. A route that ends in a slash is whole:
    Go's `ServeMux` takes all that is below it.
    """
    if path.count("/") <= route.count("/") or route[-1:] == "/" or matches_many(route):
        return ""
    parts, segments = route.strip("/").split("/"), path.strip("/").split("/")
    surplus = len(segments) - len(parts)
    if surplus <= 0 or _matches(parts, segments[surplus:]):
        return ""
    for skipped in range(surplus):
        if _matches(parts, segments[skipped:]):
            return "/" + "/".join(segments[skipped + len(parts) :])
    return ""


def _matches(parts: Sequence[str], segments: Sequence[str]) -> bool:
    pairs = zip(parts, segments, strict=False)
    return all(part == segment or is_parameter(part) for part, segment in pairs)


def named_route(name: str, path: str) -> str:
    """Return the route in a span's name, or an empty string.

    By the HTTP conventions a name is ``{method} {route}``. Where instrumentations put the raw path there
    instead, it is no template that the path matches.
    """
    found = _SPAN_NAME.fullmatch(name.replace("%s", "{var}"))  # Tornado, where a group has no parameter
    if not found or not path:
        return ""
    route = read_route(found[1])
    if not route.is_template or route.rest_after is not None or found[1] == unquote(path):
        return ""
    parts, segments = route.endpoint.strip("/").split("/"), path.strip("/").split("/")
    return route.endpoint if len(parts) == len(segments) and _matches(parts, segments) else ""


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
    """Lets a number of distinct endpoints through that may be no route's, and folds all further ones.

    Without a lock too: several threads at once may let a few more endpoints through than the limit.

    Args:
        limit: Most of them.
        folded: Counts the calls that were folded.
    """

    def __init__(self, limit: int, folded: Tally) -> None:
        self._limit = limit
        paths: set[str] = set()
        self._known = {
            Trust.PATH: paths,
            Trust.NAME: paths,
            Trust.LOOKALIKE: set[str](),
            Trust.ROUTE: set[str](),
        }
        self._folded = folded

    def knows(self, endpoint: str) -> bool:
        """Whether a path earned this endpoint before."""
        return endpoint in self._known[Trust.PATH]

    def admit(self, endpoint: str, trust: Trust = Trust.PATH) -> str:
        """Return ``endpoint``, or `OTHER` where it would be one too many of its kind."""
        known = self._known[trust]
        if endpoint in known:
            return endpoint
        if len(known) < (max(self._limit, _MOST_ROUTES) if trust is Trust.ROUTE else self._limit):
            known.add(endpoint)
            return endpoint
        self._folded.add()
        return OTHER
