"""Calls that tracing samples out are recorded for analytics, and stay out of the traces.

Tracing keeps its ten per cent; analytics wants every call. Between dropping a span and sampling it, the
specification knows a third decision (trace SDK, "Sampling"): RECORD_ONLY. The span is recorded and reaches
processors that do not ask for the sampled flag, which stays unset: neither exporters nor children nor other
services take the trace for a sampled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TracerProvider, TraceState
from opentelemetry.util.types import Attributes

_LEFT_OUT: Final = SpanKind.CLIENT
"""Calls of databases and other services: the most spans of all, and none carries analytics."""


class RecordingSampler(Sampler):
    """Records what another sampler drops, save CLIENT spans; samples what that one samples.

    Args:
        wrapped: Tracing's own sampler.
    """

    def __init__(self, wrapped: Sampler) -> None:
        self._wrapped = wrapped

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
        """Return the wrapped sampler's decision, RECORD_ONLY instead of DROP."""
        result = self._wrapped.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        if result.decision is not Decision.DROP or kind is _LEFT_OUT:
            return result
        # Who drops a span has no use for its attributes, and gives none.
        kept = {**(attributes or {}), **result.attributes} if result.attributes else attributes
        return SamplingResult(Decision.RECORD_ONLY, kept, result.trace_state)

    def get_description(self) -> str:
        """Name the wrapped sampler too."""
        return f"RecordingSampler({self._wrapped.get_description()})"


def count_unsampled(provider: TracerProvider) -> bool:
    """Have a tracer provider record the calls that its sampler drops; `AnalyticsSpanProcessor` counts them.

    Traces keep exactly the sample they had. Tracers that were got from the provider before keep their
    sampler, so call this where the provider is made.

    Args:
        provider: A tracer provider, the SDK's.

    Returns:
        Whether it now records them; another provider than the SDK's is left as it is.
    """
    sampler = getattr(provider, "sampler", None)
    if not isinstance(provider, SdkTracerProvider) or not isinstance(sampler, Sampler):
        return False
    if not isinstance(sampler, RecordingSampler):
        provider.sampler = RecordingSampler(sampler)
    return True
