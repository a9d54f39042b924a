"""Which ads want an opportunity: an index over the catalogue, a bit per creative.

Per dimension and value there is one integer with a bit for every creative that lists the value or lists nothing; a
request's answer is the AND of a dozen of them, so it costs the same for ten line items and for ten thousand, up to the
width of the integers. A value that nobody lists is as good as none: requests are brought to what the index knows, so
that they share answers, which are kept for the life of the inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from schemas.catalog import LineItem, Targeting
from schemas.errors import ConfigError

HOURS_OF_WEEK = 168
_HOUR_MS = 3_600_000
#: 1970-01-01 was a Thursday: hours to the Monday before.
_EPOCH_HOUR_OF_WEEK = 3 * 24
_CLOCKS = ("utc", "viewer")
_KEPT_ANSWERS = 8192
#: Positions that all answers together hold at most.
_KEPT_POSITIONS = 8_000_000

#: Of one kind of targeting: value -> mask of who lists it or lists nothing; mask of who lists nothing.
_Masks = tuple[dict[str | None, int], int]


class Audience(NamedTuple):
    """An opportunity as targeting sees it. None is not said; `hour`s are of the week, from Monday 0:00."""

    placement_id: str | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    device_type: str | None = None
    platform: str | None = None
    category: str | None = None
    content_id: str | None = None
    genre: str | None = None
    segments: frozenset[str] = frozenset()
    deal_ids: frozenset[str] = frozenset()
    utc_hour: int = 0
    viewer_hour: int = 0


#: What a line item lists, per field of `Audience` that has one value, and per field that has several.
_SINGLE: dict[str, Callable[[Targeting], list[str]]] = {
    "placement_id": lambda t: t.placement_ids,
    "country": lambda t: t.countries,
    "region": lambda t: t.regions,
    "city": lambda t: t.cities,
    "device_type": lambda t: t.device_types,
    "platform": lambda t: t.platforms,
    "category": lambda t: t.content_categories,
    "content_id": lambda t: t.content_ids,
    "genre": lambda t: t.genres,
}
_SEVERAL: dict[str, Callable[[Targeting], list[str]]] = {
    "segments": lambda t: t.segments,
    "deal_ids": lambda t: t.deal_ids,
}


def hour_of_week(now_ms: int, utcoffset_minutes: int = 0) -> int:
    """Hours since Monday 0:00, of UTC or, with an offset (OpenRTB 2.6 §3.2.19 `utcoffset`), where the viewer is.

    Example:
    >>> hour_of_week(0), hour_of_week(4 * 86_400_000, -60)
    (72, 167)
    """
    return ((now_ms + utcoffset_minutes * 60_000) // _HOUR_MS + _EPOCH_HOUR_OF_WEEK) % HOURS_OF_WEEK


def wanted_hours(targeting: Targeting) -> set[int]:
    """Hours of the week that a line item lists. Errors: ConfigError for a day, an hour or a clock that is none."""
    hours = set()
    for part in targeting.dayparts:
        if not part.days or not all(1 <= d <= 7 for d in part.days) or not 0 <= part.from_hour < part.to_hour <= 24:
            raise ConfigError(f"{part}: days are 1-7, 0 <= from_hour < to_hour <= 24")
        hours |= {(day - 1) * 24 + hour for day in part.days for hour in range(part.from_hour, part.to_hour)}
    if targeting.daypart_clock not in _CLOCKS:
        raise ConfigError(f"daypart_clock {targeting.daypart_clock!r} is none of {_CLOCKS}")
    return hours


class TargetingIndex:
    """Rows by what they want. `find` is pure and remembers; positions are those of `lines`.

    Errors of the constructor: ConfigError for dayparts that can't be.
    """

    def __init__(self, lines: Sequence[LineItem]) -> None:
        self._width = len(lines)
        self._all = (1 << len(lines)) - 1
        listed = [line.targeting for line in lines]
        self._single = {name: self._index([of(t) for t in listed]) for name, of in _SINGLE.items()}
        self._several = {name: self._index([of(t) for t in listed]) for name, of in _SEVERAL.items()}
        place = Audience._fields.index
        self._single_at = [(place(name), by_value) for name, (by_value, _) in self._single.items()]
        self._several_at = [(place(name), by_value) for name, (by_value, _) in self._several.items()]
        hours = [wanted_hours(t) for t in listed]
        self._hours = tuple(
            self._by_hour([h if t.daypart_clock == clock else set() for h, t in zip(hours, listed, strict=True)])
            for clock in _CLOCKS
        )
        # of the parts, not of `self`: a cycle would live until the collector looks, which what is frozen never sees
        self.find = lru_cache(maxsize=min(_KEPT_ANSWERS, _KEPT_POSITIONS // (len(lines) + 1) + 1))(
            partial(_find, self._single, self._several, self._hours, self._width)
        )

    def bits(self, positions: Iterable[int]) -> int:
        """A mask of positions."""
        return _mask(positions, self._width)

    def reduced(self, audience: Audience) -> Audience:
        """The audience with nothing in it that no line item asks for: few enough to be remembered."""
        said: list[Any] = list(audience)
        for at, by_value in self._single_at:
            if said[at] not in by_value:
                said[at] = None
        for at, by_value in self._several_at:
            if said[at]:
                said[at] = frozenset(value for value in said[at] if value in by_value)
        for at, by_hour in zip((-2, -1), self._hours, strict=True):
            if not by_hour:
                said[at] = 0
        return Audience._make(said)

    def _index(self, lists: Sequence[list[str]]) -> _Masks:
        """(value -> mask of who lists it or lists nothing, mask of who lists nothing)."""
        members: dict[str, list[int]] = {}
        for position, values in enumerate(lists):
            for value in values:
                members.setdefault(value, []).append(position)
        anyone = _mask((i for i, values in enumerate(lists) if not values), self._width)
        return {value: _mask(found, self._width) | anyone for value, found in members.items()}, anyone

    def _by_hour(self, wanted: Sequence[set[int]]) -> tuple[int, ...]:
        """A mask per hour of the week; empty when nobody asks for hours."""
        if not any(wanted):
            return ()
        anyone = _mask((i for i, hours in enumerate(wanted) if not hours), self._width)
        return tuple(
            _mask((i for i, hours in enumerate(wanted) if hour in hours), self._width) | anyone
            for hour in range(HOURS_OF_WEEK)
        )


def _find(
    single: Mapping[str, _Masks],
    several: Mapping[str, _Masks],
    hours: Sequence[tuple[int, ...]],
    width: int,
    audience: Audience,
    among: int,
) -> tuple[int, ...]:
    """Positions in the mask `among` that want an audience, in order."""
    found = among
    for name, (by_value, anyone) in single.items():
        found &= by_value.get(getattr(audience, name), anyone)
    for name, (by_value, anyone) in several.items():
        wanted = anyone
        for value in getattr(audience, name):
            wanted |= by_value.get(value, 0)
        found &= wanted
    for hour, by_hour in zip((audience.utc_hour, audience.viewer_hour), hours, strict=True):
        if by_hour:
            found &= by_hour[hour]
    return _positions(found, width)


def _mask(positions: Iterable[int], width: int) -> int:
    """An integer with these bits. By way of an array: setting bits of a long integer one by one copies it each time."""
    flags = np.zeros(width, np.uint8)
    flags[np.fromiter(positions, np.intp)] = 1
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def _positions(mask: int, width: int) -> tuple[int, ...]:
    flags = np.frombuffer(mask.to_bytes((width + 7) // 8, "little"), np.uint8)
    return tuple(np.flatnonzero(np.unpackbits(flags, bitorder="little")).tolist())
