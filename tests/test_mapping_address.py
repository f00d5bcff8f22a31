from __future__ import annotations

from typing import Any

import pytest
from span_making import view_of

XFF = "http.request.header.x_forwarded_for"
DASHED = "http.request.header.x-forwarded-for"
FORWARDED = "http.request.header.forwarded"
PEER = {"client.address": "10.0.0.1"}


def address_of(attributes: dict[str, Any], **options: Any) -> str | None:
    call = {"http.method": "GET", "http.route": "/"}
    return view_of({**call, **attributes}, options=options).ip_address


@pytest.mark.parametrize(
    ("attributes", "address"),
    [
        ({"client.address": "203.0.113.7", "net.peer.ip": "10.0.0.1"}, "203.0.113.7"),
        ({"client.address": "testclient", "net.peer.ip": "10.0.0.1"}, "10.0.0.1"),
        ({"client.address": "", "network.peer.address": "10.0.0.2"}, "10.0.0.2"),
        ({"http.client_ip": "10.0.0.3", "net.sock.peer.addr": "10.0.0.4"}, "10.0.0.3"),
        ({"net.sock.peer.addr": "10.0.0.4", "net.peer.ip": "10.0.0.5"}, "10.0.0.4"),
        ({"client.address": "::ffff:192.0.2.1"}, "192.0.2.1"),
        ({"client.address": "2001:DB8:0:0::7"}, "2001:db8::7"),
        ({"client.address": "10.0.0.5", "server.address": "10.0.0.5"}, None),
        ({"client.address": "10.0.0.5", "server.address": "h", "net.host.ip": "10.0.0.5:80"}, None),
        ({"client.address": "10.0.0.5", "server.address": "10.0.0.5", "net.peer.ip": "10.0.0.1"}, "10.0.0.1"),
        ({"client.address": "203.0.113.7", "server.address": "10.0.0.5"}, "203.0.113.7"),
        ({"client.address": "127.0.0.1", "server.address": "127.0.0.1"}, "127.0.0.1"),
        # The socket's peer is believed: the host itself asks.
        ({"network.peer.address": "10.0.0.5", "server.address": "10.0.0.5"}, "10.0.0.5"),
        ({"peer.address": "192.0.2.1"}, "192.0.2.1"),
        ({"peer.address": "192.0.2.1", "net.peer.ip": "192.0.2.2"}, "192.0.2.2"),
        ({"client.socket.address": "192.0.2.1"}, "192.0.2.1"),
        ({"peer.ipv4": "192.0.2.1"}, "192.0.2.1"),
        ({"client.address": "fe80::1%eth0"}, "fe80::1"),
        ({"net.peer.ip": "[::1]"}, "::1"),
        ({"client.address": "203.0.113.7:4711"}, "203.0.113.7"),
        ({"client.address": "/run/app.sock"}, None),
        ({"client.address": "unknown"}, None),
        ({"client.address": "256.1.1.1"}, None),
        ({"client.address": b"\xff"}, None),
        ({"client.address": 7}, None),
        ({}, None),
    ],
)
def test_the_first_that_is_an_address(attributes: dict[str, Any], address: str | None) -> None:
    assert address_of(attributes) == address


@pytest.mark.parametrize(
    ("policy", "address", "told"),
    [
        ("full", "203.0.113.7", "203.0.113.7"),
        ("truncate", "203.0.113.7", "203.0.113.0"),
        ("truncate", "2001:db8:1:2::7", "2001:db8:1::"),
        ("truncate", "::ffff:203.0.113.7", "203.0.113.0"),
        ("drop", "203.0.113.7", None),
    ],
)
def test_client_ip(policy: str, address: str, told: str | None) -> None:
    assert address_of({"client.address": address}, client_ip=policy) == told


def test_forwarded_headers_are_not_read_by_default() -> None:
    assert address_of({**PEER, XFF: ("203.0.113.7",)}) == "10.0.0.1"


