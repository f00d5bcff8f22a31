"""Why a span, or an event of it, gives nothing: the words of the log, of ``stats()`` and of ``explain``.

A loss that was asked for has the value of `DropReason` as its word; of what is no loss, because nobody could
know that it was meant, the word is a name in ``stats().noted``.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

IGNORED: Final = "ignored"
EXCLUDED: Final = "excluded"
ANONYMOUS: Final = "anonymous"
NEAR_MISS: Final = "near_misses"
NOT_BUSINESS: Final = "not_business_events"
UNKNOWN_PROTOCOL: Final = "unknown_protocol"
NOBODY_CALLS: Final = "nobody_calls"
NO_SERVER: Final = "no_server"
SAMPLED_OUT: Final = "sampled_out"
SECOND: Final = "second_span"
TWICE: Final = "recorded_twice"

REASONS: Final[Mapping[str, str]] = {
    IGNORED: "it carries analytics.ignore",
    EXCLUDED: "excluded by the option excluded_endpoints",
    ANONYMOUS: "nobody is known for it, and anonymous_user_id is empty",
    NEAR_MISS: "not among business events: did you mean {near}?",
    NOT_BUSINESS: "not among business events, and it carries no analytics.metric_type",
    UNKNOWN_PROTOCOL: (
        "a server span of no protocol known: no attributes of HTTP, RPC, MCP or a called function"
    ),
    NOBODY_CALLS: "a function that nobody calls: a timer, a message or a change of data has started it",
    NO_SERVER: "{kind} span: only server spans are API calls",
    SAMPLED_OUT: "tracing samples it out, and nothing counts such calls",
    SECOND: "the same request as another server span, which has the view",
    TWICE: "the same event is there already",
}

_MOST_NAMES: Final = 8
_MOST_WAITING: Final = 256


class Nothing(NamedTuple):
    """Something that gives no event, though somebody may have meant it to.

    Args:
        why: A word of `REASONS`.
        name: Whose, without ids.
        near: What it may have been meant to be.
    """

    why: str
    name: str
    near: str = ""


class Noticed:
    """Keeps what gives nothing until it is taken; without a lock, which a fork could inherit held."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._new: deque[Nothing] = deque()
        self._known: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, nothing: Nothing) -> None:
        """Notice one more; of each reason, so many names are told as a person would read."""
        self._waiting.append(nothing.why)
        known = self._known[nothing.why]
        if nothing.name not in known and len(known) < _MOST_NAMES:
            known.add(nothing.name)
            self._new.append(nothing)

    @property
    def is_due(self) -> bool:
        """Whether there is a name to tell, or so much to count that it is to be taken without being asked."""
        return bool(self._new) or len(self._waiting) > _MOST_WAITING

    def take(self) -> tuple[Mapping[str, int], Sequence[Nothing]]:
        """Return how many there were of each reason since this was asked last, and the first of each name."""
        counts: Counter[str] = Counter()
        new: list[Nothing] = []
        with suppress(IndexError):  # another thread takes them too
            while self._waiting:
                counts[self._waiting.popleft()] += 1
        with suppress(IndexError):
            while self._new:
                new.append(self._new.popleft())
        return counts, new
