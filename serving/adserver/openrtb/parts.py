"""What all OpenRTB objects are made of: the base struct and the kinds of numbers that the specification knows.

Lists of codes (AdCOM 1.0) are not closed: they grow, and 500+ is a vendor's own, so a code is any whole number.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]
#: Whole numbers are those of 64 bits: no field means more, and none that is longer could be sent on.
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)]
Latitude = Annotated[float, msgspec.Meta(ge=-90, le=90)]
Longitude = Annotated[float, msgspec.Meta(ge=-180, le=180)]


class Part(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of all objects: what has its default is not written."""


def tidy(value: Any) -> Any:
    """JSON data without nulls in objects, and with whole numbers as such.

    Example:
    >>> tidy({"w": 300.0, "h": None, "price": 0.5})
    {'w': 300, 'price': 0.5}
    """
    if isinstance(value, dict):
        return {name: tidy(v) for name, v in value.items() if v is not None}
    if isinstance(value, list):
        return [tidy(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
