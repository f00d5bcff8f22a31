"""What the mapping knows beforehand: the options, made ready once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from otel_analytics.config import Config
from otel_analytics.events import BUILT_IN_BUSINESS_EVENTS, BusinessEvent
from otel_analytics.mapping.address import Shown, header_keys, shown_address
from otel_analytics.mapping.device import Agent, device_reader
from otel_analytics.mapping.exclusions import exclusion


@dataclass(frozen=True)
class MappingOptions:
    """How spans become events.

    Args:
        app_name: The `app` of views; `None` means the resource's `service.name`.
        business_events: Event name to what it counts as.
        anonymous_user_id: The user of an engagement nobody is known for; empty: no such engagements; `None`:
            one derived from the session or the request.
        show_address: From an address's text to what is told of it.
        trusted_proxy_hops: Proxies before the application whose forwarded entries count.
        client_ip_headers: Attributes of the headers into which a proxy writes the client's address.
        read_agent: From a user agent's text to its device type, and whether it is a bot or a health check.
        is_excluded: Whether a method's endpoint gives no view.
        max_endpoints: Most distinct endpoints that are no route's.
    """

    app_name: str | None
    business_events: Mapping[str, BusinessEvent]
    anonymous_user_id: str | None
    show_address: Shown
    trusted_proxy_hops: int
    client_ip_headers: Sequence[str]
    read_agent: Callable[[str], Agent]
    is_excluded: Callable[[str, str], bool]
    max_endpoints: int


def options_from_config(config: Config) -> MappingOptions:
    """Return the rules that the options ask for."""
    return MappingOptions(
        app_name=config.app_name,
        business_events={**BUILT_IN_BUSINESS_EVENTS, **config.business_events},
        anonymous_user_id=config.anonymous_user_id,
        show_address=shown_address(config.client_ip),
        trusted_proxy_hops=config.trusted_proxy_hops,
        client_ip_headers=header_keys(config.client_ip_headers),
        read_agent=device_reader(config.device_type),
        is_excluded=exclusion(config.excluded_endpoints),
        max_endpoints=config.max_endpoints,
    )
