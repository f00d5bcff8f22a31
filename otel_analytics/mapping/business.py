"""Which events are business events, be their names written as people write them.

Public code names the same event `payment_processed`, `payment.processed`, `PaymentProcessed` and
`Payment processed`; names are compared after folding case and what separates words. What still matches none,
but nearly, is counted and told to the operator, who would otherwise miss a metric without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, NamedTuple

from otel_analytics.events import BusinessEvent, MetricType
from otel_analytics.mapping import semconv
from otel_analytics.mapping.endpoint import UNKNOWN
from otel_analytics.mapping.privacy import name_without_ids
from otel_analytics.mapping.reasons import NEAR_MISS, NOT_BUSINESS, REASONS, Nothing, Noticed

_TARGETS: Final[Mapping[str, tuple[str, ...]]] = {
    MetricType.PURCHASE.value: ("order.id", "payment.id", "transaction.id"),
    MetricType.COMMENT.value: ("message.id", "thread.id"),
    MetricType.SUBSCRIBE.value: ("stream.id",),
}
"""What an event of a metric type is done to, the most telling first."""

_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "payment_processed": (
        *("payment_completed", "payment_succeeded", "payment_success", "payment_successful"),
        *("payment_captured", "payment_confirmed", "payment_received", "payment_made"),
    ),
    "message_sent": ("message_posted", "message_created", "message_submitted"),
    "message_received": ("message_delivered", "message_arrived"),
    "stream_started": ("stream_opened", "stream_created"),
    "stream_ended": ("stream_stopped", "stream_closed", "stream_finished", "stream_completed"),
}
"""What people call the contract's events in other words; that is to be said, not to be guessed."""

_NEARLY: Final = 0.8
_LONGEST_NAME: Final = 128
_OF_TRACING: Final = frozenset({"exception", "message", "log", "feature_flag", "feature_flag.evaluation"})
"""Events of instrumentations: conventions for exceptions, RPC and feature flags, and the OpenTracing shim."""
_OF_TRACING_BEGIN: Final = "gen_ai."
_SEPARATORS = re.compile(r"[\W_]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


class Recognised(NamedTuple):
    """A business event by its name in the table.

    Args:
        name: That name, however the event's own is written.
        business: What it counts as.
        targets: The attributes that may name its target, the first that does wins.
    """

    name: str
    business: BusinessEvent
    targets: tuple[str, ...]


class BusinessNames:
    """Recognises business events by their names; safe to use from several threads.

    Args:
        table: Event name to what it counts as.
        noticed: Learns of names that are none.
    """

    def __init__(self, table: Mapping[str, BusinessEvent], noticed: Noticed) -> None:
        self._exact = {name: recognised(name, business) for name, business in table.items()}
        self._folded = {folded(name): each for name, each in self._exact.items()}
        self._others = {
            folded(other): name for name, others in _OTHER_NAMES.items() for other in others if name in table
        }
        self._look_up = lru_cache(maxsize=1024)(self._looked_up)
        self._noticed = noticed

    def recognise(self, name: str) -> Recognised | None:
        """Return the business event of a name; `None`, which is noted, where it is none."""
        found, nothing = (self._look_up if len(name) <= _LONGEST_NAME else self._looked_up)(name)
        if nothing:
            self._noticed.add(nothing)
        return found

    def known(self, name: str) -> Recognised | None:
        """Return the business event of a name, as `recognise` does, and note nothing."""
        return self._exact.get(name) or self._folded.get(folded(name))

    def is_expected(self, name: str) -> bool:
        """Whether an event of a name is a business event, or one that instrumentations add to spans."""
        return bool(not name or name in _OF_TRACING or name.startswith(_OF_TRACING_BEGIN) or self.known(name))

    def why_not(self, name: str) -> str:
        """Return why a name is no business event's."""
        nothing = self._nothing(name)
        return REASONS[nothing.why].format(near=nothing.near)

    def _looked_up(self, name: str) -> tuple[Recognised | None, Nothing | None]:
        """Return what a name means, and what is to be noticed where that is nothing."""
        found = self.known(name)
        return found, None if self.is_expected(name) else self._nothing(name)

    def _nothing(self, name: str) -> Nothing:
        near = self._resembled(folded(name), _words(name)) if len(name) <= _LONGEST_NAME else ""
        short = name_without_ids(name[:_LONGEST_NAME]) or UNKNOWN
        return Nothing(NEAR_MISS if near else NOT_BUSINESS, short, near)

    def _resembled(self, plain: str, words: Sequence[str]) -> str:
        """Return the business event that a name is in other words, an order or a spelling of its own."""
        if plain in self._others:
            return self._others[plain]
        for known, each in self._folded.items():
            if (known and known in plain) or (words and words == _words(each.name)):
                return each.name
        near = get_close_matches(plain, self._folded, n=1, cutoff=_NEARLY)
        return self._folded[near[0]].name if near else ""


@lru_cache(maxsize=256)
def recognised(name: str, business: BusinessEvent) -> Recognised:
    """Return a business event with the attributes that may name its target."""
    own = (business.target_id_attribute,) if business.target_id_attribute else ()
    keys = dict.fromkeys((*own, *_TARGETS.get(business.metric_type, ())))
    spellings = (spelling for key in keys for spelling in _spellings(key))
    return Recognised(name, business, (*semconv.TARGET_ID, *dict.fromkeys(spellings)))


def folded(name: str) -> str:
    """Return a name without case and without what separates its words."""
    return _SEPARATORS.sub("", name).casefold()


def _spellings(key: str) -> Iterator[str]:
    """Yield a key as people write it: a keyword argument of Python has no dots, demos have a namespace."""
    for spelling in (key, key.replace(".", "_")):
        yield spelling
        yield f"app.{spelling}"


def _words(name: str) -> Sequence[str]:
    return sorted(word.lower() for word in _WORD.findall(name))
