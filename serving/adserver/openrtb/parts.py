"""What all OpenRTB objects are made of: the base struct and the kinds of numbers that the specification knows.

Lists of codes (AdCOM 1.0) are not closed: they grow, and 500+ is a vendor's own, so a code is any whole number.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, NoReturn

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


_LONGEST_WHOLE = 20
_anything = msgspec.json.Decoder()


class Part(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of all objects: what has its default is not written."""


def any_json(text: bytes | str) -> Any:
    """JSON data, with every number that no double holds as its text: it is refused where a number is meant, and passed
    over where nobody looks. Errors: ValueError, also for what is nested too deeply.

    Example:
    >>> any_json(b'{"ext": 1e999, "w": 1e3}')
    {'ext': '1e999', 'w': 1000.0}
    """
    try:
        return _anything.decode(text)
    except msgspec.ValidationError:
        data = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_no_json)
        json.dumps(data, ensure_ascii=False).encode()  # halves of characters are no text
        return data
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_WHOLE else text


def _finite(text: str) -> float | str:
    return value if math.isfinite(value := float(text)) else text


def _no_json(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def tidy(text: bytes | str) -> Any:
    """JSON data without nulls in objects, and with whole numbers as such. Errors: those of `any_json`.

    Example:
    >>> tidy('{"w": 300.0, "h": null, "price": 0.5}')
    {'w': 300, 'price': 0.5}
    """
    try:
        return _tidied(any_json(text))
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def _tidied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tidied(v) for name, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_tidied(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
