"""What the options' values may be, for type checkers and editors; the options themselves are `config`'s.

A test holds the names and the types against `config.Config`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict

from otel_analytics.events import BusinessEvent, Event

FilePath = str | os.PathLike[str]
Texts = tuple[str, ...] | list[str] | set[str] | frozenset[str]
"""Some texts; one alone is no list of its letters."""


class Options(TypedDict, total=False):
    """Every option but ``endpoint``, by name; `None` is as good as not given.

    What each means, its default and its environment variable: ``otel-analytics docs options``.
    """

    write_key: str | None
    headers: Mapping[str, str] | None
    certificate: FilePath | None
    client_certificate: FilePath | None
    client_key: FilePath | None
    insecure_key: bool | None
    app_name: str | None
    timeout_millis: int | None
    batching: Literal["auto", "on", "off"] | None
    max_batch_size: int | None
    max_batch_bytes: int | None
    max_queue_size: int | None
    max_connections: int | None
    flush_interval_millis: int | None
    shutdown_timeout_millis: int | None
    flush_on_sigterm: bool | None
    spool_path: FilePath | None
    max_spool_bytes: int | None
    max_spool_age_hours: int | None
    compression: Literal["auto", "none", "gzip"] | None
    view_metadata: bool | None
    business_events: Mapping[str, str | BusinessEvent | Mapping[str, str]] | None
    client_ip: Literal["full", "truncate", "drop"] | None
    anonymous_user_id: str | None
    count_unsampled: bool | None
    identity_wait_millis: int | None
    trusted_baggage: Texts | None
    trusted_proxy_hops: int | None
    client_ip_headers: Texts | None
    device_type: str | None
    excluded_endpoints: Texts | None
    max_endpoints: int | None
    before_send: Callable[[Event], Event | None] | None
    on_drop: Callable[[str, Sequence[Event]], object] | None
    debug: bool | None
