"""No text that is sent keeps credentials, a query string or a captured header, wherever it stood."""

from __future__ import annotations

from typing import Any

import pytest
from span_making import engagement_of, make_event, make_span, mapper, view_of

from otel_analytics.events import encode
from otel_analytics.mapping.privacy import bare_text

CALL = {"http.method": "GET", "http.route": "/x"}
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("https://u:pa55@h.example/doc/7?token=s3cr3t", "https://h.example/doc/7"),
        ("https://h/x#access_token=s3cr3t", "https://h/x"),
        ("//u:pa55@h/x", "//h/x"),
        ("redis://:pa55@h:6379/0", "redis://h:6379/0"),
        ("postgres://u:pa/55@db/x", "postgres://db/x"),
        ("https://u:p?a55@h/x", "https://h/x"),
        ("u:pa55@h.example:80/x", "h.example:80/x"),
        ("back to https://h/a?token=s3cr3t and on", "back to https://h/a and on"),
        ('{"url":"https://u:pa55@h/x?token=s3cr3t","n":1}', '{"url":"https://h/x","n":1}'),
        ("https%3A%2F%2Fu%3Apa55%40h%2Fx%3Ftoken%3Ds3cr3t", "https://h/x"),
        ("/reset?s3cr3t", "/reset"),
        ("/reset%3Ftoken%3Ds3cr3t", "/reset"),
        ("reset?token=s3cr3t", "reset"),
        ("token=s3cr3t&page=2", ""),
        ("token=s3cr3t", "token=[redacted]"),
        ("/x;jsessionid=s3cr3t", "/x;jsessionid=[redacted]"),
        ('{"password": "pa55", "n": 1}', '{"password": "[redacted]", "n": 1}'),
        ("{'access_token': 's3cr3t'}", "{'access_token': '[redacted]'}"),
        ("Bearer abcdef0123456789", "Bearer [redacted]"),
        ("Basic dXNlcjpwYTU1", "Basic [redacted]"),
        (f"got {JWT}", "got [redacted]"),
    ],
)
def test_credentials_and_queries_are_cut(text: str, bare: str) -> None:
    assert bare_text(text) == bare


@pytest.mark.parametrize(
    "text",
    [
        "a?b",
        "Is it good? Yes = no",
        "ticket #17",
        "jane@example.com",
        "user:jane@example.com",
        "mailto:jane@example.com",
        "https://h.example/@jane/post",
        "git@github.com:org/repo",
        "dXNlcg==",
        "basic subscription",
        "12:30 at h/x",
        '{"note": "a token of love", "n": 1}',
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert bare_text(text) == text


URL = "https://u:pa55@h.example/x?token=s3cr3t"


@pytest.mark.parametrize(
    "attributes",
    [
        {"return_url": URL},
        {"referrer": "/login?next=/a&token=s3cr3t"},
        {"deep": {"er": [{"url": URL}, (URL.encode(),)]}},
        {"target.id": URL},
        {"order.id": URL},
        {"target.type": URL},
        {"user.id": URL},
        {"session.id": URL},
        {"http.request.header.authorization": ("Bearer s3cr3t",)},
        {"http.request.header.x_token": "s3cr3t"},
        {"http.response.header.set-cookie": "s3cr3t"},
        {"rpc.grpc.request.metadata.x-token": "s3cr3t"},
        {"headers": {"X-Any": "s3cr3t"}},
        {"request": {"Authorization": "s3cr3t", "password": "pa55"}},
        {"app.api_key": "s3cr3t"},
        {"url.query": "s3cr3t", "url.full": URL},
        {"analytics.metric_type": URL},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_no_field_of_an_engagement_keeps_them(attributes: dict[str, Any]) -> None:
    event = make_event("payment_processed")
    event._attributes = {"amount": 3, **attributes}  # log records hold what span events cannot
    engagement = engagement_of(event)
    body = encode(engagement).body
    assert b"s3cr3t" not in body
    assert b"pa55" not in body
    assert engagement.metadata["amount"] == 3


@pytest.mark.parametrize(
    "key", ["analytics.content_id", "analytics.content_type", "user_agent.original", "user.id", "session.id"]
)
def test_no_field_of_a_view_keeps_them(key: str) -> None:
    body = encode(view_of({**CALL, key: URL})).body
    assert b"s3cr3t" not in body
    assert b"pa55" not in body


def test_ids_that_must_not_be_told_stay_apart() -> None:
    users = [view_of({**CALL, "user.id": f"https://idp.example/?u={number}"}).user_id for number in (1, 2, 1)]
    assert users[0] == users[2] != users[1]
    assert str(users[0]).startswith("hidden-")


@pytest.mark.parametrize("name", ["payment ?token=s3cr3t", "run https://u:pa55@h/?token=s3cr3t"])
def test_no_name_keeps_them(name: str) -> None:
    own = make_event(name, {"analytics.metric_type": "m"})
    for engagement in (engagement_of(make_event("message_sent"), name=name), engagement_of(own, name=name)):
        assert b"s3cr3t" not in encode(engagement).body


@pytest.mark.parametrize(
    "text", ["a" * 200_000 + "@", "@" + "a:" * 100_000, "eyJ" * 60_000, "//" * 100_000, "?a" * 100_000]
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    bare_text(text)


PLACEHOLDERS = [
    *("None", "null", "undefined", "[object Object]", "AnonymousUser", "nan", "NaN", " ", "\t", "anonymous"),
    *("[Filtered]", "****", "REDACTED", "<redacted>", "[REDACTED_EMAIL]", "[Scrubbed due to 'session']"),
    *("<bound method User.get_id of <User 7>>", "<app.User object at 0x7f80b3d5a260>", "(null)", "{}"),
    "00000000-0000-0000-0000-000000000000",
]


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_nobody_and_the_next_key_is_tried(placeholder: str) -> None:
    who = {"user.id": placeholder, "session.id": placeholder}
    view = view_of({**CALL, **who})
    assert view.user_id is None
    assert view.session_id.startswith("backend-")
    view = view_of({**CALL, **who, "enduser.id": "u-1", "mcp.session.id": "s-1"})
    assert (view.user_id, view.session_id) == ("u-1", "s-1")
    engagement = engagement_of(make_event("payment_processed", {**who, "user_id": "u-1"}))
    assert engagement.user_id == "u-1"
    assert "sessionId" not in engagement.metadata


@pytest.mark.parametrize("user", ["Nonesuch", "nullable", "undefined-7", "u*", "0", "-1", "redfern", "nil7"])
def test_a_user_may_be_called_nearly_so(user: str) -> None:
    assert view_of({**CALL, "user.id": user}).user_id == user


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_each_placeholder_is_counted(placeholder: str) -> None:
    shared = mapper()
    shared.map(make_span({**CALL, "session.id": placeholder}))
    assert shared.take_redacted_ids() == 1
