"""Which network addresses belong to the public internet: the only ones that a URL from outside may lead to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

# Reserved for something else, and taken for public by `is_global` of one Python or another.
_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host (RFC 1122 section 3.2.1.3)
            "100.64.0.0/10",  # behind a carrier's translation (RFC 6598)
            "192.0.0.0/24",  # protocol assignments (RFC 6890)
            "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
            "198.18.0.0/15",  # benchmarks (RFC 2544)
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
        ),
    )
)
_PUBLIC_6: Final = IPv6Network("2000::/3")  # all of IPv6 that is assigned to hosts (RFC 4291 section 2.4)
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, among them Teredo, which carries an IPv4 address (RFC 4380)
            "2001:db8::/32",  # documentation (RFC 3849)
            "2002::/16",  # 6to4, which carries an IPv4 address (RFC 3056)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)


def is_public(text: str) -> bool:
    """Whether `text` is the address of a host on the public internet, in its plain form.

    Addresses that carry another one (mapped, translated, tunnelled) are none, whatever they carry: which host they
    reach is for a router to say.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _NOT_PUBLIC_4)
    return _is_public_6(address)


def _is_public_6(address: IPv6Address) -> bool:
    if address.scope_id is not None or address not in _PUBLIC_6:
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC_6)