@pytest.mark.parametrize(
    ("hops", "header", "address"),
    [
        (1, {XFF: ("203.0.113.7",)}, "203.0.113.7"),
        (1, {DASHED: ("203.0.113.7",)}, "203.0.113.7"),
        (1, {XFF: "203.0.113.7"}, "203.0.113.7"),
        # Whatever a client writes itself stands left of what the proxies append.
        (1, {XFF: ("1.2.3.4, 203.0.113.7",)}, "203.0.113.7"),
        (1, {XFF: ("1.2.3.4", "203.0.113.7")}, "203.0.113.7"),
        (2, {XFF: ("1.2.3.4, 203.0.113.7, 10.0.0.9",)}, "203.0.113.7"),
        # Fewer entries than proxies: it did not come through them.
        (2, {XFF: ("203.0.113.7",)}, "10.0.0.1"),
        (1, {XFF: ()}, "10.0.0.1"),
        (1, {}, "10.0.0.1"),
        # The proxy did not know or did not tell: nobody else's address stands in.
        (1, {XFF: ("203.0.113.7, unknown",)}, None),
        (1, {XFF: ("203.0.113.7,",)}, None),
        (1, {XFF: (" 203.0.113.7:4711 ",)}, "203.0.113.7"),
        (1, {XFF: ("[2001:db8::7]:4711",)}, "2001:db8::7"),
        (1, {XFF: ("2001:db8::7",)}, "2001:db8::7"),
        (1, {FORWARDED: ("for=203.0.113.7;proto=https;by=10.0.0.9",)}, "203.0.113.7"),
        (1, {FORWARDED: ('proto=https;For="[2001:db8::7]:4711"',)}, "2001:db8::7"),
        (1, {FORWARDED: ('for=1.2.3.4, for="203.0.113.7:80"',)}, "203.0.113.7"),
        (2, {FORWARDED: ("for=203.0.113.7", "for=10.0.0.9")}, "203.0.113.7"),
        (1, {FORWARDED: ("for=_hidden",)}, None),
        (1, {FORWARDED: ("for=unknown",)}, None),
        (1, {FORWARDED: ("proto=https",)}, None),
        (1, {XFF: ("203.0.113.7",), FORWARDED: ("for=1.2.3.4",)}, "203.0.113.7"),
    ],
)
def test_trusted_proxy_hops(hops: int, header: dict[str, Any], address: str | None) -> None:
    assert address_of({**PEER, **header}, trusted_proxy_hops=hops) == address


REAL_IP = "http.request.header.x_real_ip"
CLOUDFLARE = "http.request.header.cf-connecting-ip"


@pytest.mark.parametrize(
    ("hops", "header", "address"),
    [
        (1, {REAL_IP: ("203.0.113.7",)}, "203.0.113.7"),
        (1, {CLOUDFLARE: ("2001:db8::7",)}, "2001:db8::7"),
        (1, {REAL_IP: ("203.0.113.7",), CLOUDFLARE: ("198.51.100.2",)}, "198.51.100.2"),
        (1, {REAL_IP: ("203.0.113.7",), XFF: ("198.51.100.2",)}, "203.0.113.7"),
        # The proxy appends its line to whatever the client has sent.
        (1, {REAL_IP: ("1.2.3.4", "203.0.113.7")}, "203.0.113.7"),
        (1, {REAL_IP: ("unknown",), XFF: ("198.51.100.2",)}, "198.51.100.2"),
        (1, {"http.request.header.x_other_ip": ("203.0.113.7",)}, "10.0.0.1"),
        (0, {REAL_IP: ("203.0.113.7",)}, "10.0.0.1"),
    ],
)
def test_client_ip_headers(hops: int, header: dict[str, Any], address: str | None) -> None:
    headers = ["CF-Connecting-IP", "X-Real-IP"]
    options = {"trusted_proxy_hops": hops, "client_ip_headers": headers}
    assert address_of({**PEER, **header}, **options) == address


def test_an_address_of_a_header_is_shortened_as_well() -> None:
    options = {"trusted_proxy_hops": 1, "client_ip_headers": ["X-Real-IP"], "client_ip": "truncate"}
    assert address_of({**PEER, REAL_IP: ("203.0.113.7",)}, **options) == "203.0.113.0"
