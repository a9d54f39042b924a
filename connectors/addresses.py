"""Which addresses a URL of somebody else's may lead to: the public internet, never our own network; and who asks us.

Resolving and connecting are one step (the connection goes to the very address that was judged), so that a name which
changes its mind between the two gains nothing.
Source: RFC 6890 (special-purpose addresses), OWASP "Server-Side Request Forgery Prevention".
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from connectors.http_messages import Request
from schemas.errors import Refused

#: Gives the address to connect to, for a host and a port. Errors: PrivateAddress; OSError when the name is unknown.
Resolver = Callable[[str, int], Awaitable[str]]


class PrivateAddress(Refused):
    """A name that leads into a private network."""


async def public_address(host: str, port: int) -> str:
    """The first public address of a host. Errors: PrivateAddress when it has none; OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for _family, _kind, _protocol, _name, address in found:
        if is_public(str(address[0])):
            return str(address[0])
    raise PrivateAddress(f"{host}: leads into a private network")


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, also when it holds another one.

    Example:
    >>> [is_public(a) for a in ("8.8.8.8", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "2002:7f00:1::")]
    [True, False, False, False, False, False]
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            found = inner
    return found.is_global and not found.is_multicast


def sender(request: Request, forwarded_hops: int) -> str:
    """Address of who sent a request: the peer's, or what the outermost of our own proxies wrote down.

    `forwarded_hops` is the number of proxies in front of us; what stands before their entries of X-Forwarded-For is the
    sender's own invention.
    """
    if forwarded_hops == 0:
        return request.peer
    entries = [entry.strip() for entry in request.header(b"x-forwarded-for").split(",")]
    return entries[-forwarded_hops] if len(entries) >= forwarded_hops else request.peer


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
