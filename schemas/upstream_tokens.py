"""Logs of servers that play or show our ads: their lines carry our tokens, and the publisher looks the ad up.

A line is taken whole or refused whole, so that sending it again after a repair can't leave half of it behind.
Addresses, user agents and referrers are not read: the ad's record knows its user.
Source: Apache HTTP Server, mod_log_config, "Combined Log Format"; IAB Tech Lab, "VAST 4.2" §1.2.3 (server-side ad
insertion and its tracking).
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from schemas.upstream import UpstreamEvent

BEACON_PATH = "/t/"
MAX_TOKEN = 512
MAX_BEACONS = 500
MAX_OFFSET_MS = 24 * 3_600_000

_COMBINED = re.compile(
    r"\S+ \S+ \S+ "  # host, identity, user
    r"\[(?P<time>[^\]]*)\] "
    r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/[\d.]+" '
    r"(?P<status>\d{3}) (?:\d+|-)"
    r'(?: "(?:[^"\\]|\\.)*"){0,2}'  # referrer and user agent; neither in Common Log Format
)
_TIME = re.compile(r"(\d{2})/([A-Z][a-z]{2})/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG_MAX = 2**63 - 1


def display_logger(line: str, _origin: str) -> list[UpstreamEvent]:
    """The pixel that a line of an access log tells of; nothing for other paths, HEAD, and what was not served.

    The time is the client's own (`ts` of the query) if it is there, else the server's, in whole seconds.
    """
    found = _COMBINED.fullmatch(line)
    if found is None:
        raise ValueError("not in Combined Log Format")
    time_ms = _combined_time_ms(found["time"])
    target = urlsplit(found["target"])
    served = 200 <= int(found["status"]) < 400
    if not served or found["method"] not in ("GET", "POST") or not target.path.startswith(BEACON_PATH):
        return []
    query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=64))
    query.pop("src", None)  # the log says who it is
    client_ms = query.get("ts", "")
    if client_ms.isascii() and client_ms.isdigit() and int(client_ms) <= _LONG_MAX:
        time_ms = int(query.pop("ts"))
    event = query.pop("event", None)
    return [_event("display_logger", target.path[len(BEACON_PATH) :], event, time_ms, query)]


def ssai(line: str, _origin: str) -> list[UpstreamEvent]:
    """The beacons that one request to a stitched stream made due.

    Shape: `{"time_ms": epoch ms, "beacons": [{"token", "event"?, "offset_ms"?, …}, …], …}`: an offset is from the
    request; other fields of the line belong to each of its beacons, other fields of a beacon to it alone.
    """
    found = json.loads(line, parse_constant=_no_constant)  # its error is a ValueError that names line and column
    if not isinstance(found, dict):
        raise ValueError("not an object")
    time_ms = _whole(found.pop("time_ms", None), "time_ms", 0, _LONG_MAX - MAX_OFFSET_MS)
    beacons = found.pop("beacons", None)
    if not isinstance(beacons, list) or len(beacons) > MAX_BEACONS:
        raise ValueError(f"beacons: expected a list of at most {MAX_BEACONS}")
    shared = _scalars(found)
    events = []
    for number, beacon in enumerate(beacons):
        where = f"beacons[{number}]"
        if not isinstance(beacon, dict):
            raise ValueError(f"{where}: not an object")
        token, name = beacon.pop("token", None), beacon.pop("event", None)
        if not isinstance(token, str):
            raise ValueError(f"{where}.token: expected a text")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{where}.event: expected a text")
        offset_ms = _whole(beacon.pop("offset_ms", 0), f"{where}.offset_ms", -MAX_OFFSET_MS, MAX_OFFSET_MS)
        try:
            events.append(_event("ssai", token, name, time_ms + offset_ms, shared | _scalars(beacon)))
        except ValueError as e:
            raise ValueError(f"{where}.{e}") from None
    return events


def _event(source: str, token: str, name: str | None, time_ms: int, attributes: dict[str, str]) -> UpstreamEvent:
    if not 0 < len(token) <= MAX_TOKEN:
        raise ValueError(f"token: expected 1 to {MAX_TOKEN} characters")
    for text in (token, name or "", *attributes, *attributes.values()):
        text.encode()  # JSON can spell half of a character
    return UpstreamEvent(
        event_type=name[:64] if name else None,
        source_format=source,
        upstream_id=None,
        original_time_ms=time_ms,
        user=None,
        ip=None,
        attributes=attributes,
        token=token,
        source=source,
    )


def _combined_time_ms(text: str) -> int:
    """Epoch ms of `29/May/2026:12:00:00 +0200`. Months by name, whatever the locale."""
    found = _TIME.fullmatch(text)
    if found is None or found[2] not in _MONTHS:
        raise ValueError("time: not dd/Mon/yyyy:hh:mm:ss +hhmm")
    day, year, hour, minute, second = (int(found[i]) for i in (1, 3, 4, 5, 6))
    away = timedelta(hours=int(found[8]), minutes=int(found[9]))
    try:
        zone = timezone(away if found[7] == "+" else -away)
        moment = datetime(year, _MONTHS.index(found[2]) + 1, day, hour, minute, second, tzinfo=zone)
    except ValueError as e:
        raise ValueError(f"time: {e}") from e
    return int(moment.timestamp()) * 1000


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name}: expected a whole number from {least} to {most}")
    return value


def _scalars(found: dict[str, Any]) -> dict[str, str]:
    """Fields with one value, as text; nested ones are not kept."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in found.items()
        if isinstance(value, str | int | float)
    }


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
