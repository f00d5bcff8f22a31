"""Record what tracing samples out, so that it can be counted, and leave tracing's own sample as it was.

A dropped span reaches no processor. Here it is recorded without the sampled flag (``RECORD_ONLY``), which
`BatchSpanProcessor`, `SimpleSpanProcessor` and the next service leave out as before. Samplers decide about
children by their parent, so a parent that is recorded only because of us is shown to them as they would have
found it: dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes

# Looked up once: a member of an enumeration costs a call on Python 3.10, and this runs for every span.
_DROP = Decision.DROP
_CLIENT = SpanKind.CLIENT  # calls to others: frequent, and no API call of this service
_SAMPLED = TraceFlags.SAMPLED

# Of a parent these look at the flags alone, which are the same either way: nothing is to be hidden from them,
# and hiding is most of the cost.
_READS_FLAGS_ONLY = frozenset((StaticSampler, TraceIdRatioBased, ParentBased, ParentBasedTraceIdRatio))


class RecordUnsampledSampler(Sampler):
    """Decides as the wrapped sampler does, but records what that one drops, CLIENT spans excepted.

    OpenTelemetry's specification calls a sampler like this `AlwaysRecord`. The SDK's own is too young to rely
    on, loses the attributes that a dropped span was started with, and shows samplers a recording parent.

    Args:
        wrapped: The sampler that decides what is sampled. One of this class is replaced by what it wraps.
    """

    def __init__(self, wrapped: Sampler) -> None:
        self._wrapped: Sampler = wrapped.wrapped if isinstance(wrapped, RecordUnsampledSampler) else wrapped
        self._reads_flags_only = _reads_flags_only(self._wrapped)
        self._hides_parents = False

    @property
    def wrapped(self) -> Sampler:
        """The sampler that decides what is sampled."""
        return self._wrapped

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the wrapped sampler's result, with ``RECORD_ONLY`` in the place of ``DROP``.

        A recorded span starts with the attributes it is given and those that the sampler returns; where both
        have a key, the sampler's value wins. The trace state is the sampler's.

        Raises:
            Exception: Whatever the wrapped sampler raises.
        """
        arguments: tuple[Any, ...] = (trace_id, name, kind, attributes, links)
        if trace_state is not None:  # the SDK's tracer passes none, and samplers exist that take none
            arguments = (*arguments, trace_state)
        dropped = _dropped_parent(get_current_span(parent_context)) if self._hides_parents else None
        if dropped is None:
            result = self._wrapped.should_sample(parent_context, *arguments)
        else:
            result = self._decide_below(dropped, parent_context, arguments)
        if kind is _CLIENT or getattr(result, "decision", None) is not _DROP:
            return result
        # Not from the start: a sampler that records all by itself has to see its own spans as they are.
        self._hides_parents = not self._reads_flags_only
        started_with = _together(attributes, getattr(result, "attributes", None))
        return SamplingResult(Decision.RECORD_ONLY, started_with, result.trace_state)

    def get_description(self) -> str:
        """Return the name of this sampler and the description of the wrapped one."""
        return f"RecordUnsampledSampler{{{self._wrapped.get_description()}}}"

    def _decide_below(
        self, parent: SpanContext, parent_context: Context | None, arguments: tuple[Any, ...]
    ) -> SamplingResult:
        """Ask the wrapped sampler about a child of a span that it has dropped.

        Some samplers, Azure Monitor's among them, sample whatever has a recording parent.
        """
        as_dropped = set_span_in_context(NonRecordingSpan(parent), parent_context)
        if parent_context is not None:
            return self._wrapped.should_sample(as_dropped, *arguments)
        # No context means the current one, and samplers tell the two apart: it stays absent.
        token = attach(as_dropped)
        try:
            return self._wrapped.should_sample(None, *arguments)
        finally:
            detach(token)


def count_unsampled(provider: object) -> bool:
    """Have a tracer provider record what its sampler drops; a second call changes nothing.

    Call it before tracers are made: each keeps the sampler that its provider had then. Those that exist are
    given the new sampler where the SDK lists them (1.41 and later); before, they go on without it.

    Args:
        provider: A tracer provider, of any kind.

    Returns:
        Whether the provider's sampler is wrapped: false where it is not the SDK's, or has no sampler that can
        be replaced. Never raises.
    """
    try:
        if not (isinstance(provider, TracerProvider) and _wrap_sampler(provider)):
            return False
        _counting.add(provider)
    except Exception:  # noqa: BLE001 - a vendor's provider may compute its sampler, or refuse to change it
        return False
    return True


_COMPLETE: Final = (
    *("AlwaysOn", "ParentBased{root:AlwaysOn", "RecordUnsampledSampler"),
    *("TraceIdRatioBased{1.0}", "ParentBased{root:TraceIdRatioBased{1.0}"),
)
"""How the descriptions of samplers begin that leave out nothing of their own."""
_counting: Final[weakref.WeakSet[TracerProvider]] = weakref.WeakSet()


def counts_unsampled() -> bool:
    """Whether a provider of this process records what its sampler drops."""
    return bool(_counting)


def leaves_out(provider: Any) -> str:
    """Return what a provider's sampler calls itself, where it may leave out calls; else an empty text."""
    try:
        described = str(provider.sampler.get_description())
    except Exception:  # noqa: BLE001 - no provider of the SDK, or a sampler of somebody's own
        return ""
    return "" if described.startswith(_COMPLETE) else described


def _wrap_sampler(provider: TracerProvider) -> bool:
    sampler = provider.sampler
    if not hasattr(sampler, "should_sample"):
        return False
    recording = sampler if isinstance(sampler, RecordUnsampledSampler) else RecordUnsampledSampler(sampler)
    provider.sampler = recording
    for tracer in _existing_tracers(provider):
        if tracer.sampler is recording.wrapped:
            tracer.sampler = recording
    return provider.sampler is recording


def _existing_tracers(provider: TracerProvider) -> Iterable[Any]:
    # The SDK has no public list. This one is also its cache: a tracer that keeps the old sampler would be
    # handed out again under its name for ever.
    tracers = getattr(provider, "_tracers", None)
    return list(tracers.values()) if isinstance(tracers, dict) else ()


def _reads_flags_only(sampler: object) -> bool:
    if type(sampler) not in _READS_FLAGS_ONLY:
        return False
    return all(_reads_flags_only(part) for part in vars(sampler).values() if isinstance(part, Sampler))


def _dropped_parent(parent: Span) -> SpanContext | None:
    """Return the context of a parent that records without being sampled, which is our doing."""
    if isinstance(parent, NonRecordingSpan):
        return None
    context = parent.get_span_context()
    return None if context is None or context.trace_flags & _SAMPLED else context


def _together(given: Attributes, returned: Attributes) -> Attributes:
    # Samplers leave the given ones out of a DROP: the SDK's do. And nobody has checked the given ones yet; a
    # dropped span takes anything.
    try:
        return {**(given or {}), **(returned or {})}
    except Exception:  # noqa: BLE001 - any object may stand in for a mapping
        return None
