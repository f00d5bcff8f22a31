"""What is no visit: endpoints excluded by option; and what is marked but kept.

Marked are health checks, a browser's preflights (CORS) and prefetches, and static files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

from otel_analytics.mapping import semconv
from otel_analytics.mapping.values import Attributes, first_text

HEALTH_ENDPOINTS: Final = frozenset(
    {
        *("/health", "/healthz", "/healthcheck", "/health-check", "/health_check", "/_health", "/_healthz"),
        *("/health/live", "/health/ready", "/health/liveness", "/health/readiness", "/status/health"),
        *("/live", "/livez", "/liveness", "/ready", "/readyz", "/readiness", "/-/healthy", "/-/ready"),
        *("/ping", "/_ping", "/heartbeat", "/__heartbeat__", "/__lbheartbeat__"),
        *("/actuator/health", "/actuator/health/liveness", "/actuator/health/readiness"),
        *("grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"),
    }
)
"""Endpoints that orchestrators and load balancers ask; a prefix such as ``/api`` may stand before them."""

HEALTH_CHECK: Final = "healthCheck"
PREFLIGHT: Final = "preflight"
PREFETCH: Final = "prefetch"
STATIC_FILE: Final = "staticFile"

_READING: Final = frozenset({"GET", "HEAD"})
_PREFIX = re.compile(r"(?:/api)?(?:/v\d+)?(?=/)")
_STATIC = re.compile(
    r"^/(?:static|staticfiles|_next/static|_nuxt|webjars)/."  # Django, Flask; Next.js, Nuxt; Java
    r"|\.(?:css|m?js|map|png|jpe?g|gif|svg|ico|webp|avif|bmp|woff2?|ttf|otf|eot|wasm|webmanifest)$"
    r"|/(?:robots|humans|ads|app-ads|security)\.txt$"
    r"|/(?:sitemap[\w-]*|browserconfig|crossdomain)\.xml$"
    r"|/(?:asset-)?manifest\.json$",
    re.IGNORECASE,
)
_PREFETCH = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)  # `Sec-Purpose: prefetch;prerender`


@lru_cache(maxsize=4096)
def mark_of(method: str, endpoint: str) -> str:
    """Return the metadata's key that says why a call is no visit, or an empty string."""
    if _is_health_endpoint(endpoint):
        return HEALTH_CHECK
    if method == "OPTIONS":
        return PREFLIGHT
    return STATIC_FILE if method in _READING and _STATIC.search(endpoint) else ""


def is_prefetch(attributes: Attributes) -> bool:
    """Whether a browser asked before anybody wanted it, where the request's headers are captured."""
    return bool(_PREFETCH.match(first_text(attributes, semconv.PURPOSE)))


def _is_health_endpoint(endpoint: str) -> bool:
    bare = endpoint.rstrip("/").lower() if endpoint.startswith("/") else endpoint
    return bare in HEALTH_ENDPOINTS or _PREFIX.sub("", bare, count=1) in HEALTH_ENDPOINTS


def exclusion(patterns: Sequence[str]) -> Callable[[str, str], bool]:
    """Return the cached test of a method's endpoint against the option ``excluded_endpoints``.

    Args:
        patterns: Shell patterns (`*` matches slashes too) of ``METHOD:endpoint`` or of the endpoint.
    """
    if not patterns:
        return lambda _method, _endpoint: False
    excluded = re.compile("|".join(map(translate, patterns)))

    @lru_cache(maxsize=4096)
    def is_excluded(method: str, endpoint: str) -> bool:
        return bool(excluded.match(endpoint) or excluded.match(f"{method}:{endpoint}"))

    return is_excluded
