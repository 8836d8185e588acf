"""Distinguishes public IP addresses from others."""

from __future__ import annotations

import ipaddress

# NAT64 (RFC 6052) carries an IPv4 address that would not be checked; `ipaddress` knows 6to4 and Teredo itself.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Return whether an IP address belongs to the public Internet.

    Private, local, reserved and multicast addresses do not, nor do IPv6 tunnels to any IPv4 address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.sixtofour is not None or address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast
