"""What tracing samples out is recorded, and tracing's own sample stays as it was.

The same traffic, with the same ids, goes through one provider with the bare sampler and one with ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from span_making import mapper

from otel_analytics import AnalyticsClient, AnalyticsSpanExporter, identify, process
from otel_analytics.events import ViewEvent
from otel_analytics.sdk.intake import SpanIntake
from otel_analytics.sdk.sampler import RecordUnsampledSampler, count_unsampled, leaves_out
from otel_analytics.testing import FaultyCollector

KINDS = list(SpanKind)
TRACES = 150
ATTRIBUTES: list[Any] = [None, {}, {"n": 1}, {"n": 2, "text": "a"}]
Decide = Callable[..., SamplingResult]


class SeededIds(IdGenerator):
    """The same ids in each run."""

    def __init__(self) -> None:
        self._random = Random(20)  # noqa: S311 - the same each time is the point

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128) or 1


class EverySpan(SpanProcessor):
    """Keeps each span that ends, sampled or not."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        return True  # the base class says nothing in older SDKs, which reads as a failure


class Rule(Sampler):
    """A sampler of the user's own."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        *trace_state: Any,
    ) -> SamplingResult:
        return self._decide(parent_context, trace_id, name, kind, attributes, links, *trace_state)

    def get_description(self) -> str:
        return "Rule"


class OfSixParameters(Sampler):
    """The SDK's tracer passes no trace state; samplers rely on that."""

    def should_sample(  # type: ignore[override]
        self,
        parent_context: Any,  # noqa: ARG002
        trace_id: int,
        name: str,  # noqa: ARG002
        kind: Any = None,  # noqa: ARG002
        attributes: Any = None,
        links: Any = None,  # noqa: ARG002
    ) -> SamplingResult:
        return SamplingResult(_one_in(3, trace_id), attributes)

    def get_description(self) -> str:
        return "OfSixParameters"


def _one_in(number: int, trace_id: int) -> Decision:
    return Decision.DROP if trace_id % number else Decision.RECORD_AND_SAMPLE


def _by_kind_name_and_attributes(
    _: Any, trace_id: int, name: str, kind: Any, attributes: Any, links: Any
) -> Any:
    if links or name.endswith("2"):
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
    if attributes and attributes.get("n") == 1:
        return SamplingResult(Decision.RECORD_ONLY, attributes)
    if kind is SpanKind.PRODUCER:
        return SamplingResult(_one_in(2, trace_id), {"rule": "producer"})
    return SamplingResult(Decision.DROP)


def _consistent(parent_context: Any, trace_id: int, *_: Any) -> SamplingResult:
    """Keep the threshold of a quarter in the trace state, as consistent probability sampling does."""
    parent = get_current_span(parent_context).get_span_context()
    if parent.is_valid and "ot" in parent.trace_state:
        threshold = int(parent.trace_state["ot"].removeprefix("th:"), 16)
        kept = (trace_id & 0xFF) >= threshold
        return SamplingResult(
            Decision.RECORD_AND_SAMPLE if kept else Decision.DROP, trace_state=parent.trace_state
        )
    kept = (trace_id & 0xFF) >= 0xC0
    decision = Decision.RECORD_AND_SAMPLE if kept else Decision.DROP
    return SamplingResult(decision, trace_state=parent.trace_state.add("ot", "th:c0"))


def _by_what_the_parent_records(parent_context: Any, trace_id: int, *rest: Any) -> SamplingResult:
    """Decide as Azure Monitor's samplers do: a recording parent is taken for a sampled one."""
    attributes = rest[2]
    if parent_context is not None:
        parent = get_current_span(parent_context)
        span_context = parent.get_span_context()
        if span_context.is_valid and not span_context.is_remote:
            rate = getattr(parent, "attributes", {}).get("rate")
            if not parent.is_recording():
                return SamplingResult(Decision.DROP, {**(attributes or {}), "rate": 0.0})
            if rate is not None:
                return SamplingResult(Decision.RECORD_AND_SAMPLE, {**(attributes or {}), "rate": rate})
    return SamplingResult(_one_in(4, trace_id), {**(attributes or {}), "rate": 25.0})


