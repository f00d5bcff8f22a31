"""The spans of a request may end in any order: the pure rules, in each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest

from otel_analytics.mapping.identity import (
    NO_REQUEST,
    Draft,
    EndedSpan,
    Link,
    Request,
    Requests,
    Said,
    Settled,
)

TRACE = 7
SERVER, HANDLER, DEEP, CHARGE, OTHER = range(1, 6)
PARENTS: Mapping[int, int] = {SERVER: 0, HANDLER: SERVER, DEEP: HANDLER, CHARGE: DEEP, OTHER: SERVER}
ORDERS = list(permutations(PARENTS))


def made(request: Request) -> Request:
    return request


def link(span: int) -> Link:
    return Link(TRACE, span, PARENTS[span])


def ended(span: int, who: Mapping[int, str]) -> EndedSpan:
    said = Said(who[span]) if span in who else None
    if span == SERVER:
        request = Request(who.get(SERVER, ""), "", "POST", "/pay", is_route=True, start=0, end=100)
        return EndedSpan(link(span), said, (Draft(link(span), made, is_view=True),), request)
    drafts = (Draft(link(span), made, nanos=50, name="payment_processed"),) if span == CHARGE else ()
    return EndedSpan(link(span), said, drafts)


def run(order: Sequence[int], who: Mapping[int, str], *, watched: bool) -> Iterator[Settled]:
    requests = Requests(5)
    if watched:
        for span in PARENTS:
            yield from requests.started(link(span), 0, is_server=span == SERVER)
    for span in order:
        yield from requests.ended(ended(span, who), 1)
    assert requests.waiting == 0, "each span has ended, and nothing is left to wait for"
    assert requests.next_due is None


def joined(order: Sequence[int], who: Mapping[int, str], *, watched: bool) -> tuple[Request, Request]:
    """Return the requests of the view and of the payment."""
    settled = {draft.is_view: request for draft, request in run(order, who, watched=watched)}
    assert len(settled) == 2
    return settled[True], settled[False]


@pytest.mark.parametrize("namer", [SERVER, HANDLER, DEEP, CHARGE, OTHER])
def test_whoever_names_the_user_and_in_whatever_order_they_end(namer: int) -> None:
    for order in ORDERS:
        view, payment = joined(order, {namer: "u-1"}, watched=True)
        assert (view.user_id, view.viewed) == ("u-1", "POST:/pay"), order
        assert (payment.user_id, payment.viewed) == ("u-1", "POST:/pay"), order


@pytest.mark.parametrize("namer", [SERVER, HANDLER, DEEP, CHARGE, OTHER])
def test_seen_at_their_end_only_all_but_late_names_are_joined(namer: int) -> None:
    for order in ORDERS:
        view, payment = joined(order, {namer: "u-1"}, watched=False)
        assert payment.viewed == view.viewed == "POST:/pay", order
        if order.index(namer) <= order.index(SERVER):
            assert view.user_id == payment.user_id == "u-1", order


def test_two_names_are_nobodys_in_any_order() -> None:
    for order in ORDERS:
        _, payment = joined(order, {OTHER: "u-1", HANDLER: "u-2"}, watched=True)
        # A name that comes first while another one is open is all that is known by then.
        assert payment.user_id in {"u-1", "u-2"}, order
        if order[-1] == SERVER:
            view, payment = joined(order, {OTHER: "u-1", HANDLER: "u-2"}, watched=True)
            assert (view.user_id, payment.user_id) == ("", "u-2"), order


def test_what_never_ends_is_let_go_with_what_is_known() -> None:
    requests = Requests(5)
    requests.started(link(SERVER), 0, is_server=True)
    requests.ended(ended(CHARGE, {CHARGE: "u-1"}), 1)
    assert requests.next_due == 6
    assert requests.due(5.9) == []
    ((_, request),) = requests.due(6)
    assert request == NO_REQUEST._replace(user_id="u-1")
    assert requests.next_due is None


def test_traces_are_forgotten() -> None:
    requests = Requests(5)
    for trace in range(1, 20_000):
        settled = requests.ended(
            EndedSpan(
                Link(trace, 1), None, (Draft(Link(trace, 1), made, is_view=True),), Request(method="GET")
            ),
            trace * 0.1,
        )
        assert len(settled) == 1
    assert len(requests._traces) + len(requests._lone) < 200  # nothing else shows it


def test_the_oldest_leave_where_too_many_wait() -> None:
    requests = Requests(1_000_000)
    settled = 0
    for trace in range(1, 20_000):
        settled += len(requests.started(Link(trace, 1), 0, is_server=True))
        draft = Draft(Link(trace, 2, 1), made, size=100, name="payment_processed")
        settled += len(requests.ended(EndedSpan(Link(trace, 2, 1), None, (draft,)), 0))
        assert requests.waiting <= 4_096
    assert settled + requests.waiting == 19_999


def test_large_events_leave_sooner() -> None:
    requests = Requests(1_000_000)
    for trace in range(1, 100):
        draft = Draft(Link(trace, 2, 1), made, size=1_000_000, name="payment_processed")
        requests.ended(EndedSpan(Link(trace, 2, 1), None, (draft,)), trace)
        assert requests.waiting <= 8


def carried(method: str, outer: str, *, post_first: bool, watched: bool) -> list[tuple[Request, bool]]:
    """Return what settles of a message's server span right below that of the request in which it came."""
    requests = Requests(5)
    above, below = Link(TRACE, 1), Link(TRACE, 2, 1)
    spans = [
        EndedSpan(
            above,
            Said("u-1"),
            (Draft(above, made, is_view=True),),
            Request("u-1", method=outer, route="/rpc", address="192.0.2.1", entry=True),
        ),
        EndedSpan(
            below,
            None,
            (Draft(below, made, is_view=True), Draft(below, made, name="payment_processed")),
            Request(session_id="s-1", method=method, route="a.B/C"),
        ),
    ]
    if watched:
        for link in (above, below):
            requests.started(link, 0, is_server=True)
    settled = [each for span in (spans if post_first else spans[::-1]) for each in requests.ended(span, 1)]
    assert requests.waiting == 0
    return [(request, draft.is_view) for draft, request in settled]


