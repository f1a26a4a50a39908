"""From which address a request came, as far as that is known: whoever connects, or whom a known proxy names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks; an address is a network of one.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(text) for text in texts)


def peer(connected: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str | None:
    """Return the address that the first of `proxies` was connected to from; None where nobody knows.

    Args:
        connected: whoever connected to us.
        forwarded: the values of the `X-Forwarded-For` header lines, in their order. Each proxy adds one address at the
            end, so that what stands before the last one that is no proxy of ours is anybody's word.
        proxies: whose word counts.
    """
    addresses = [connected, *reversed([word for line in forwarded for word in line.split(",")])]
    for text in addresses:
        address = _address(text.strip())
        if address is None or not any(address in network for network in proxies):
            return None if address is None else str(address)
    return None  # a proxy that names nobody


def is_address(text: str) -> bool:
    """Whether this is an address of one host."""
    return _address(text) is not None


@lru_cache(maxsize=1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        read = ip_address(text)
    except ValueError:
        return None
    return read.ipv4_mapped or read if isinstance(read, IPv6Address) else read
