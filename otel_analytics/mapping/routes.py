"""The routes of all frameworks: read as templates, and told from raw paths that some instrumentations write.

By the HTTP conventions `http.route` is "the matched route template" and must not be the path. A template's
syntax stays as its framework writes it; a leading method, what stands for a query string, and an optional
format or last slash are no part of the endpoint.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

RAW_PATH_SCOPES: Final = frozenset(
    {
        # Sets no route itself: Litestar's plugin gives the middleware `{method} {raw path}` for one.
        "opentelemetry.instrumentation.asgi",
        # `rawPath` of the HTTP API's payload 2.0; payload 1.0 has the resource, a template.
        "opentelemetry.instrumentation.aws_lambda",
        # Before Go 1.22 there was no pattern to report, and the path was.
        "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp",
        # Alibaba's agent for Go reports the path where it does not ask the framework for a pattern.
        "loongsuite.instrumentation.nethttp",
        "loongsuite.instrumentation.fasthttp",
        "loongsuite.instrumentation.fiber",
        "loongsuite.instrumentation.fiber.v3",
        "loongsuite.instrumentation.hertz",
    }
)
"""Instrumentations whose route is the raw path where it equals the path."""

# Brackets of any framework: `{id:[0-9]{3}}`, `<int:id>`, `[[...slug]]`, Rails' `(/:id)`, OData's `({key})`.
_BRACKETS = (
    r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|<[^<>]*>|\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
    r"|\((?:/?[\w/]*:[\w/:]*|\{\w+\})\)"
)
_SPARED = r"(?:[*+]|\?(?=[/.\-(\[{]|$))?"  # what follows makes it optional or repeated, or begins a query
_COLON = rf"(?<![A-Za-z0-9]):[A-Za-z_]\w*(?:\([^()]*\))?{_SPARED}"
"""`:id`, with a constraint of its own (Express); not the `:` of a custom verb, ``/items:batchGet``."""

_SYNTAX = re.compile(rf"(?:{_BRACKETS}){_SPARED}|{_COLON}")
_PARAMETER = re.compile(rf"[{{<*]|\[|\(|{_COLON}")
_METHOD = re.compile(r"[A-Z]+(?:[|,][A-Z]+)*[ ]+(?=\S)")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
_HOST = re.compile(r"[^/{<]+(?=/)")
_LEFT_OUT = re.compile(
    r"\{[?&#][^{}]*\}"  # `{?q,page}`, `{&more}`, `{#part}`: RFC 6570, Micronaut
    r"|\(\.:?\w+\)"  # `(.:format)`: Rails
    r"|\{\$\}$"  # `/items/{$}`: Go's `ServeMux`, the path itself and nothing below it
    r"|\.\?:\w+\?"  # `.?:format?`: Sinatra
)
_OPTIONAL_SLASH = re.compile(r"(?:\(/\)|\[/\]|/\?)\$?$")  # Rails, FastRoute, Tornado
_QUERY_SIGN = r"[?#]|%(?:25)*(?:3[fF]|23)"
_SYNTAX_OR_QUERY = re.compile(rf"{_SYNTAX.pattern}|(?P<query>{_QUERY_SIGN})")

_REGEX = re.compile(r"\^|\(|\\|\$$")
_GROUP = re.compile(r"\((?:\?P?<(\w+)>|\?:)?[^()]*\)(?:[*+]|\?(?=[/.\-(\[{)|^$\\]|$))?")
_REGEX_SIGNS = re.compile(r"\\[AZz]|[\^$]|\\(?=[./-])|(?<=/)\?(?!\w*=)")

# What a router falls back to: ASP.NET's `{*route}`, AWS's `{proxy+}` and `$default`, Spring's `/**`, and of
# the others only where nothing stands before it; `/files/{path:path}` is a parameter that somebody meant.
_FALLBACK = re.compile(
    r"(?P<before>(?:/[^/{<\[(:*]+)*)/(?:\*\*?|\{\w+\+\}|\{\*{1,2}\w+[^{}/]*\})"
    r"|/?(?:\*|\$default)"
    r"|/(?:\*\w+|:\w+[*+]|:\w+\(\.\*\)|\{\w+\.\.\.\}|\{\w+:path\}|\{\w+:\.[*+]\}|<path:\w+>|\[{1,2}\.{3}\w+\]{1,2})"
)
_MATCHES_MANY = re.compile(r"\bpath\b|[*+]|\.\.\.")


class Route(NamedTuple):
    """A route as it was read.

    Args:
        endpoint: Itself, in its framework's syntax.
        is_template: Whether it has a parameter.
        rest_after: The literal before a catch-all that is all there is, `None` for other routes.
        had_method: Whether a method stood before it.
    """

    endpoint: str
    is_template: bool
    rest_after: str | None
    had_method: bool


@lru_cache(maxsize=4096)
def read_route(text: str) -> Route:
    """Read a framework's route, e.g. ``items/<int:id>`` as ``/items/<int:id>``.

    Regular expressions, as Django's `re_path` and Tornado report them, lose their anchors, and their groups
    become ``{name}`` or ``{var}``.
    """
    route, had_method = _without_method(text)
    if authority := _AUTHORITY.match(route):
        route = route[authority.end() :]
    route = _OPTIONAL_SLASH.sub("/", _LEFT_OUT.sub("", route))
    if _REGEX.search(_SYNTAX.sub("", route)) and route != "$default":
        route = _plain_regex(route)
    route = _without_query(route)
    if not route.startswith(("/", "*", "$default")):
        route = "/" + route
    fallback = _FALLBACK.fullmatch(route)
    rest_after = None if fallback is None else fallback["before"] or ""
    is_template = fallback is not None or bool(_PARAMETER.search(route))
    return Route(route, is_template, rest_after, had_method)


def is_parameter(segment: str) -> bool:
    """Whether a segment of a route is, or has, a parameter."""
    return bool(_PARAMETER.search(segment))


def matches_many(route: str) -> bool:
    """Whether a parameter of a route takes several segments of a path."""
    return bool(_MATCHES_MANY.search(route))


def _without_method(text: str) -> tuple[str, bool]:
    """Return a route without ``GET `` before it, as Litestar and Go's `ServeMux` write it."""
    method = _METHOD.match(text)
    if method is None:
        return text, False
    route = text[method.end() :]
    host = _HOST.match(route)  # `GET example.com/items`: Go
    return route[host.end() :] if host else route, True


def _plain_regex(route: str) -> str:
    while (plain := _GROUP.sub(lambda group: f"{{{group[1] or 'var'}}}", route)) != route:
        route = plain
    return _REGEX_SIGNS.sub("", route)


def _without_query(route: str) -> str:
    """Return what stands before a query string; a ``?`` within a route's syntax begins none."""
    for found in _SYNTAX_OR_QUERY.finditer(route):
        if found["query"]:
            return route[: found.start()]
    return route
