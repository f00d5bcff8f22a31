"""Events to a request, an answer to an outcome: the wire contract, pure.

One event travels as one object, several as an array of the very same objects, to the same URL.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from hashlib import sha256

from otel_analytics._version import __version__
from otel_analytics.contract import (
    IDEMPOTENCY_KEY,
    PATHS,
    REJECTED,
    RETRY,
    RETRY_COUNT,
    SENT_AT,
    read_acknowledgement,
    rfc3339,
)
from otel_analytics.delivery.backoff import parse_retry_after
from otel_analytics.delivery.batch import Batch
from otel_analytics.delivery.http.reasons import one_line, stated_reason

USER_AGENT = f"otel-analytics-python/{__version__}"
_WORTH_COMPRESSING = 1_024
_FASTEST = 1  # level 1 gives nine tenths of level 6's saving on such bodies for a third of its time


@dataclass(frozen=True)
class Request:
    """A POST, but for the base URL and the write key, which the transport adds."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the collector answered.

    Args:
        status: The status.
        headers: Names in lower case.
        body: May be cut at a limit.
        repeated: Whether the same request had been sent before, on a connection that broke.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    repeated: bool = False


@dataclass(frozen=True)
class NoAnswer:
    """The request failed before it was answered.

    Args:
        reason: For the log; without payload or key.
        reached: Whether the collector had the request, so that the event itself may be what broke it.
    """

    reason: str
    reached: bool


class Verdict(Enum):
    """What an answer means for the events of its request."""

    ACCEPTED = auto()  # acknowledged, but for those the outcome lists
    UNAVAILABLE = auto()  # the collector is unwell: the same again after a backoff
    FAILED = auto()  # unwell, and the event itself may be the cause
    REFUSED = auto()  # wrong key or URL: keep the events, slow down, tell somebody
    REJECTED = auto()  # the event's fault: never again
    CONFLICT = auto()  # stored already, where it was sent before; otherwise the event's fault
    TOO_LARGE = auto()  # fewer at once; a lone event never again
    NO_BATCHES = auto()  # the same events again, singly
    NO_GZIP = auto()  # the same again, uncompressed


UNWELL = frozenset({Verdict.UNAVAILABLE, Verdict.FAILED, Verdict.REFUSED})
"""The verdicts that are about the collector, or whatever of it a connection leads to."""


@dataclass(frozen=True)
class Outcome:
    """A request's result as a value.

    Args:
        verdict: What it means.
        reason: Why, for the log; without payload or key.
        stated: What the collector itself says of it, which may repeat anything.
        retry_after: Seconds the collector asked to wait; beside an acknowledgement, with those in ``again``.
        rejected: Of an accepted batch: the events it rejected, index to its reason.
        again: Of an accepted batch: the indices of those it wants again.
        sent: Whether the collector may have had the request.
        is_page: Whether an HTML page came with a success.
    """

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    rejected: Mapping[int, str] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    sent: bool = True
    stated: str = ""
    is_page: bool = False

    def stated_of(self, index: int) -> str:
        """Return what the collector says of one event of the request."""
        return self.rejected.get(index) or self.stated


_BY_STATUS: Mapping[int, Verdict] = {
    400: Verdict.REJECTED,
    408: Verdict.FAILED,
    409: Verdict.CONFLICT,
    413: Verdict.TOO_LARGE,
    422: Verdict.REJECTED,
    425: Verdict.FAILED,
    429: Verdict.UNAVAILABLE,
    501: Verdict.REFUSED,
    503: Verdict.UNAVAILABLE,
}
_BY_CLASS: Mapping[int, Verdict] = {
    1: Verdict.FAILED,
    2: Verdict.ACCEPTED,
    3: Verdict.REFUSED,  # never followed: the key must not reach another host
    4: Verdict.REFUSED,  # what is not listed above may be about anything, so it costs no event
    5: Verdict.FAILED,
}
_BATCH_NOT_TAKEN = frozenset({404, 405, 415, 501})
_UNSUPPORTED_MEDIA = 415
_CONFLICT = 409


def build_request(batch: Batch, *, compress: bool, unix_now: float) -> Request:
    """Build the POST for a batch.

    Args:
        batch: What to send.
        compress: Whether the collector takes gzip.
        unix_now: The wall clock, for ``X-Sent-At``.
    """
    body = batch.bodies[0] if len(batch.entries) == 1 else b"[" + b",".join(batch.bodies) + b"]"
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        IDEMPOTENCY_KEY: idempotency_key(batch),
        SENT_AT: rfc3339(round(unix_now * 1e6) * 1_000),
    }
    if batch.attempts:
        headers[RETRY_COUNT] = str(batch.attempts)
    if compress and len(body) >= _WORTH_COMPRESSING:
        body = gzip.compress(body, _FASTEST, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Request(PATHS[batch.kind], headers, body)


def idempotency_key(batch: Batch) -> str:
    """Return the event's id; for a batch a digest of its events' ids, so the same on each retry."""
    if len(batch.entries) == 1:
        return batch.entries[0].event.event_id
    return sha256("\n".join(entry.event.event_id for entry in batch.entries).encode()).hexdigest()[:32]


def interpret(result: Answer | NoAnswer, request: Request, count: int, *, unix_now: float) -> Outcome:
    """Say what the result of a request with ``count`` events means."""
    if isinstance(result, NoAnswer):
        verdict = Verdict.FAILED if result.reached else Verdict.UNAVAILABLE
        return Outcome(verdict, result.reason, sent=result.reached)
    if result.status == _CONFLICT and result.repeated:
        return Outcome(Verdict.ACCEPTED)
    verdict = _verdict(result.status, compressed="Content-Encoding" in request.headers, batch=count > 1)
    retry_after = parse_retry_after(result.headers.get("retry-after"), unix_now)
    content_type = result.headers.get("content-type", "").lower()
    if verdict is not Verdict.ACCEPTED:
        stated = stated_reason(content_type, result.body)
        return Outcome(verdict, f"HTTP {result.status}", retry_after, stated=stated)
    outcome = _acknowledged(result.body, count, retry_after) if count > 1 else Outcome(verdict)
    return replace(outcome, is_page="html" in content_type)


def _verdict(status: int, *, compressed: bool, batch: bool) -> Verdict:
    if status == _UNSUPPORTED_MEDIA and compressed:
        return Verdict.NO_GZIP
    if batch and status in _BATCH_NOT_TAKEN:
        return Verdict.NO_BATCHES
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Verdict.FAILED)


def _acknowledged(body: bytes, count: int, retry_after: float | None) -> Outcome:
    try:
        failures = read_acknowledgement(body, count)
    except ValueError as error:
        return Outcome(Verdict.NO_BATCHES, str(error))
    rejected = {f.index: one_line(f.reason) for f in failures if f.status == REJECTED}
    again = frozenset(failure.index for failure in failures if failure.status == RETRY)
    if len(again) == count:
        stated = one_line(failures[0].reason)
        return Outcome(
            Verdict.UNAVAILABLE, "every event of a batch is wanted again", retry_after, stated=stated
        )
    return Outcome(Verdict.ACCEPTED, "that it rejects it", retry_after, rejected, again)