@pytest.mark.parametrize("method", ["RPC", "MCP"])
@pytest.mark.parametrize("watched", [True, False])
def test_a_message_in_a_post_is_the_one_call(method: str, watched: bool) -> None:
    settled = carried(method, "POST", post_first=False, watched=watched)
    assert sorted(is_view for _, is_view in settled) == [False, True]
    for request, _ in settled:
        assert (request.viewed, request.user_id, request.session_id) == (f"{method}:a.B/C", "u-1", "s-1")
        assert (request.address, request.entry) == ("192.0.2.1", True)


@pytest.mark.parametrize("watched", [True, False])
def test_a_message_that_ends_after_its_post_is_counted_once_too(watched: bool) -> None:
    settled = carried("MCP", "POST", post_first=True, watched=watched)
    assert [is_view for _, is_view in settled].count(True) == 1


def test_a_message_that_begins_after_the_request_above_it_came_in_another_one() -> None:
    requests = Requests(5)
    above, below = Link(TRACE, 1), Link(TRACE, 2, 1)
    first = EndedSpan(
        above, None, (Draft(above, made, is_view=True),), Request(method="POST", start=0, end=9)
    )
    later = EndedSpan(
        below, None, (Draft(below, made, is_view=True),), Request(method="MCP", start=20, end=30)
    )
    settled = [*requests.ended(first, 1), *requests.ended(later, 1)]
    assert [request.method for _, request in settled] == ["POST", "MCP"]


@pytest.mark.parametrize(
    ("method", "calls"), [("MCP", ["tools/call buy"]), ("RPC", ["tools/list", "tools/call buy"])]
)
def test_of_several_messages_in_a_post(method: str, calls: list[str]) -> None:
    """FastMCP 4.1 lists its tools while it calls one; a JSON-RPC batch is several calls."""
    requests = Requests(5)
    links = {"tools/list": Link(TRACE, 2, 1), "tools/call buy": Link(TRACE, 3, 1)}
    settled: list[Settled] = []
    for route, below in links.items():
        draft = Draft(below, made, is_view=True)
        settled += requests.ended(EndedSpan(below, None, (draft,), Request(method=method, route=route)), 1)
    post = Draft(Link(TRACE, 1), made, is_view=True)
    settled += requests.ended(EndedSpan(post.link, None, (post,), Request(method="POST", route="/mcp")), 1)
    assert [request.route for _, request in settled] == calls


def test_messages_in_a_stream_are_calls_beside_it() -> None:
    settled = carried("MCP", "GET", post_first=False, watched=True)
    assert [request.viewed for request, is_view in settled if is_view] == ["MCP:a.B/C", "GET:/rpc"]


def test_a_span_that_passes_while_its_server_span_begins_to_wait_for_it_holds_nothing_up() -> None:
    """What passes takes no lock, so it may end between the look that finds it open and the wait for it."""
    requests = Requests(5)

    class Interrupted(dict[int, list[tuple[Draft, float]]]):
        def setdefault(self, span: int, default: Any = None) -> Any:
            assert requests.passed(TRACE, span) is (span == HANDLER), "nobody waits for it yet"
            return super().setdefault(span, default)

    for span in (SERVER, HANDLER, OTHER):
        requests.started(link(span), 0, is_server=span == SERVER)
    requests._traces[TRACE].waiting = Interrupted()
    ((draft, _),) = requests.ended(ended(SERVER, {}), 1)
    assert draft.is_view
    assert requests.waiting == 0