def _by_the_current_span(parent_context: Any, trace_id: int, *rest: Any) -> SamplingResult:
    """Look at the current span, whether or not a context is given."""
    current = get_current_span(parent_context)
    if current.is_recording() or not current.get_span_context().is_valid:
        return SamplingResult(_one_in(4, trace_id), rest[2])
    return SamplingResult(Decision.DROP)


def _samplers() -> Iterator[Any]:
    for rate in (0.0, 0.1, 0.5, 1.0):
        yield pytest.param(TraceIdRatioBased(rate), id=f"ratio {rate}")
        yield pytest.param(ParentBased(TraceIdRatioBased(rate)), id=f"parent, ratio {rate}")
    yield pytest.param(ALWAYS_ON, id="always on")
    yield pytest.param(ALWAYS_OFF, id="always off")
    yield pytest.param(
        ParentBased(
            TraceIdRatioBased(0.3),
            remote_parent_not_sampled=TraceIdRatioBased(0.5),
            local_parent_sampled=TraceIdRatioBased(0.2),
            local_parent_not_sampled=TraceIdRatioBased(0.6),
        ),
        id="parent, each case its own",
    )
    yield pytest.param(Rule(_by_kind_name_and_attributes), id="rules, and one records only")
    yield pytest.param(Rule(_consistent), id="consistent probability")
    yield pytest.param(Rule(_by_what_the_parent_records), id="parent's recording")
    yield pytest.param(
        ParentBased(
            ALWAYS_OFF,
            remote_parent_not_sampled=TraceIdRatioBased(0.4),
            local_parent_not_sampled=Rule(_by_what_the_parent_records),
        ),
        id="parent's recording, inside a sampler of the SDK's",
    )
    yield pytest.param(Rule(_by_the_current_span), id="current span's recording")
    yield pytest.param(OfSixParameters(), id="no parameter for a trace state, none returned")
    if hasattr(sampling, "AlwaysRecordSampler"):  # recent SDKs
        inner = Rule(_by_what_the_parent_records)
        yield pytest.param(sampling.AlwaysRecordSampler(inner), id="records all by itself")
    yield from _sdk_consistent_samplers()


def _sdk_consistent_samplers() -> Iterator[Any]:
    try:
        from opentelemetry.sdk.trace import _sampling_experimental as experimental  # noqa: PLC0415 - recent SDKs
    except ImportError:
        return
    ratio = experimental.composable_traceid_ratio_based(0.3)
    composed = experimental.composite_sampler(experimental.composable_parent_threshold(ratio))
    yield pytest.param(composed, id="the SDK's consistent probability")


@dataclass
class Outcome:
    """What one provider made of the traffic."""

    contexts: list[SpanContext]
    kinds: list[SpanKind]
    exported: list[ReadableSpan]
    recorded: list[ReadableSpan]


def _run(sampler: Sampler) -> Outcome:
    with _provider(sampler) as (provider, everything, exporters):
        traffic = Traffic(provider)
        for _ in range(TRACES):
            traffic.request()
        assert provider.force_flush(10_000)
        batched, simple = (exporter.get_finished_spans() for exporter in exporters)
        assert [_seen(span) for span in batched] == [_seen(span) for span in simple]
        return Outcome(traffic.contexts, traffic.kinds, list(batched), everything.spans)


@contextmanager
def _provider(sampler: Sampler) -> Iterator[tuple[TracerProvider, EverySpan, list[InMemorySpanExporter]]]:
    provider = TracerProvider(sampler, id_generator=SeededIds(), shutdown_on_exit=False)
    everything, exporters = EverySpan(), [InMemorySpanExporter(), InMemorySpanExporter()]
    provider.add_span_processor(everything)
    provider.add_span_processor(BatchSpanProcessor(exporters[0], max_queue_size=10_000))
    provider.add_span_processor(SimpleSpanProcessor(exporters[1]))
    try:
        yield provider, everything, exporters
    finally:
        provider.shutdown()


