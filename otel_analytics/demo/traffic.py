"""What the demo's visitors do, planned first, so that what must arrive is known before it is sent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx

_VISITORS = 4
_REQUEST_SECONDS = 10
_CRASHED = 500
_SEED = 1  # the same traffic each time, so that two runs can be compared
_USERS = tuple(f"user-{number}" for number in range(1, 13))


class Visit(NamedTuple):
    """One request, and the business events the shop reports for it."""

    method: str
    path: str
    status: int
    events: tuple[str, ...] = ()
    json: Mapping[str, Any] | None = None
    user: str = ""


class Sent(NamedTuple):
    """What was sent, to be compared with what arrives; business events by name."""

    requests: int
    business_events: Mapping[str, int]


def plan(requests: int) -> list[Visit]:
    """Return that many visits in a shuffled order, every kind at least once where there is room."""
    dice = random.Random(_SEED)  # noqa: S311 - traffic, no secret
    weights = [weight for weight, _ in _KINDS]
    kinds = [kind for _, kind in _KINDS]
    chosen = [*kinds, *dice.choices(kinds, weights, k=requests)][:requests]
    dice.shuffle(chosen)
    return [kind(dice)._replace(user=dice.choice(("", *_USERS))) for kind in chosen]


def drive(visits: list[Visit], shop_url: str, on_visit: Callable[[], None]) -> Sent:
    """Send all visits on a few connections at once.

    Args:
        visits: The plan.
        shop_url: The shop's base URL.
        on_visit: Is called after each, on this thread.

    Raises:
        httpx.HTTPError: The shop gave no answer, or not the expected one.
    """
    with httpx.Client(base_url=shop_url, timeout=_REQUEST_SECONDS) as http:
        visitors = ThreadPoolExecutor(_VISITORS)
        try:
            for _ in visitors.map(lambda visit: _make(visit, http), visits):
                on_visit()
        finally:
            visitors.shutdown(cancel_futures=True)
    return Sent(len(visits), Counter(_events_of(visits)))


def _events_of(visits: Iterable[Visit]) -> Iterable[str]:
    return (event for visit in visits for event in visit.events)


def _make(visit: Visit, http: httpx.Client) -> None:
    response = http.request(visit.method, visit.path, json=visit.json, headers=_headers(visit))
    if response.status_code != visit.status:
        raise httpx.HTTPStatusError(
            f"{visit.method} {visit.path}: {response.status_code} instead of {visit.status}",
            request=response.request,
            response=response,
        )


def _headers(visit: Visit) -> dict[str, str]:
    user = {"X-User": visit.user} if visit.user else {}
    # uvicorn drops the connection after a crash, perhaps just when the next request is on it.
    close = {"Connection": "close"} if visit.status >= _CRASHED else {}
    return user | close


def _browse(_: random.Random) -> Visit:
    return Visit("GET", "/products?page=2", 200)


def _look(dice: random.Random) -> Visit:
    return Visit("GET", f"/products/{dice.randint(1, 20)}?ref=mail", 200)


def _look_for_nothing(dice: random.Random) -> Visit:
    return Visit("GET", f"/products/{dice.randint(100, 999)}", 404)


def _order(dice: random.Random) -> Visit:
    order = {"product_id": dice.randint(1, 20), "amount": dice.randint(100, 9999) / 100}
    return Visit("POST", "/orders", 201, ("payment_processed",), order)


def _write(dice: random.Random) -> Visit:
    message = {"to": dice.choice(_USERS), "text": "Is it still available?"}
    return Visit("POST", "/messages", 201, ("message_sent", "message_received"), message)


def _watch(dice: random.Random) -> Visit:
    return Visit("POST", f"/streams/channel-{dice.randint(1, 5)}/start", 200, ("stream_started",))


def _stop_watching(dice: random.Random) -> Visit:
    return Visit("POST", f"/streams/channel-{dice.randint(1, 5)}/end", 200, ("stream_ended",))


def _probe(dice: random.Random) -> Visit:
    return Visit("GET", f"/{dice.choice(('wp-login.php', '.env', 'admin'))}", 404)


def _break(_: random.Random) -> Visit:
    return Visit("GET", "/reports/daily", 500)


_KINDS: tuple[tuple[int, Callable[[random.Random], Visit]], ...] = (
    (15, _browse),
    (30, _look),
    (4, _look_for_nothing),
    (18, _order),
    (12, _write),
    (8, _watch),
    (7, _stop_watching),
    (4, _probe),
    (2, _break),
)
"""How often, in relation to each other, visitors do what."""
