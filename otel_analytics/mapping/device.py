"""Who asks, by the user agent: kind of device, bot, health check.

A classifier of families, not of models: enough to split a report, small enough to read. A backend's callers
are ``desktop`` unless the option says otherwise, as in the contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

DESKTOP: Final = "desktop"
AUTO: Final = "auto"

# First match wins, so the specific stands before the general: a television runs Android too.
_DEVICES: Final = (
    ("tv", r"smart-?tv|hbbtv|(?:apple|google|android) ?tv|tizen.*tv|web0s|webos.*tv|netcast|roku|crkey"),
    ("tv", r"aft[a-z]{1,2}\b|bravia|viera|philipstv|playstation|xbox|nintendo"),
    ("watch", r"watchos|apple watch|wear ?os|\bsm-r\d{3}"),
    ("tablet", r"ipad|tablet|kindle|silk/|playbook|\bsm-[tx]\d{3}|android(?!.*mobile)"),
    ("mobile", r"iphone|ipod|android|windows phone|mobile|blackberry|bb10|opera mini|opera mobi|kaios"),
)
_BOT = re.compile(
    r"bot\b|bot[/;_-]|crawl|spider|slurp|archiver|facebookexternalhit|mediapartners|bingpreview|"
    r"headless|lighthouse|pagespeed|gptbot|chatgpt-user|claude-web|perplexity|preview\b|scrapy|"
    r"feedfetcher|monitoring|pingdom|uptime|statuscake|site24x7|datadog.*synthetics|newrelicpinger",
    re.IGNORECASE,
)
_HEALTH_CHECK = re.compile(
    r"kube-probe|elb-healthchecker|googlehc|consul health check|health-?check|traffic manager",
    re.IGNORECASE,
)

# Browsers, and the HTTP clients of iOS and Android; those of services name a library.
_PERSONAL = re.compile(r"^(?:Mozilla|Opera)/|CFNetwork/|Dalvik/")


class Agent(NamedTuple):
    """What a user agent says of itself; `personal`: it is the browser or the app of a person."""

    device: str
    bot: bool
    health_check: bool
    personal: bool


def device_reader(device_type: str) -> Callable[[str], Agent]:
    """Return the cached function from a user agent's text to an `Agent`.

    Args:
        device_type: The option: a fixed word, or ``"auto"`` to read it from the user agent.
    """

    @lru_cache(maxsize=1024)
    def read(text: str) -> Agent:
        health_check = bool(_HEALTH_CHECK.search(text))
        bot = health_check or bool(_BOT.search(text))
        device = _device(text, bot=bot) if device_type == AUTO else device_type
        return Agent(device, bot, health_check, bool(_PERSONAL.search(text)))

    return read


def _device(text: str, *, bot: bool) -> str:
    if bot:
        return "bot"
    for name, pattern in _COMPILED:
        if pattern.search(text):
            return name
    return DESKTOP


_COMPILED: Final = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _DEVICES)
