"""What a sender says beside the contract: kept as text, less what no topic may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_NAME = 64
MAX_VALUE = 512
MAX_ATTRIBUTES = 32
#: Names under which players and partners send identifiers; users are known by the ad's record alone.
PERSONAL_NAMES = frozenset(
    {"ip", "ipaddress", "ip_address", "uip", "uid", "user", "userid", "user_id", "email", "e_mail", "mail"}
    | {
        "phone",
        "msisdn",
        "idfa",
        "gaid",
        "aaid",
        "ifa",
        "advertising_id",
        "device_id",
        "deviceid",
        "udid",
        "imei",
        "mac",
    }
)
_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|(?=.*:.*:)[0-9A-Fa-f:.]{3,45}")


def clean_attributes(sent: Mapping[str, object]) -> tuple[dict[str, str], int]:
    """(attributes as text, how many were left out).

    Left out: names of identifiers, values that look like an e-mail or IP address, nested values, and what is too
    long or too much to be an attribute.
    """
    kept: dict[str, str] = {}
    for name, value in sent.items():
        if len(kept) == MAX_ATTRIBUTES:
            break
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, str | int | float):
            text = str(value)
        else:
            continue
        if len(name) > MAX_NAME or len(text) > MAX_VALUE or name.lower() in PERSONAL_NAMES:
            continue
        if "@" in text or _ADDRESS.fullmatch(text):
            continue
        kept[name] = text
    return kept, len(sent) - len(kept)
