"""VAST macros in a tracker's URL, expanded as a server does that calls on behalf of a device.

Values are percent-encoded. A macro of the specification whose value is not known becomes -1, one whose value may not
be told -2; what is no macro of the specification stays as it is.
The time is the event's, not the call's: a partner that was away for a while must not see its impressions move.
Source: VAST 4.2 §6 "Macros" (names; §6.1 for -1, -2 and encoding).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from jobs.vendors.device import Device
from schemas.events import opted_out

UNKNOWN, WITHHELD = "-1", "-2"
#: Who calls, in `User-Agent` and [SERVERUA].
SERVER_USER_AGENT = "Headwater/1 (ads event handler)"

#: Macros of the specification; those that `expand` has no value for are answered with -1.
_SPECIFIED = """
    TIMESTAMP CACHEBUSTING ERRORCODE REASON CONTENTPLAYHEAD MEDIAPLAYHEAD ADPLAYHEAD BREAKPOSITION BREAKMINDURATION
    BREAKMAXDURATION BREAKMAXADS BREAKMINADLENGTH BREAKMAXADLENGTH BLOCKEDADCATEGORIES ADCATEGORIES ADCOUNT ADTYPE
    ADSERVINGID UNIVERSALADID TRANSACTIONID PLACEMENTTYPE PODSEQUENCE CLICKTYPE CLICKPOS LATLONG IFA IFATYPE CLIENTUA
    SERVERUA DEVICEUA DEVICEIP SERVERSIDE LIMITADTRACKING REGULATIONS GDPRCONSENT APPBUNDLE DOMAIN PAGEURL STOREID
    STOREURL VASTVERSIONS APIFRAMEWORKS EXTENSIONS VERIFICATIONVENDORS OMIDPARTNER MEDIAMIME PLAYERCAPABILITIES
    INVENTORYSTATE PLAYERSIZE PLAYERSTATE ASSETURI CONTENTID CONTENTURI CONTENTCAT
"""
NAMES = frozenset(_SPECIFIED.split())
_MACRO = re.compile(r"(?:\[|%5[Bb])([A-Z]{3,24})(?:\]|%5[Dd])")


def expand(url: str, call: Mapping[str, Any], device: Device | None) -> str:
    """A call's URL with its macros replaced. Shape: `call` as tracker_call.avsc; `device` None when it is not known.

    The same call gives the same URL whenever it is made again.

    Example:
    >>> call = {"event_time_ms": 0, "idempotency_key": "k", "error_code": "405", "request_id": "r", "record_id": "a",
    ...         "creative_id": "c", "consent": {"opt_out": "1"}}
    >>> expand("https://p.test/?t=[TIMESTAMP]&e=[ERRORCODE]&ip=[DEVICEIP]&s=[SERVERSIDE]&x=[MINE]", call, None)
    'https://p.test/?t=1970-01-01T00%3A00%3A00.000Z&e=405&ip=-2&s=1&x=[MINE]'
    """
    if "[" not in url and "%5" not in url:
        return url
    return _MACRO.sub(lambda found: _value(found, call, device), url)


def _value(found: re.Match[str], call: Mapping[str, Any], device: Device | None) -> str:
    name = found[1]
    if name not in NAMES:
        return found[0]
    of_call, consent = _OF_CALL.get(name), call["consent"]
    if of_call is not None:
        value = of_call(call)
    elif name == "LIMITADTRACKING":
        value = "1" if opted_out(consent) else "0"
    elif name == "REGULATIONS":
        value = ",".join(r for r in ("coppa", "gdpr") if r in consent)
    elif name == "IFA":
        return WITHHELD  # users are known by pseudonyms of our own, which are nobody else's
    elif name in _OF_DEVICE:
        if opted_out(consent):
            return WITHHELD
        value = _OF_DEVICE[name](device) if device is not None else ""
    else:
        return UNKNOWN
    return quote(value, safe="") if value else UNKNOWN


def _timestamp(event_time_ms: int) -> str:
    """ISO 8601 with milliseconds."""
    moment = datetime.fromtimestamp(event_time_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{event_time_ms % 1000:03d}Z"


def _eight_digits(key: str) -> str:
    """Eight digits that differ from call to call, and are the same when one is made again."""
    return f"{int.from_bytes(key.encode()[-12:], 'big') % 100_000_000:08d}"


_OF_CALL = {
    "TIMESTAMP": lambda call: _timestamp(call["event_time_ms"]),
    "CACHEBUSTING": lambda call: _eight_digits(call["idempotency_key"]),
    "ERRORCODE": lambda call: call["error_code"] or "",
    "TRANSACTIONID": lambda call: call["request_id"],
    "ADSERVINGID": lambda call: call["record_id"],
    "UNIVERSALADID": lambda call: f"headwater {call['creative_id']}" if call["creative_id"] else "",
    "SERVERSIDE": lambda call: "1",
    "SERVERUA": lambda call: SERVER_USER_AGENT,
}
_OF_DEVICE = {
    "DEVICEUA": lambda device: device.user_agent,
    "DEVICEIP": lambda device: device.ip,
    "PAGEURL": lambda device: device.referer,
    "DOMAIN": lambda device: urlsplit(device.referer).hostname or "",
    "APPBUNDLE": lambda device: device.app,
}
