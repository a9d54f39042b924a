"""What a pod is made of, and in which order its ads may be shown. Pure rules.

Source: OpenRTB 2.6 §7.6; AdCOM 1.0 "Slot Position in Pod".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Place(IntEnum):
    """Where an ad may stand in its pod: AdCOM 1.0 "Slot Position in Pod", of imps and of bids."""

    LAST = -1
    ANY = 0
    FIRST = 1
    FIRST_OR_LAST = 2


@dataclass(frozen=True, slots=True)
class Apart:
    """What keeps two ads apart: `pod` (not in one pod), `adjacent` (not next to each other) or `none`.

    One creative is never shown twice in a pod.
    """

    advertiser: str = "pod"
    label: str = "pod"


@dataclass(frozen=True, slots=True)
class PodAd:
    """One ad that may run. `cpm_micros` is what it is ranked by, `key` whatever the caller knows it by."""

    key: int
    duration_s: int
    cpm_micros: int
    apart_in_pod: frozenset[str] = frozenset()
    apart_if_adjacent: frozenset[str] = frozenset()
    place: Place = Place.ANY


@dataclass(frozen=True, slots=True)
class Section:
    """An imp's part of the pod. `fixed` ads are in it already and stay."""

    ads: Sequence[PodAd]
    seconds: int
    most_ads: int
    place: Place = Place.ANY
    fixed: Sequence[PodAd] = ()

    @property
    def seconds_left(self) -> int:
        return self.seconds - sum(a.duration_s for a in self.fixed)

    @property
    def ads_left(self) -> int:
        return self.most_ads - len(self.fixed)


def arranged(
    sections: Sequence[Section], chosen: Sequence[Sequence[PodAd]], budget: list[int]
) -> tuple[tuple[tuple[PodAd, ...], ...], tuple[int, ...]] | None:
    """(ads of each section in playing order, order of the sections); None when separators or places allow none.

    Sections keep the order in which they are given, but for those whose place is first or last; ads stand by revenue
    where nothing speaks against it. `budget` is how many places may still be tried, over all calls.
    """
    order = tuple(sorted(range(len(sections)), key=lambda i: _SECTION_RANK[sections[i].place]))
    line = [(i, ad) for i in order for ad in sorted(chosen[i], key=lambda a: (_AD_RANK[a.place], -a.cpm_micros))]
    total = len(line)
    if not any(ad.apart_if_adjacent or ad.place for _, ad in line):
        placed: list[PodAd] | None = [ad for _, ad in line]
    else:
        budget[0] -= total
        placed = _placed(line, [], total, budget) if _may_stand_apart(line) else None
    if placed is None:
        return None
    ads = iter(placed)
    by_section = {i: tuple(next(ads) for _ in chosen[i]) for i in order}
    return tuple(by_section[i] for i in range(len(sections))), order


_AD_RANK = {Place.FIRST: 0, Place.FIRST_OR_LAST: 1, Place.ANY: 2, Place.LAST: 3}
_SECTION_RANK = {Place.FIRST: 0, Place.FIRST_OR_LAST: 1, Place.ANY: 1, Place.LAST: 2}


def _may_stand_apart(line: Sequence[tuple[int, PodAd]]) -> bool:
    """False when more than every second ad has the same separator: no order keeps those apart."""
    alike = Counter(s for _, ad in line for s in ad.apart_if_adjacent)
    return all(count <= (len(line) + 1) // 2 for count in alike.values())


def _placed(left: list[tuple[int, PodAd]], line: list[PodAd], total: int, budget: list[int]) -> list[PodAd] | None:
    """The first order that keeps adjacent ads apart and everybody in place; sections stay together.

    None as well when `budget` steps did not find one: labels may be chosen so that trying them all takes for ever.
    """
    if not left:
        return line
    at = len(line)
    section = left[0][0]
    for k, (of, ad) in enumerate(left):
        if of != section:
            break
        budget[0] -= 1
        if budget[0] < 0:
            return None
        if line and line[-1].apart_if_adjacent & ad.apart_if_adjacent:
            continue
        if ad.place and not _stands(ad.place, at == 0, at == total - 1):
            continue
        found = _placed(left[:k] + left[k + 1 :], [*line, ad], total, budget)
        if found is not None:
            return found
    return None


def _stands(place: Place, is_first: bool, is_last: bool) -> bool:
    """Whether an ad of a place may stand there."""
    return (is_first and place is not Place.LAST) or (is_last and place is not Place.FIRST)
