"""What a call says of the device that it is made for: read from the registry's record, sent in headers."""

from __future__ import annotations

import msgspec

from schemas.errors import ContractError
from schemas.registry_record import AdRecord


class Device(msgspec.Struct, frozen=True, rename=lambda name: f"device_{name}"):
    """The `device_*` fields of a registry record; empty text for what is not known."""

    ip: str = ""
    user_agent: str = ""
    language: str = ""
    referer: str = ""
    app: str = ""


_decode = msgspec.json.Decoder(Device).decode
#: Header of each field. Source: VAST 4.2, HTTP headers of server-side ad requests and tracking.
_HEADERS = (
    ("X-Device-IP", "ip"),
    ("X-Device-User-Agent", "user_agent"),
    ("X-Device-Accept-Language", "language"),
    ("X-Device-Referer", "referer"),
    ("X-Device-Requested-With", "app"),
)


def device_of(record: bytes | None) -> Device | None:
    """The device of a registry record's bytes; None when there is no such record, or not one that this code reads."""
    if record is None:
        return None
    try:
        return _decode(AdRecord.json_part(record))
    except (ContractError, msgspec.MsgspecError):
        return None


def device_headers(device: Device | None) -> str:
    """Header lines, each ending in CRLF.

    Example:
    >>> device_headers(Device(ip="198.51.100.0", language="de"))
    'X-Device-IP: 198.51.100.0\\r\\nX-Device-Accept-Language: de\\r\\n'
    """
    if device is None:
        return ""
    return "".join(f"{name}: {header_text(v)}\r\n" for name, field in _HEADERS if (v := getattr(device, field)))


def header_text(value: str) -> str:
    """A value that can't end its line nor the head: other than printable ASCII becomes a question mark.

    Example:
    >>> header_text("a\\r\\nEvil: 1")
    'a??Evil: 1'
    """
    return "".join(c if " " <= c <= "~" else "?" for c in value)
