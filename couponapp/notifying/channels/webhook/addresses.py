"""Where a name leads: looked up once, checked, and connected to as it was checked."""

from __future__ import annotations

import ipaddress
import socket
import time

from couponapp.errors import ChannelFailed

# IPv6 addresses that carry an IPv4 one inside, which would not be checked: NAT64 (RFC 6052); 6to4 and
# Teredo are told by `ipaddress`.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """An address of the public Internet: not private, local, reserved or multicast, nor a tunnel's."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.sixtofour is not None or address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast


def connect(host: str, port: int, *, timeout_s: float, private: bool) -> socket.socket:
    """Connect to the first address of a name that answers.

    What was checked is what is connected to, so a name that leads elsewhere at a second look-up
    gains nothing.

    Args:
        host: a name or an address.
        port: of TCP.
        timeout_s: the most for all addresses together, in seconds. Looking up the name has the
            resolver's own bound.
        private: addresses that are not public are allowed.

    Raises:
        ChannelFailed: there is no such name, no allowed address, or none answers.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ChannelFailed(f"{host} cannot be looked up: {error}") from error
    allowed = [one for one in found if private or is_public(str(one[4][0]))]
    if not allowed:
        raise ChannelFailed(f"{host} has no public address, and COUPON_WEBHOOK_PRIVATE is not set")
    give_up_s, reason = time.monotonic() + timeout_s, ""
    for family, kind, protocol, _, address in allowed:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(0.01, give_up_s - time.monotonic()))
            connection.connect(address)
        except OSError as error:
            connection.close()
            reason = str(error)
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise ChannelFailed(f"{host} does not answer: {reason}")
