"""What a path without a route must not keep, and what it must: tokens, and words of real routes."""

from __future__ import annotations

import json
import string
from base64 import b32encode, b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final
from uuid import UUID

import pytest

from otel_analytics.mapping.endpoint import path_endpoint
from otel_analytics.mapping.path_ids import ID, fold_segment

DRAWN = 300
_DIGITS_AND_LOWER: Final = string.digits + string.ascii_lowercase
_BASE62: Final = string.digits + string.ascii_letters
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Draw = Callable[[Random], str]


def letters_of(alphabet: str, count: int) -> Draw:
    return lambda dice: "".join(dice.choices(alphabet, k=count))


def urlsafe(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_urlsafe(size: int) -> Draw:
    return lambda dice: urlsafe(dice.randbytes(size))


def hexadecimal(size: int) -> Draw:
    return lambda dice: dice.randbytes(size).hex()


def base36(number: int) -> str:
    return (base36(number // 36) if number >= 36 else "") + _DIGITS_AND_LOWER[number % 36]


def base62(number: int) -> str:
    return (base62(number // 62) if number >= 62 else "") + _BASE62[number % 62]


def a_second(dice: Random) -> int:
    return 1_700_000_000 + dice.randrange(10**7)


def reset_token(dice: Random) -> str:
    """Return what Django's `PasswordResetTokenGenerator` makes: seconds in base 36, half a digest."""
    return f"{base36(700_000_000 + dice.randrange(10**8))}-{dice.randbytes(16).hex()}"


def reset_path(dice: Random) -> str:
    user = urlsafe(str(dice.randrange(1, 10 ** dice.randint(1, 6))).encode())
    return f"{user}/{reset_token(dice)}"


def signed(dice: Random) -> str:
    """Return a value of `django.core.signing`."""
    value = dice.choice([str(dice.randrange(10**5)), "jane", ".eJ" + urlsafe(dice.randbytes(20))])
    return f"{value}:{base62(a_second(dice))}:{urlsafe(dice.randbytes(32))}"


def timed(dice: Random) -> str:
    """Return a value of itsdangerous' `URLSafeTimedSerializer`."""
    payload = json.dumps(dice.choice(["jane@example.org", dice.randrange(9999), {"id": dice.randrange(99)}]))
    seconds = a_second(dice).to_bytes(4, "big")
    return f"{urlsafe(payload.encode())}.{urlsafe(seconds)}.{urlsafe(dice.randbytes(20))}"


def short_jwt(dice: Random) -> str:
    payload = json.dumps({"sub": str(dice.randrange(10 ** dice.randint(1, 6)))})
    header = urlsafe(json.dumps({"alg": "HS256"}).encode())
    return f"{header}.{urlsafe(payload.encode())}.{urlsafe(dice.randbytes(9))}"


def order_number(dice: Random) -> str:
    shape = dice.choice(["ORD-%06d", "INV-2024-%04d", "PO%07d", "111-%07d", "R%09d", "order-%d", "A%d-B"])
    return shape % dice.randrange(10**3, 10**5)


def phone(dice: Random) -> str:
    shape = dice.choice(
        ["+1-555-%03d-%04d", "+49%03d%04d", "(555) %03d-%04d", "555.%03d.%04d", "+1 555 %d %d"]
    )
    return shape % (dice.randrange(100, 999), dice.randrange(1000, 9999))


def email(dice: Random) -> str:
    return dice.choice(["jane.doe", "j", "bob_x", "a.b+c"]) + dice.choice(["@example.com", "%40example.org"])


DRAWS: Final[dict[str, Draw]] = {
    "Django's password reset": reset_token,
    "django.core.signing": signed,
    "itsdangerous": timed,
    "base62 of 8": letters_of(_BASE62, 8),
    "base62 of 11": letters_of(_BASE62, 11),
    "token_urlsafe(8)": token_urlsafe(8),
    "token_urlsafe(16)": token_urlsafe(16),
    "token_urlsafe(32)": token_urlsafe(32),
    "nanoid(10)": letters_of(_BASE62 + "_-", 10),
    "nanoid(21)": letters_of(_BASE62 + "_-", 21),
    "short JWT": short_jwt,
    "ULID": lambda dice: "01" + letters_of(_CROCKFORD, 24)(dice),
    "KSUID": letters_of(_BASE62, 27),
    "ObjectId": hexadecimal(12),
    "hex of 8": hexadecimal(4),
    "hex of 32": hexadecimal(16),
    "hex of 64": hexadecimal(32),
    "UUID": lambda dice: str(UUID(int=dice.getrandbits(128), version=4)),
    "Stripe": lambda dice: dice.choice(["cus_", "pi_", "price_", "cs_test_"]) + letters_of(_BASE62, 14)(dice),
    "order number": order_number,
    "e-mail": email,
    "telephone": phone,
    "base64": lambda dice: b64encode(dice.randbytes(dice.choice([9, 12, 16]))).decode().replace("/", "_"),
    "base32": lambda dice: b32encode(dice.randbytes(10)).decode(),
    "base58 of 12": letters_of("".join(set(_BASE62) - set("0OIl")), 12),
}


def survivors(draw: Draw, before: str = "/s", drawn: int = DRAWN) -> list[str]:
    """Return the tokens of which something is left in the endpoint."""
    dice = Random(4711)  # noqa: S311 - the same tokens each time
    tokens = [draw(dice) for _ in range(drawn)]
    return [token for token in tokens if set(path_endpoint(f"{before}/{token}").split("/")[2:]) != {ID}]


@pytest.mark.parametrize("kind", DRAWS)
def test_nothing_of_a_token_is_left(kind: str) -> None:
    assert survivors(DRAWS[kind]) == []


def test_nothing_of_a_reset_link_is_left() -> None:
    assert survivors(reset_path, "/reset") == []


@pytest.mark.parametrize(("length", "most"), [(6, 0.005), (7, 0.001), (8, 0.0005)])
def test_few_short_tokens_pass_for_words(length: int, most: float) -> None:
    """Without a digit, chance alone tells `Crujke` from a word."""
    drawn = 10_000
    assert len(survivors(letters_of(_BASE62, length), drawn=drawn)) <= drawn * most


def real_segments() -> dict[str, bool]:
    """Return the segments of real routes, and whether anything of each was folded."""
    lines = Path(__file__).with_name("route_paths.txt").read_text().splitlines()
    paths = " ".join(line for line in lines if not line.startswith("#")).split()
    wrong: dict[str, bool] = {}
    for path in paths:
        for segment, folded in zip(path.split("/"), path_endpoint(path).split("/"), strict=True):
            wrong[segment] = wrong.get(segment, False) or segment != folded
    return wrong


def test_words_of_real_routes_stay() -> None:
    segments = real_segments()
    folded = {segment for segment, is_folded in segments.items() if is_folded}
    assert len(segments) > 1200
    assert len(folded) < 0.01 * len(segments), folded


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/password-reset/jane/code", "/password-reset/{id}/code"),
        ("/accounts/reset/MQ/set-password/", "/accounts/reset/{id}/set-password/"),
        ("/accounts/confirm-email/sunny-otter", "/accounts/confirm-email/{id}"),
        ("/Account/ConfirmEmail/sunny", "/Account/ConfirmEmail/{id}"),
        ("/invite/sunny-otter/accept", "/invite/{id}/accept"),
        ("/magic/sunny", "/magic/{id}"),
        ("/share/u/summer", "/share/{id}/{id}"),
        ("/unsubscribe/jane", "/unsubscribe/{id}"),
        ("/verify/email/sunny", "/verify/email/{id}"),
        ("/sharepoint/sites", "/sharepoint/sites"),
        ("/api/token/refresh/", "/api/token/refresh/"),
    ],
)
def test_what_follows_a_one_time_links_word(path: str, endpoint: str) -> None:
    assert path_endpoint(path) == endpoint


@pytest.mark.parametrize(
    ("segment", "folded"),
    [
        ("app.3f2a9c1b.js", "{id}.js"),
        ("jquery-3.6.0.min.js", "{id}.js"),
        ("archive.tar.gz", "archive.tar.gz"),
        ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io"),
        ("Products(42)", "{id}"),
        ("a,b,12", "{id}"),
        ("us-east-1", "us-east-1"),
        ("@me", "@me"),
        ("@jane", "{id}"),
        ("v1.2-beta", "v1.2-beta"),
        ("\u0661\u0662", "{id}"),
        ("x;token=dQw4w9WgXcQ;v=2", "x;token={id};v={id}"),
    ],
)
def test_pieces_of_a_segment(segment: str, folded: str) -> None:
    assert fold_segment(segment) == folded
