"""What is told when all is well: where analytics go, and that the first events arrived.

Each is one line for an endpoint and a process, those forked from it included: gunicorn's workers need not
repeat each other. Set up by the environment, where they go is told at once; in code with the first event,
when logging has been set up and the spans have said what their service is called.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from otel_analytics.delivery.logs import Secrets, tell_once
from otel_analytics.escaping import escaped
from otel_analytics.mapping.reasons import SAMPLED_OUT
from otel_analytics.mapping.semconv import UNKNOWN_SERVICE
from otel_analytics.mapping.views import is_nameless

if TYPE_CHECKING:
    from otel_analytics.config import Config

ALL_CALLS: Final = "unsampled calls counted"
RECORDED_CALLS: Final = "unsampled calls not counted"
SAMPLED_CALLS: Final = "sampled spans only"

_LONGEST_NAME: Final = 100
_BATCHING: Final[Mapping[str, str]] = {
    "auto": "batches by advertisement",
    "on": "batches",
    "off": "singly",
}


def tell_start(config: Config, service: str, seen: str) -> None:
    """Tell where the analytics of a service go, and how.

    Args:
        config: The options.
        service: Its name; empty where it is not known yet.
        seen: Which calls are counted, one of the sentences above; empty where no spans come.
    """
    of_service = "" if is_nameless(service) else f" of {escaped(service[:_LONGEST_NAME])}"
    waiting = f"spool {escaped(config.spool_path)}" if config.spool_path else "waiting in memory"
    how = ", ".join(filter(None, (_BATCHING[config.batching], waiting, seen)))
    where = _shown(config)
    text = "analytics%s go to %s (%s)"
    tell_once(logging.INFO, text, of_service, where, how, what=f"start {where}")


def tell_first_delivery(config: Config, count: int, kind: str) -> None:
    """Tell that the collector has taken events for the first time."""
    where = _shown(config)
    text = "first events delivered: %s took %d %s%s"
    plural = "" if count == 1 else "s"
    tell_once(logging.INFO, text, where, count, kind, plural, what=f"delivery {where}")


def tell_nameless() -> None:
    """Warn that nobody will know whose views these are."""
    tell_once(logging.WARNING, _NAMELESS)


def tell_sampled_out(sampler: str = "") -> None:
    """Warn that calls are missing because tracing samples them out, and nobody asked for those.

    Args:
        sampler: What samples them out, where that is known.
    """
    by = f" ({escaped(sampler[:_LONGEST_NAME])})" if sampler else ""
    tell_once(logging.WARNING, _SAMPLED_OUT, by, what=SAMPLED_OUT)


def _shown(config: Config) -> str:
    secrets = Secrets([config.write_key or "", *config.headers.values()])
    return secrets.hidden(config.endpoint.rstrip("/"))


_SAMPLED_OUT = (
    "calls that tracing samples out%s are not counted: AnalyticsSpanProcessor with count_unsampled(provider)"
    " counts them, count_unsampled=false says that this is meant"
)
_NAMELESS = f"the service has no name, its views say {UNKNOWN_SERVICE}: set OTEL_SERVICE_NAME or app_name"