class Traffic:
    """Requests of every kind, drawn the same way each time, whatever becomes of their spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("traffic")
        self._random = Random(7)  # noqa: S311 - the same
        self.contexts: list[SpanContext] = []
        self.kinds: list[SpanKind] = []

    def request(self) -> None:
        self._span(self._incoming(), depth=0)

    def _incoming(self) -> Context | None:
        caller = self._random.choice((None, None, TraceFlags.DEFAULT, TraceFlags.SAMPLED))
        if caller is None:
            return self._random.choice((None, Context()))
        trace_id, span_id = self._random.getrandbits(128) or 1, self._random.getrandbits(64) or 1
        state = self._random.choice(
            (TraceState(), TraceState([("vendor", "1")]), TraceState([("ot", "th:80")]))
        )
        return set_span_in_context(
            NonRecordingSpan(SpanContext(trace_id, span_id, True, TraceFlags(caller), state))  # noqa: FBT003
        )

    def _span(self, context: Context | None, depth: int) -> None:
        kind = self._random.choice(KINDS)
        span = self._tracer.start_span(
            f"span {self._random.randrange(5)}",
            context=context,
            kind=kind,
            attributes=self._random.choice(ATTRIBUTES),
            links=self._random.choice(((), (), (), [Link(span) for span in self.contexts[-2:]])),
        )
        self.contexts.append(span.get_span_context())
        self.kinds.append(kind)
        children = self._random.randrange(4 - depth)
        ways = [self._random.choice(("current", "explicit", "after the end")) for _ in range(children)]
        with trace.use_span(span, end_on_exit=True):
            span.set_attribute("later", depth)
            for way in ways:
                if way != "after the end":
                    self._span(None if way == "current" else get_current(), depth + 1)
        for _ in range(ways.count("after the end")):
            self._span(set_span_in_context(span), depth + 1)


def _seen(span: ReadableSpan) -> tuple[Any, ...]:
    """Return all of an exported span but its times."""
    assert span.context is not None
    links = tuple(link.context.span_id for link in span.links)
    return (_identity(span.context), span.name, span.kind, dict(span.attributes or {}), links, span.parent)


def _identity(context: SpanContext) -> tuple[Any, ...]:
    return context.trace_id, context.span_id, context.trace_flags, context.trace_state.to_header()


@pytest.mark.parametrize("sampler", list(_samplers()))
def test_tracing_keeps_its_sample_and_every_span_but_calls_of_others_is_recorded(sampler: Sampler) -> None:
    without, wrapped = _run(sampler), _run(RecordUnsampledSampler(sampler))

    assert [_seen(span) for span in wrapped.exported] == [_seen(span) for span in without.exported]
    assert [_identity(context) for context in wrapped.contexts] == [
        _identity(context) for context in without.contexts
    ]
    recorded_anyway = {span.context.span_id for span in without.recorded if span.context}
    expected = {
        context.span_id
        for context, kind in zip(wrapped.contexts, wrapped.kinds, strict=True)
        if kind is not SpanKind.CLIENT or context.span_id in recorded_anyway
    }
    assert {span.context.span_id for span in wrapped.recorded if span.context} == expected


def test_the_traffic_has_sampled_and_dropped_spans_of_every_kind() -> None:
    """Else the comparison above would compare nothing."""
    outcome = _run(TraceIdRatioBased(0.5))
    fates = {
        (kind, bool(context.trace_flags & TraceFlags.SAMPLED))
        for context, kind in zip(outcome.contexts, outcome.kinds, strict=True)
    }
    assert fates == {(kind, sampled) for kind in SpanKind for sampled in (True, False)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not SpanKind.CLIENT] + [None])
def test_dropped_becomes_record_only(kind: SpanKind | None) -> None:
    result = RecordUnsampledSampler(ALWAYS_OFF).should_sample(Context(), 1, "GET", kind, {"http.route": "/a"})

    assert result.decision is Decision.RECORD_ONLY
    assert result.attributes == {"http.route": "/a"}
    assert result.trace_state is None


def test_a_dropped_call_of_another_service_stays_dropped() -> None:
    result = RecordUnsampledSampler(ALWAYS_OFF).should_sample(Context(), 1, "GET", SpanKind.CLIENT, {"a": 1})

    assert result.decision is Decision.DROP


@pytest.mark.parametrize("decision", [Decision.RECORD_ONLY, Decision.RECORD_AND_SAMPLE])
@pytest.mark.parametrize("kind", KINDS)
def test_other_results_are_the_wrapped_samplers_own_objects(decision: Decision, kind: SpanKind) -> None:
    own = SamplingResult(decision, {"a": 1}, TraceState([("b", "2")]))

    result = RecordUnsampledSampler(Rule(lambda *_: own)).should_sample(None, 1, "GET", kind, {"c": 3})

    assert result is own


def test_what_a_sampler_returns_with_a_drop_is_kept() -> None:
    state = TraceState([("ot", "th:8")])
    sampler = Rule(lambda *_: SamplingResult(Decision.DROP, {"rate": 0.1, "a": "sampler"}, state))

    result = RecordUnsampledSampler(sampler).should_sample(None, 1, "GET", SpanKind.SERVER, {"a": 1, "b": 2})

    assert result.attributes == {"a": "sampler", "b": 2, "rate": 0.1}
    assert result.trace_state is state


def test_a_trace_state_reaches_the_wrapped_sampler() -> None:
    states: list[Any] = []

    def decide(*arguments: Any) -> SamplingResult:
        states.append(arguments[6:])
        return SamplingResult(Decision.DROP)

    state = TraceState([("ot", "th:8")])
    RecordUnsampledSampler(Rule(decide)).should_sample(None, 1, "GET", trace_state=state)
    RecordUnsampledSampler(Rule(decide)).should_sample(None, 1, "GET")

    assert states == [(state,), ()]


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_every_request_gives_a_view_with_all_it_was_started_with(rate: float) -> None:
    """WSGI's instrumentation gives method and path when it starts the span, and never again."""
    given: dict[str, Any] = {
        "http.request.method": "GET",
        "http.route": "/orders/{id}",
        "http.response.status_code": 200,
    }
    with _provider(RecordUnsampledSampler(ParentBased(TraceIdRatioBased(rate)))) as (provider, everything, _):
        tracer = provider.get_tracer("shop")
        for _ in range(200):
            tracer.start_span("GET", kind=SpanKind.SERVER, attributes=given).end()

    events = [event for span in everything.spans for event in mapper().map(span).events]

    assert all(isinstance(event, ViewEvent) for event in events)
    assert [event.content_id for event in events if isinstance(event, ViewEvent)] == [
        "GET:/orders/{id}"
    ] * 200


