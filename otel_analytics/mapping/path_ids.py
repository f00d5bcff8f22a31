"""Which parts of a raw path are ids: all that does not look like a word.

A route template would have made them parameters. Numbers, dates, UUIDs, hashes, tokens of any alphabet,
e-mail addresses and telephone numbers go; words in any spelling, API versions (``v2``) and files' suffixes
stay. One token-like piece takes the whole segment along, as the pieces of a signed value or a JWT tell about
each other; and behind a segment such as ``reset`` or ``invite`` only words stay that are known there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from otel_analytics.mapping.plausible import is_camel_case, is_word, words_of

ID: Final = "{id}"

_LONGEST_WORD = 64

_VERSION = r"v\d+(?:[._]\d+)*(?:[.-]?(?:alpha|beta|rc)[.-]?\d*)?|\d\.\d"
_REGION = r"(?:af|ap|ca|cn|eu|il|me|mx|sa|us)-(?:gov-)?[a-z]+-\d"  # of clouds: us-east-1
_LOCALE = r"[a-z]{2,3}(?:[-_][a-z]{4})?[-_][a-z]{2}"
_NUMBERED_NAME = r"(?:utf|iso|covid|gpt|step|level|phase|stage|tier|top|sha|h)-\d{1,4}"
_ALWAYS_STAYS = re.compile(rf"{_VERSION}|{_REGION}|{_NUMBERED_NAME}|{_LOCALE}|@me|24-7|x86_64", re.IGNORECASE)

_SUFFIXES: Final = frozenset(
    """
    css js mjs map json xml yaml yml txt csv tsv xls xlsx doc docx ppt pptx pdf rtf md rss atom ics vcf zip
    gz tgz bz2 xz 7z tar jar apk dmg exe deb rpm png jpg jpeg gif svg ico webp avif bmp tif tiff woff woff2
    ttf otf eot mp3 mp4 m4a m4v m3u8 ogg oga ogv wav webm mov avi ts webmanifest wasm html htm xhtml php asp
    aspx ashx asmx axd jsp jspx cgi do action svc
    """.split()  # noqa: SIM905 - a table
)
_PIECE = re.compile(r"[^\W_]+")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_HEX = re.compile(r"[0-9a-f]{16,}|[0-9A-F]{16,}")
_PERSON = re.compile(r"@|%40")

_BEFORE_SECRETS: Final = frozenset(
    """
    reset verify confirm invite magic share token unsubscribe verification confirmation invites invitation
    invitations activate activation tokens
    """.split()  # noqa: SIM905 - a table
)
"""Words of a segment that one-time links have before their code, of Django, djoser, allauth and others."""
_BETWEEN_SECRETS: Final = _BEFORE_SECRETS.union(
    """
    a accept accepted access account accounts add admin all and api app apps auth blacklist bulk by callback
    cancel change check claim clear code codes complete completed create csrf current decline delete device
    devices do done edit email emails error expire expired facebook failed failure file files folder folders
    form forgot from google group groups history html id info introspect invalid jwt key keys link linkedin
    links list login logout mail me member members new obtain of ok once order orders org organization
    organizations otp page password passwords payment pending phone php post posts preview project projects
    public refresh register reject request requests resend resent revoke revoked rotate send sent session
    sessions set settings signup sms start status submit subscription subscriptions success successful team
    teams telegram to totp twitter update user username users v1 v2 v3 valid validate view whatsapp with
    workspace workspaces
    """.split()  # noqa: SIM905 - a table
)
"""Words that stand behind those and are no code."""


def fold_segments(segments: list[str], before: str = "") -> list[str]:
    """Return the segments of a path with what looks like an id as ``{id}``.

    Args:
        segments: Without their slashes.
        before: What stands before them.
    """
    folded = []
    secrets = any(map(_leads_to_secrets, before.split("/")))
    for segment in segments:
        kept = fold_segment(segment)
        folded.append(ID if secrets and kept != ID and not _stays_between_secrets(segment) else kept)
        secrets = secrets or _leads_to_secrets(segment)
    return folded


@lru_cache(maxsize=4096)
def fold_segment(segment: str) -> str:
    """Return one segment of a path, or ``{id}`` for it; a file's suffix stays.

    Matrix parameters (``;v=1``) are looked at one by one.
    """
    if segment.isascii() and segment.isalnum():
        return segment if _is_piece_plain(segment) and len(segment) <= _LONGEST_WORD else ID
    if ";" in segment:
        return ";".join("=".join(map(fold_segment, each.split("=", 1))) for each in segment.split(";"))
    if _is_plain(segment):
        return segment
    stem, dot, suffix = segment.rpartition(".")
    if not stem or suffix.lower() not in _SUFFIXES or len(segment) > _LONGEST_WORD:
        return ID
    return stem + dot + suffix if _is_plain(stem) else ID + dot + suffix


def _is_plain(text: str) -> bool:
    if len(text) > _LONGEST_WORD:
        return False
    if _ALWAYS_STAYS.fullmatch(text):
        return True
    if _PERSON.search(text):
        return False
    pieces = _PIECE.findall(_ENCODED.sub("-", text) if "%" in text else text)
    if not all(map(_is_piece_plain, pieces)):
        return False
    # `my-api` and `My-Api` are usual; where the spelling changes from piece to piece, chance may have.
    return len({piece[0].isupper() for piece in pieces}) < 2 or is_camel_case(text)  # noqa: PLR2004 - both


def _is_piece_plain(piece: str) -> bool:
    if not piece.isascii():
        return not any(map(str.isdigit, piece))
    return is_word(piece) and not _HEX.fullmatch(piece)


@lru_cache(maxsize=4096)
def _leads_to_secrets(segment: str) -> bool:
    return not _BEFORE_SECRETS.isdisjoint(words_of(segment))


@lru_cache(maxsize=4096)
def _stays_between_secrets(segment: str) -> bool:
    return _BETWEEN_SECRETS.issuperset(_PIECE.findall(segment.lower())) or _BETWEEN_SECRETS.issuperset(
        words_of(segment)
    )
