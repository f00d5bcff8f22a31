"""What is no visit: endpoints excluded by option, and health checks, which are marked but kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

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

_PREFIX = re.compile(r"(?:/api)?(?:/v\d+)?(?=/)")


@lru_cache(maxsize=4096)
def is_health_endpoint(endpoint: str) -> bool:
    """Whether an endpoint is one of the usual health checks."""
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