def test_what_the_wrapped_sampler_raises_is_raised_and_the_current_span_stays() -> None:
    def decide(_: Any, __: int, name: str, *___: Any) -> SamplingResult:
        if name == "bad":
            raise ZeroDivisionError(name)
        return SamplingResult(Decision.DROP)

    with _provider(RecordUnsampledSampler(Rule(decide))) as (provider, everything, _):
        tracer = provider.get_tracer("shop")
        with tracer.start_as_current_span("good") as span:
            for context in (None, get_current()):
                with pytest.raises(ZeroDivisionError):
                    tracer.start_span("bad", context=context)
            assert get_current_span() is span
    assert [span.name for span in everything.spans] == ["good"]


ODD_RESULTS: list[Any] = [None, object(), 7]
ODD_ATTRIBUTES: list[Any] = [[("a", 1)], 7, "text", MappingProxyType({"a": 1}), {"a": object()}, {1: 2}]


@pytest.mark.parametrize("odd", ODD_RESULTS)
def test_what_is_no_result_is_handed_on(odd: Any) -> None:
    sampler = RecordUnsampledSampler(Rule(lambda *_: odd))

    assert sampler.should_sample(None, 1, "GET", SpanKind.SERVER) is odd


@pytest.mark.parametrize("odd", ODD_ATTRIBUTES)
def test_attributes_that_a_dropped_span_would_take_do_not_raise(odd: Any) -> None:
    with _provider(RecordUnsampledSampler(ALWAYS_OFF)) as (provider, everything, _):
        provider.get_tracer("shop").start_span("GET", attributes=odd).end()
    assert len(everything.spans) == 1


