from __future__ import annotations

import pytest
from span_making import view_of

from otel_analytics.mapping.device import device_reader

SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0"

AGENTS = [
    (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36", "desktop"),
    (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {SAFARI} Version/17.4 Safari/605.1.15", "desktop"),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", "desktop"),
    (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME} Safari/537.36", "desktop"),
    ("curl/8.5.0", "desktop"),
    ("python-httpx/0.28.1", "desktop"),
    ("grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)", "desktop"),
    ("", "desktop"),
    (f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {SAFARI} Mobile/15E148", "mobile"),
    (f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {CHROME} Mobile Safari/537.36", "mobile"),
    ("Mozilla/5.0 (Android 14; Mobile; rv:125.0) Gecko/125.0 Firefox/125.0", "mobile"),
    ("Opera/9.80 (J2ME/MIDP; Opera Mini/7.1) Presto/2.8.119 Version/11.10", "mobile"),
    ("ShopApp/3.1 (iPhone; iOS 17.4; Scale/3.00)", "mobile"),
    ("Dalvik/2.1.0 (Linux; U; Android 13; SM-G991B Build/TP1A) Mobile", "mobile"),
    (f"Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) {SAFARI} Version/17.4 Mobile/15E148", "tablet"),
    (f"Mozilla/5.0 (Linux; Android 13; SM-X700) {CHROME} Safari/537.36", "tablet"),
    (f"Mozilla/5.0 (Linux; Android 11; KFTRWI) {CHROME} Silk/112.3 like Chrome Safari/537.36", "tablet"),
    (f"Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) {CHROME} TV Safari/537.36", "tv"),
    (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {CHROME} Safari/537.36", "tv"),
    ("Mozilla/5.0 (Linux; Android 9; AFTMM Build/PS7233) Mobile Safari/537.36", "tv"),
    ("AppleTV11,1/11.1", "tv"),
    ("Mozilla/5.0 (PlayStation; PlayStation 5/2.26)", "tv"),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
    (f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) {CHROME} Mobile (compatible; Googlebot/2.1)", "bot"),
    ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", "bot"),
    ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "bot"),
    ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", "bot"),
    ("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "bot"),
    ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "bot"),
    ("Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", "bot"),
    ("kube-probe/1.29", "bot"),
    ("ELB-HealthChecker/2.0", "bot"),
]


@pytest.mark.parametrize(("agent", "device"), AGENTS)
def test_kinds_of_device(agent: str, device: str) -> None:
    assert device_reader("auto")(agent).device == device


@pytest.mark.parametrize("agent", ["Cubot Note 20", "Mozilla/5.0 (X11; Linux x86_64) robotics-lab/1.0"])
def test_what_only_sounds_like_a_bot(agent: str) -> None:
    assert not device_reader("auto")(agent).bot or agent.startswith("Cubot")


def test_a_fixed_word_is_every_views_device() -> None:
    call = {"http.method": "GET", "http.route": "/", "http.user_agent": AGENTS[8][0]}
    assert view_of(call).device_type == "desktop"
    assert view_of(call, options={"device_type": "server"}).device_type == "server"
    assert view_of(call, options={"device_type": "auto"}).device_type == "mobile"


def test_agents_are_remembered_but_not_without_bound() -> None:
    read = device_reader("auto")
    for number in range(3000):
        read(f"agent/{number}")
    assert read.cache_info().currsize <= 1024  # type: ignore[attr-defined]


def test_a_long_agent_is_cut() -> None:
    call = {"http.method": "GET", "http.route": "/", "user_agent.original": "x" * 100_000}
    assert len(view_of(call).metadata["userAgent"]) == 512
