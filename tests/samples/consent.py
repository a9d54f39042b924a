"""Writes TC and GPP strings, for tests of their readers."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence

_HIGHEST_VENDOR = 16


def bits_to_text(bits: str) -> str:
    """Base64url of a bit string, padded with zeros to whole characters."""
    bits += "0" * (-len(bits) % 24)
    raw = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _number(value: int, width: int) -> str:
    return format(value, f"0{width}b")


def _flags(values: Collection[int], width: int) -> str:
    return "".join("1" if i in values else "0" for i in range(1, width + 1))


def _vendors(values: Collection[int], as_ranges: bool) -> str:
    highest = max(values, default=0)
    if not as_ranges:
        return _number(highest, 16) + "0" + _flags(values, highest)
    entries = "".join("0" + _number(v, 16) for v in sorted(values))
    return _number(highest, 16) + "1" + _number(len(values), 12) + entries


def tc_string(
    purposes: Collection[int] = (1, 2, 3, 4, 7),
    vendors: Collection[int] = (10,),
    interests: Collection[int] = (),
    interest_vendors: Collection[int] = (),
    special_features: Collection[int] = (),
    restrictions: Mapping[tuple[int, int], Sequence[int]] | None = None,
    as_ranges: bool = False,
    version: int = 2,
) -> str:
    """A TC string's core segment (TCF v2.2)."""
    head = _number(version, 6) + _number(0, 36) * 2 + _number(1, 12) * 2 + _number(1, 6)
    head += _number(4, 6) + _number(13, 6) + _number(48, 12) + _number(4, 6) + "10"
    middle = _flags(special_features, 12) + _flags(purposes, 24) + _flags(interests, 24) + "0" + _number(0, 12)
    tail = _vendors(vendors, as_ranges) + _vendors(interest_vendors, as_ranges)
    tail += _number(len(restrictions or {}), 12)
    for (purpose, kind), ids in (restrictions or {}).items():
        tail += _number(purpose, 6) + _number(kind, 2) + _number(len(ids), 12)
        tail += "".join("0" + _number(v, 16) for v in ids)
    return bits_to_text(head + middle + tail)


def _fibonacci(value: int) -> str:
    numbers = [1, 2]
    while numbers[-1] <= value:
        numbers.append(numbers[-1] + numbers[-2])
    bits = ""
    for number in reversed([n for n in numbers if n <= value]):
        taken = value >= number
        value -= number if taken else 0
        bits = ("1" if taken else "0") + bits
    return bits + "1"


def gpp_string(sections: Mapping[int, str]) -> str:
    """A GPP string of these sections."""
    header, last = _number(3, 6) + _number(1, 6) + _number(len(sections), 12), 0
    for section_id in sorted(sections):
        header += "0" + _fibonacci(section_id - last)
        last = section_id
    return "~".join([bits_to_text(header), *(sections[s] for s in sorted(sections))])


def us_section(fields: Sequence[int], version: int = 1, gpc: bool | None = None) -> str:
    """A US section of two-bit fields; `gpc` adds that segment."""
    core = bits_to_text(_number(version, 6) + "".join(_number(f, 2) for f in fields))
    return core if gpc is None else f"{core}.{bits_to_text(_number(1, 2) + ('1' if gpc else '0'))}"
