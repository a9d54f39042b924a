"""What third parties' calls may say of a device, for the headers that VAST 4 asks of servers that call for it.

Only of users who may be known, and never the whole address: an IPv4 address is cut to its /24, an IPv6 one to its /48.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TypedDict

from serving.adserver.openrtb.messages import BidRequest

_USER_AGENT_CHARACTERS = 512
_LANGUAGE_CHARACTERS = 64
_KEPT_BITS = {4: 24, 6: 48}


class DeviceFields(TypedDict):
    """The `device_*` fields of the registry's record; empty text for what may not be known, or is not."""

    device_ip: str
    device_user_agent: str
    device_language: str
    device_referer: str
    device_app: str


_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN_ADDRESS = re.compile(rf"({_BYTE}\.{_BYTE}\.{_BYTE})\.{_BYTE}")

_UNKNOWN = DeviceFields(device_ip="", device_user_agent="", device_language="", device_referer="", device_app="")


def device_fields(request: BidRequest, opted_out: bool) -> DeviceFields:
    """What is kept of a request's device, which is nothing for a user who must stay unknown."""
    device = request.device
    if opted_out or device is None:
        return _UNKNOWN
    site, app = request.site, request.app
    return DeviceFields(
        device_ip=truncated(device.ip or device.ipv6),
        device_user_agent=device.ua[:_USER_AGENT_CHARACTERS],
        device_language=device.language[:_LANGUAGE_CHARACTERS],
        device_referer=f"https://{site.domain}/" if site is not None and site.domain else "",
        device_app=app.bundle if app is not None else "",
    )


def truncated(address: str) -> str:
    """An address without its last part; empty for what is no address.

    Example:
    >>> truncated("198.51.100.77"), truncated("2001:db8:1:2::3"), truncated("somewhere")
    ('198.51.100.0', '2001:db8:1::', '')
    """
    if plain := _PLAIN_ADDRESS.fullmatch(address):  # as most are: `ipaddress` takes many times as long
        return f"{plain[1]}.0"
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    bits = found.max_prefixlen - _KEPT_BITS[found.version]
    return str(type(found)(int(found) >> bits << bits))
