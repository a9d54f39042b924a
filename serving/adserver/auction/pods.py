"""Which ads fill a break: the set with the highest revenue that fits, in an order that may be shown. Pure rules.

A pod has sections: a structured imp is a section of one ad, a dynamic imp one of several that share its seconds.
Ads carry separators (creative, advertiser, exclusion labels); two with the same one are kept apart: not in one pod, or
only not next to each other.

How: for each section a table of the best revenue by first ad, ads left and seconds left (dynamic programming over
seconds, divided by their greatest common divisor), which knows nothing of separators; beside it the sum of the dearest
ads of which no two share a separator, which knows nothing of seconds. A depth-first search over the ads takes the
lower of the two as its upper bound and checks the separators: exact. Complexity: O(ads x ads per pod x seconds) for
the tables; the search looks at little more than the best set when separators seldom meet, and at 2^ads sets at worst,
so it ends after `most_steps` with the best that it has seen (never less than what taking the dearest first gives).
Ads that can't be in a best set are left out first: of those with the same seconds and separators, and of those with
separators of their own, only as many as fit.
Source: OpenRTB 2.6 §7.6 (pod bidding: structured, dynamic, hybrid), Video `maxseq`, `poddur`, `rqddurs`,
`mincpmpersec`, `slotinpod`; Martello and Toth, "Knapsack Problems" (1990), for the bound.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

MOST_STEPS = 4_000
_MOST_PLACINGS = 5_000
#: Seconds, in units of their common divisor, that a table has at most.
_MOST_UNITS = 3_600


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


@dataclass(frozen=True, slots=True)
class Filling:
    """Ads of each section in playing order, and the order of the sections. `exact` is False after `most_steps`."""

    sections: tuple[tuple[PodAd, ...], ...]
    order: tuple[int, ...]
    cpm_micros: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class DurationRule:
    """What a video imp allows: `required_s` exactly, or else between `least_s` and `most_s`."""

    least_s: int = 0
    most_s: int | None = None
    required_s: frozenset[int] = frozenset()

    def allows(self, seconds: int) -> bool:
        if self.required_s:
            return seconds in self.required_s
        return self.least_s <= seconds and (self.most_s is None or seconds <= self.most_s)


def lowest_cpm_micros(floor_cpm_micros: int, per_second_micros: int, seconds: int) -> int:
    """The floor of an ad of a dynamic pod: `mincpmpersec` times its seconds, never below the imp's own.

    Example:
    >>> lowest_cpm_micros(1_000_000, 100_000, 30)
    3000000
    """
    return max(floor_cpm_micros, per_second_micros * seconds)


def fill(sections: Sequence[Section], most_steps: int = MOST_STEPS) -> Filling:
    """The best filling. What is fixed stays, whatever it costs. Deterministic: among equals the first ads as given."""
    return _Search(sections, most_steps).best()


@dataclass(slots=True)
class _Search:
    sections: Sequence[Section]
    most_steps: int
    _pruned: list[list[PodAd]] = field(init=False)
    _tables: list[np.ndarray] = field(init=False)
    _unit: int = field(init=False)
    _later: list[int] = field(init=False)
    _room_later: list[int] = field(init=False)
    _groups: list[tuple[int, str | None]] = field(init=False)
    _steps: int = field(init=False, default=0)
    _revenue: int = field(init=False, default=-1)
    _found: Filling = field(init=False, default=Filling((), (), 0))
    _placings: list[int] = field(init=False, default_factory=lambda: [_MOST_PLACINGS])

    def best(self) -> Filling:
        self._pruned = _pruned(self.sections)
        durations = [a.duration_s for ads in self._pruned for a in ads]
        left = max((s.seconds_left for s in self.sections), default=0)
        self._unit = max(1, math.gcd(*durations) if durations else 1, -(-left // _MOST_UNITS))
        self._tables = [self._table(s, ads) for s, ads in zip(self.sections, self._pruned, strict=True)]
        self._groups = _grouped([ad for ads in self._pruned for ad in ads])
        self._later = [0] * (len(self.sections) + 1)
        self._room_later = list(self._later)
        for i in range(len(self.sections) - 1, -1, -1):
            section = self.sections[i]
            best = self._bound(i, 0, max(section.ads_left, 0), max(section.seconds_left, 0))
            self._later[i] = self._later[i + 1] + best
            self._room_later[i] = self._room_later[i + 1] + max(section.ads_left, 0)
        chosen: list[list[PodAd]] = [list(s.fixed) for s in self.sections]
        taken: Counter[str] = Counter()
        for ads in chosen:
            for ad in ads:
                taken.update(ad.apart_in_pod)
        self._keep(chosen, 0)
        if self._revenue < 0:  # what is fixed can't be arranged: it is shown as it came
            self._found = Filling(tuple(map(tuple, chosen)), tuple(range(len(self.sections))), 0)
        if any(ad.apart_if_adjacent or ad.place for ads in self._pruned for ad in ads):
            self._take_dearest(chosen)
        self._look(0, 0, chosen, taken, 0)
        exact = self._steps <= self.most_steps and self._placings[0] >= 0
        return Filling(self._found.sections, self._found.order, self._found.cpm_micros, exact)

    def _take_dearest(self, fixed: list[list[PodAd]]) -> None:
        """One ad after the other, as long as the order allows it: what the search must at least give."""
        chosen = [list(ads) for ads in fixed]
        revenue = 0
        dearest = sorted(((i, ad) for i, ads in enumerate(self._pruned) for ad in ads), key=lambda x: -x[1].cpm_micros)
        for i, ad in dearest:
            mine, others = chosen[i], [a for ads in chosen for a in ads]
            section = self.sections[i]
            if len(mine) >= section.most_ads or sum(a.duration_s for a in mine) + ad.duration_s > section.seconds:
                continue
            if any(ad.apart_in_pod & a.apart_in_pod or ad.apart_if_adjacent & a.apart_if_adjacent for a in others):
                continue  # two of one separator may stand apart, but that is for the search to find out
            mine.append(ad)
            revenue += ad.cpm_micros
            before = self._revenue
            self._keep(chosen, revenue)
            if self._revenue == before:
                mine.remove(ad)
                revenue -= ad.cpm_micros

    def _table(self, section: Section, ads: list[PodAd]) -> np.ndarray:
        """[first ad][ads left][units left] -> highest revenue, separators ignored."""
        units, most = max(section.seconds_left, 0) // self._unit, max(section.ads_left, 0)
        if most == 1:  # every ad that was not left out fits, so seconds do not matter: the dearest from each on
            cpms = np.array([a.cpm_micros for a in ads], np.int64)
            single = np.zeros((len(ads) + 1, 2, 1), np.int64)
            single[: len(ads), 1, 0] = np.maximum.accumulate(cpms[::-1])[::-1]
            return single
        table = np.zeros((len(ads) + 1, most + 1, units + 1), np.int64)
        for i in range(len(ads) - 1, -1, -1):
            table[i] = table[i + 1]
            need = ads[i].duration_s // self._unit  # rounded down where units are coarse: still an upper bound
            if most and need <= units:
                with_it = table[i + 1, :-1, : units + 1 - need] + ads[i].cpm_micros
                np.maximum(table[i, 1:, need:], with_it, out=table[i, 1:, need:])
        return table

    def _bound(self, section: int, first: int, ads_left: int, seconds_left: int) -> int:
        table = self._tables[section]
        return int(table[first, ads_left, min(seconds_left // self._unit, table.shape[2] - 1)])

    def _look(self, at: int, first: int, chosen: list[list[PodAd]], taken: Counter[str], revenue: int) -> None:
        """Goes on from ad `first` of section `at`, keeping the best that it meets."""
        while at < len(self.sections):
            self._steps += 1
            if self._steps > self.most_steps:
                return
            section, mine = self.sections[at], chosen[at]
            seconds_left = section.seconds - sum(a.duration_s for a in mine)
            ads_left = section.most_ads - len(mine)
            if ads_left <= 0 or seconds_left <= 0 or first >= len(self._pruned[at]):
                at, first = at + 1, 0
                continue
            bound = self._bound(at, first, ads_left, seconds_left) + self._later[at + 1]
            if revenue + bound <= self._revenue:
                return
            if revenue + self._apart_bound(ads_left + self._room_later[at + 1], taken) <= self._revenue:
                return
            ad = self._pruned[at][first]
            first += 1
            if ad.duration_s <= seconds_left and not any(taken[s] for s in ad.apart_in_pod):
                mine.append(ad)
                taken.update(ad.apart_in_pod)
                self._look(at, first, chosen, taken, revenue + ad.cpm_micros)
                taken.subtract(ad.apart_in_pod)
                mine.pop()
        self._keep(chosen, revenue)

    def _keep(self, chosen: list[list[PodAd]], revenue: int) -> None:
        """Remembers a set that is better than the best so far, if it can be shown in some order."""
        if revenue > self._revenue and (found := arranged(self.sections, chosen, self._placings)) is not None:
            self._revenue = revenue
            self._found = Filling(*found, cpm_micros=revenue)

    def _apart_bound(self, ads_left: int, taken: Counter[str]) -> int:
        """The dearest ads of groups that are not taken yet, one of each."""
        total = 0
        for cpm_micros, separator in self._groups:
            if ads_left <= 0:
                break
            if separator is None or not taken[separator]:
                total += cpm_micros
                ads_left -= 1
        return total


def _grouped(ads: Sequence[PodAd]) -> list[tuple[int, str | None]]:
    """(highest revenue, separator) of groups of ads that all share it, dearest first; None for an ad on its own."""
    meetings = Counter(s for ad in ads for s in ad.apart_in_pod)
    dearest: dict[str, int] = {}
    alone = []
    for ad in ads:
        separator = max(ad.apart_in_pod, key=lambda s: (meetings[s], s), default=None)
        if separator is None:
            alone.append((ad.cpm_micros, None))
        else:
            dearest[separator] = max(dearest.get(separator, 0), ad.cpm_micros)
    return sorted([*alone, *((cpm, s) for s, cpm in dearest.items())], key=lambda group: -group[0])


def arranged(
    sections: Sequence[Section], chosen: Sequence[Sequence[PodAd]], budget: list[int]
) -> tuple[tuple[tuple[PodAd, ...], ...], tuple[int, ...]] | None:
    """(ads of each section in playing order, order of the sections); None when separators or places allow none.

    Sections keep the order in which they are given, but for those whose place is first or last; ads stand by revenue
    where nothing speaks against it. `budget` is how many places may still be tried, over all calls.
    """
    order = tuple(sorted(range(len(sections)), key=lambda i: _SECTION_RANK[sections[i].place]))
    line = [(i, ad) for i in order for ad in sorted(chosen[i], key=lambda a: -a.cpm_micros)]
    total = len(line)
    if not any(ad.apart_if_adjacent or ad.place for _, ad in line):
        placed: list[PodAd] | None = [ad for _, ad in line]
    else:
        placed = _placed(line, [], total, budget) if _may_stand_apart(line) else None
    if placed is None:
        return None
    ads = iter(placed)
    by_section = {i: tuple(next(ads) for _ in chosen[i]) for i in order}
    return tuple(by_section[i] for i in range(len(sections))), order


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
    budget[0] -= 1
    if budget[0] < 0:
        return None
    at = len(line)
    section = left[0][0]
    for k, (of, ad) in enumerate(left):
        if of != section:
            break
        if line and line[-1].apart_if_adjacent & ad.apart_if_adjacent:
            continue
        is_first, is_last = at == 0, at == total - 1
        wanted = {
            Place.ANY: True,
            Place.FIRST: is_first,
            Place.LAST: is_last,
            Place.FIRST_OR_LAST: is_first or is_last,
        }
        if not wanted[ad.place]:
            continue
        found = _placed(left[:k] + left[k + 1 :], [*line, ad], total, budget)
        if found is not None:
            return found
    return None


def _pruned(sections: Sequence[Section]) -> list[list[PodAd]]:
    """Each section's ads that can be in a best set, those of the highest revenue per second first."""
    meetings: Counter[str] = Counter()
    for section in sections:
        for ad in (*section.ads, *section.fixed):
            meetings.update(ad.apart_in_pod | ad.apart_if_adjacent)
    found = []
    for section in sections:
        alike: defaultdict[tuple[object, ...], int] = defaultdict(int)
        kept = []
        for ad in sorted(section.ads, key=lambda a: -a.cpm_micros):
            if ad.cpm_micros <= 0 or ad.duration_s <= 0 or ad.duration_s > section.seconds_left:
                continue
            shared = _met(ad.apart_in_pod, meetings), _met(ad.apart_if_adjacent, meetings)
            kind = (ad.duration_s if section.ads_left > 1 else 0, ad.place, *shared)
            room = 1 if shared[0] else section.ads_left  # of ads that exclude each other one is enough
            if alike[kind] < room:
                alike[kind] += 1
                kept.append(ad)
        if section.ads_left > 1:
            kept.sort(key=lambda a: -a.cpm_micros / a.duration_s)
        found.append(kept)
    return found


def _met(separators: Collection[str], meetings: Counter[str]) -> frozenset[str]:
    """Those that another ad has as well."""
    return frozenset(s for s in separators if meetings[s] > 1)