class OddSpan(NonRecordingSpan):
    """A parent of a tracer that is not the SDK's."""

    def get_span_context(self) -> Any:
        return None


class PlainSpan(Span):
    """A span of a vendor's own, with a number for flags."""

    def __init__(self, flags: int) -> None:
        self._flags = flags

    def get_span_context(self) -> SpanContext:
        return SpanContext(5, 6, is_remote=False, trace_flags=self._flags)  # type: ignore[arg-type]

    def is_recording(self) -> bool:
        return True

    def _nothing(self, *_: Any, **__: Any) -> None:
        """Ignore what is set."""

    end = set_attributes = set_attribute = add_event = update_name = set_status = record_exception = _nothing


@pytest.mark.parametrize(("flags", "is_shown"), [(0, False), (1, True), (2, False), (3, True)])
def test_a_parent_that_records_unsampled_is_shown_as_dropped(flags: int, is_shown: bool) -> None:
    seen: list[bool] = []

    def decide(parent_context: Any, *_: Any) -> SamplingResult:
        seen.append(get_current_span(parent_context).is_recording())
        return SamplingResult(Decision.DROP)

    sampler = RecordUnsampledSampler(Rule(decide))
    sampler.should_sample(Context(), 1, "the first that is dropped")
    sampler.should_sample(set_span_in_context(PlainSpan(flags)), 1, "child")
    sampler.should_sample(set_span_in_context(OddSpan(SpanContext(5, 6, is_remote=False))), 1, "child")

    assert seen == [False, is_shown, False]


def test_what_else_a_context_holds_reaches_the_sampler() -> None:
    seen: list[Any] = []

    def decide(parent_context: Any, *_: Any) -> SamplingResult:
        seen.append(parent_context and parent_context.get("tenant"))
        return SamplingResult(Decision.DROP)

    with _provider(RecordUnsampledSampler(Rule(decide))) as (provider, _, __):
        tracer = provider.get_tracer("shop")
        root = tracer.start_span("root")
        tracer.start_span("child", context=set_span_in_context(root, Context({"tenant": "a"})))
        with trace.use_span(root):
            tracer.start_span("child")
    assert seen == [None, "a", None]


def test_the_description_names_the_wrapped_sampler() -> None:
    sampler = RecordUnsampledSampler(TraceIdRatioBased(0.25))

    assert sampler.get_description() == "RecordUnsampledSampler{TraceIdRatioBased{0.25}}"


def test_wrapping_twice_is_wrapping_once() -> None:
    twice = RecordUnsampledSampler(RecordUnsampledSampler(ALWAYS_OFF))

    assert twice.wrapped is ALWAYS_OFF
    assert twice.get_description() == "RecordUnsampledSampler{AlwaysOffSampler}"


def test_a_provider_counts_what_it_samples_out() -> None:
    with _provider(ParentBased(TraceIdRatioBased(0.1))) as (provider, everything, exporters):
        assert count_unsampled(provider)
        wrapped = provider.sampler
        assert count_unsampled(provider)
        assert provider.sampler is wrapped
        tracer = provider.get_tracer("shop")
        for _ in range(500):
            tracer.start_span("GET", kind=SpanKind.SERVER).end()
        assert provider.force_flush(10_000)
        assert 20 < len(exporters[0].get_finished_spans()) < 100
        assert len(everything.spans) == 500


def test_tracers_made_before_count_where_the_sdk_lists_them() -> None:
    with _provider(ALWAYS_OFF) as (provider, everything, _):
        early = provider.get_tracer("early")
        assert count_unsampled(provider)
        early.start_span("early").end()
        assert len(everything.spans) == hasattr(provider, "_tracers")
        provider.get_tracer("early").start_span("the same name again").end()
        assert everything.spans[-1].name == "the same name again"


def test_a_tracer_with_a_sampler_of_its_own_keeps_it() -> None:
    with _provider(ALWAYS_OFF) as (provider, everything, _):
        tracer: Any = provider.get_tracer("health checks")
        tracer.sampler = own = TraceIdRatioBased(0.0)
        assert count_unsampled(provider)
        tracer.start_span("GET").end()
        assert tracer.sampler is own
    assert everything.spans == []


