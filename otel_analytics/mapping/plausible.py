"""Whether letters and digits look like a word that people name routes with, or like a token drawn by lot.

Letters are judged by how likely each follows the one before. Of 1,000 tokens of letters and digits in both
cases, two or three of six characters pass for a word, and fewer than one of seven; of the segments of real
routes less than one in a hundred does not (`tests/test_mapping_leaks.py`).
"""

from __future__ import annotations

import re
from typing import Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = (
    # abcdefghijklmnopqrstuvwxyz and the end of a word
    "545544444344544514543430120"  # first
    "334402324235461305553310224"  # a
    "640070006105015005325000301"  # b
    "603060066243016004254000232"  # c
    "500270106002135004314110335"  # d
    "324532323235460206542312124"  # e
    "600165106004006005245000202"  # f
    "500170345004035005335000305"  # g
    "601160006003236004254110304"  # h
    "425452411234465204551300123"  # i
    "600471005042236100315110013"  # j
    "601160016034036003445100304"  # k
    "611361216025225100344100404"  # l
    "640070006001425500314000204"  # m
    "504552515021034000563100314"  # n
    "234422313135563406544330224"  # o
    "600060035005006406344000102"  # p
    "100000001000000000007000000"  # q
    "623361315022335103444210324"  # r
    "504050035033214400464010235"  # s
    "601060036012115005444010314"  # t
    "434452324235462306552211133"  # u
    "600170006002026003103000311"  # v
    "602260046012045003402000413"  # w
    "505050036000003600063001204"  # x
    "524350114123334203433120116"  # y
    "612370106122245201134030523"  # z
)
"""A row a letter, the start of a word first: how much likelier than by lot each letter follows, log2, plus 4.

Counted over the most frequent words of English and 16 other languages with Latin letters.
"""
_SCORES: Final = {
    before + after: int(_PAIRS[27 * row + column]) - 4
    for row, before in enumerate("^" + _ALPHABET)
    for column, after in enumerate(_ALPHABET + "$")
}

_AS_LONG_AS_ANY: Final = 5
"""Letters of one case up to here are always a word: `rpc`, `jwks`, `https`."""
_LOWEST_SCORES: Final = {6: -4, 7: -4, 8: -6}
"""Letters of a lower-case word: its least score. The longer, the less often chance gets there."""
_LOWEST_SCORE: Final = -9
"""The least score of still longer words."""
_CAPITALS: Final = 1
"""The least score of a word in capitals, or with one: as good a spelling for chance, and rarer in routes."""
_NUMBERED: Final = 3
"""The least score of a word before a digit."""
_CAMEL: Final = 1
"""The least score of words in camel case, where each one more costs."""
_HUMP: Final = -2
_BY_HEART: Final = 3
_LONE_LETTER: Final = -6
_UNKNOWN_ACRONYM: Final = -6

_NAMES: Final = frozenset(
    """
    javascript xmlrpc jsonrpc graphql graphiql webhook webhooks tcpdump dynamodb rabbitmq phpmyadmin mlflow
    keycloak github gitlab youtube paypal linkedin whatsapp devops ebay ical odata odatav4 iphone ipad ios
    macos postgresql mongodb mysql sqlite kubectl quickbooks rhythm oauth faqs wifi ffmpeg signup websocket
    websockets webauthn jquery typescript objednavky uzytkownicy szukaj koszyk giftwrap twelfths
    xmlhttprequest oauth2callback 3rdparty x86 x64 x509 ec2 md5 m3u8 log4j neo4j h264 h265 o365 office365
    base64url woff2 jsi18n y2k
    """.split()  # noqa: SIM905 - a table
)
"""What the pairs of letters would not believe."""
_HUMPS_BY_HEART: Final = frozenset(
    """
    add all api apis app build by clear csv css crm dns do download erp export faq faqs for get gps has html
    http https id ids in ip is json jwt key keys ldap list mfa my new oauth of on or otp pdf pin qr rpc rss
    saml sdk set sms smtp sql ssh ssl sso tls to totp tv ui upload uri url urls usb user uuid vat vpn web
    xls xlsx xml zip
    """.split()  # noqa: SIM905 - the same
)
"""Words and acronyms of which names in camel case are made."""
_NAME_WITH_DIGITS = re.compile(
    r"v\d{1,3}(?:(?:alpha|beta|rc|pre|preview)\d{0,2})?"  # API versions
    r"|(?:sha|base|utf|ip|ipv|oauth|saml|tls|ssl|http|mp|web|md|crc|aes|rsa|int|uint|float|win|linux|amd|arm|"
    r"pkcs|html|css|python|php|mysql|gpt|route|fido|covid|top)\d{1,3}[a-z]?"
    r"|(?:iso|rfc)\d{1,5}"
    r"|\d{1,3}(?:days|hours|minutes|months|weeks|years)"
)
_SHORT_WITH_DIGITS = re.compile(
    r"[a-z]{1,4}\d"  # s3, vue3, step1
    r"|[a-z]\d{1,2}[a-z]{1,2}"  # i18n, k8s, b2b
    r"|\d{1,2}[a-z]{1,2}"  # 2fa, 3d, 24h
)
_WORD_AND_DIGIT = re.compile(r"([A-Z]?[a-z]{2,})\d")
_HUMPS = re.compile(r"OAuth|[A-Z]+(?:s(?![a-z]))?(?![a-z])|[A-Z]?[a-z]+")


def is_word(text: str) -> bool:
    """Whether ASCII letters and digits look like a word."""
    if text.isalpha():
        return _is_letters(text)
    if text.isdecimal():
        return False
    lower = text.lower()
    if _SHORT_WITH_DIGITS.fullmatch(text) or lower in _NAMES or _NAME_WITH_DIGITS.fullmatch(lower):
        return True
    found = _WORD_AND_DIGIT.fullmatch(text)
    return found is not None and _score(found[1]) >= _NUMBERED


def words_of(text: str) -> list[str]:
    """Return the words of a text in camel case, hyphens or underscores, in lower case."""
    return [hump.lower() for hump in _HUMPS.findall(text)]


def _is_letters(text: str) -> bool:
    lower = text.lower()
    is_one_word = text.isupper() or text[1:].islower() or len(text) == 1
    if lower in _NAMES or (is_one_word and len(text) <= _AS_LONG_AS_ANY):
        return True
    if text == lower:
        return _score(text) >= _LOWEST_SCORES.get(len(text), _LOWEST_SCORE)
    if is_one_word:
        return _score(text) >= _CAPITALS
    return is_camel_case(text)


def is_camel_case(text: str) -> bool:
    """Whether the words of a name are plausible together where its spelling changes between them."""
    humps = _HUMPS.findall(text)
    return sum(map(_hump_score, humps)) + _HUMP * (len(humps) - 1) >= _CAMEL


def _hump_score(hump: str) -> int:
    lower = hump.lower()
    if lower in _HUMPS_BY_HEART or lower in _NAMES:
        return _BY_HEART
    if len(hump) == 1:
        return _LONE_LETTER
    return _UNKNOWN_ACRONYM if hump[:2].isupper() else _score(hump)


def _score(letters: str) -> int:
    spelt = f"^{letters.lower()}$"
    return sum(_SCORES[spelt[at : at + 2]] for at in range(len(spelt) - 1))
