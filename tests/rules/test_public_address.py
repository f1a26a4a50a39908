"""Which addresses a URL from outside may lead to."""

from __future__ import annotations

import pytest

from mcp_authz.rules.public_address import is_public

PUBLIC = ["93.184.215.14", "1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450::1"]
NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 - to be refused
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1", "fec0::1"],
    "link local": ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "2606:2800::1%eth0"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "carrier": ["100.64.0.1", "100.127.255.254"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "192.0.0.171", "198.18.0.1", "198.19.255.255"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::ffff:7f00:1"],
    "compatible": ["::127.0.0.1", "::8.8.8.8"],
    "translated": ["64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1"],
    "tunnelled": ["2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.88.99.1"],
    "of nobody": ["4000::1", "8000::1", "5f00::1", "100::1"],
    "another spelling": ["2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.1", "1.1", "08.8.8.8", " 8.8.8.8", "8.8.8.8\n"],
    "no address": ["", "localhost", "example.com", "8.8.8.8:443", "[::1]"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_host_on_the_internet_may_be_reached(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, of in NOT_PUBLIC.items() for one in of])
def test_nothing_else_may(kind: str, address: str) -> None:
    assert not is_public(address), kind