def test_other_providers_are_left_alone() -> None:
    shared = ParentBased(ALWAYS_OFF)
    with _provider(shared) as (one, _, __), _provider(shared) as (other, everything, ___):
        tracer = other.get_tracer("shop")
        assert count_unsampled(one)
        tracer.start_span("GET").end()
        other.get_tracer("later").start_span("GET").end()
    assert other.sampler is shared
    assert everything.spans == []


class WithoutSampler(TracerProvider):
    """A vendor's provider that never calls the SDK's constructor."""

    def __init__(self) -> None:
        pass


class FixedSampler(TracerProvider):
    """A vendor's provider whose sampler cannot be replaced."""

    def __init__(self) -> None:
        pass

    @property
    def sampler(self) -> Sampler:  # type: ignore[override]
        return ALWAYS_OFF


class BrokenSampler(WithoutSampler):
    """A vendor's provider that cannot tell its sampler."""

    @property
    def sampler(self) -> Sampler:  # type: ignore[override]
        raise RuntimeError("not configured")


class DeafSampler(WithoutSampler):
    """A vendor's provider that takes another sampler and keeps its own."""

    def __setattr__(self, name: str, value: object) -> None:
        """Ignore it."""

    def __getattr__(self, name: str) -> object:
        if name == "sampler":
            return ALWAYS_OFF
        raise AttributeError(name)


NOT_OURS_TO_WRAP: list[Callable[[], object]] = [
    ProxyTracerProvider,
    NoOpTracerProvider,
    WithoutSampler,
    FixedSampler,
    BrokenSampler,
    DeafSampler,
    object,
    lambda: None,
]


@pytest.mark.parametrize("make", NOT_OURS_TO_WRAP)
def test_providers_without_a_sampler_to_replace_return_false(make: Callable[[], object]) -> None:
    assert not count_unsampled(make())


def test_a_provider_whose_sampler_is_no_sampler_returns_false() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.sampler = None  # type: ignore[assignment]

    assert not count_unsampled(provider)
    assert provider.sampler is None


@pytest.mark.parametrize(
    ("sampler", "left_out"),
    [
        (ALWAYS_ON, ""),
        (DEFAULT_ON, ""),
        (ParentBasedTraceIdRatio(1.0), ""),
        (RecordUnsampledSampler(ALWAYS_OFF), ""),
        (TraceIdRatioBased(0.1), "TraceIdRatioBased{0.1}"),
        (ParentBasedTraceIdRatio(0.1), "ParentBased{root:TraceIdRatioBased{0.1}"),
        (object(), ""),
    ],
)
def test_a_sampler_that_leaves_out_calls_is_known_by_its_description(sampler: Any, left_out: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.sampler = sampler
    assert leaves_out(provider).startswith(left_out)
    assert bool(leaves_out(provider)) == bool(left_out)
    assert leaves_out(ProxyTracerProvider()) == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_calls_that_only_sampling_takes_away_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    for left_over in process.residents(SpanIntake):  # `identify` asks all there are
        left_over.client.shutdown(0)
    with FaultyCollector() as collector:
        client = AnalyticsClient(collector.url, app_name="shop", count_unsampled=wanted)
        exporter = AnalyticsSpanExporter(client=client)
        provider = TracerProvider(sampler=TraceIdRatioBased(0.5), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr("otel_analytics.sdk.intake.get_tracer_provider", lambda: provider)
        for number in range(20):
            with provider.get_tracer("shop").start_as_current_span(
                "GET", kind=SpanKind.SERVER, attributes={"http.request.method": "GET", "http.route": "/"}
            ):
                identify(f"u-{number}")
        stats = client.stats()
        client.shutdown()
    assert stats.noted.get("sampled_out", 0) == (20 - stats.accepted if wanted else 0)
    told = [record.getMessage() for record in caplog.records if "tracing samples out" in record.getMessage()]
    assert len(told) == wanted
