"""Which ads fill a break: the set with the highest revenue that fits, in an order that may be shown. Pure rules.

A pod has sections: a structured imp is a section of one ad, a dynamic imp one of several that share its seconds.
Ads carry separators (creative, advertiser, exclusion labels); two with the same one are kept apart: not in one pod, or
only not next to each other.

How: for each section a table of the best revenue by first ad, ads left and seconds left (dynamic programming over
seconds, divided by their greatest common divisor), which knows nothing of separators; beside it the sum of the dearest
ads of which no two share a separator, which knows nothing of seconds. A depth-first search over the ads takes the
lower of the two as its upper bound and checks the separators: exact. It begins with what taking the dearest first
gives, by price or by price per second, and never ends with less. Ads that can't be in a best set are left out first: of
those with the same seconds and separators, and of those with separators of their own, only as many as fit.

What one filling costs is bounded, since requests choose seconds, slots and buyers: a few milliseconds. The search looks
at little more than the best set when separators seldom meet, and at 2^ads sets at worst, so it ends after `most_steps`
with the best that it has seen; of the ads the `_MOST_LOOKED_AT` dearest are looked at; tables have `_MOST_CELLS`, with
coarser seconds if need be, which makes their bound weaker and never wrong.
Source: OpenRTB 2.6 §7.6 (pod bidding: structured, dynamic, hybrid), Video `maxseq`, `poddur`, `rqddurs`,
`mincpmpersec`, `slotinpod`; Martello and Toth, "Knapsack Problems" (1990), for the bound.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.adserver.auction.pod_order import PodAd, Section, arranged

MOST_STEPS = 2_000
_MOST_PLACINGS = 3_000
#: Ads of all sections that are looked at, and of each one at least.
_MOST_LOOKED_AT, _LEAST_LOOKED_AT = 512, 36
#: Cells of all tables: first ad, ads left, units of seconds left.
_MOST_CELLS = 200_000


@dataclass(frozen=True, slots=True)
class Filling:
    """Ads of each section in playing order, and the order of the sections. `exact`: nothing better was overlooked."""

    sections: tuple[tuple[PodAd, ...], ...]
    order: tuple[int, ...]
    cpm_micros: int
    exact: bool = True


def lowest_cpm_micros(floor_cpm_micros: int, per_second_micros: int, seconds: int) -> int:
    """The floor of an ad of a dynamic pod: `mincpmpersec` times its seconds, never below the imp's own.

    Example:
    >>> lowest_cpm_micros(1_000_000, 100_000, 30)
    3000000
    """
    return max(floor_cpm_micros, per_second_micros * seconds)


def fill(sections: Sequence[Section], most_steps: int = MOST_STEPS) -> Filling:
    """The best filling. What is fixed stays, whatever it costs. Deterministic: among equals the first ads as given.
    With `most_steps` 0 the dearest are taken first, and that is it: for whom time is short.
    """
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
        self._pruned, whole = _pruned(self.sections)
        chosen: list[list[PodAd]] = [list(s.fixed) for s in self.sections]
        self._keep(chosen, 0)
        if self._revenue < 0:  # what is fixed can't be arranged: it is shown as it came
            self._found = Filling(tuple(map(tuple, chosen)), tuple(range(len(self.sections))), 0)
        self._take_first(chosen, lambda ad: ad.cpm_micros)
        if any(section.ads_left > 1 for section in self.sections):
            self._take_first(chosen, lambda ad: ad.cpm_micros / ad.duration_s)
        if self.most_steps:
            self._search(chosen)
        exact = whole and 0 < self._steps <= self.most_steps and self._placings[0] >= 0
        return Filling(self._found.sections, self._found.order, self._found.cpm_micros, exact)

    def _take_first(self, fixed: list[list[PodAd]], worth: Callable[[PodAd], float]) -> None:
        """One ad after the other, as long as the order allows it: what the search must at least give."""
        chosen = [list(ads) for ads in fixed]
        seconds_left = [section.seconds_left for section in self.sections]
        line = [ad for ads in chosen for ad in ads]
        taken = {s for ad in line for s in ad.apart_in_pod}
        # two of one separator may stand apart, but that is for the search to find out
        neighbours = {s for ad in line for s in ad.apart_if_adjacent}
        any_order = not any(ad.apart_if_adjacent or ad.place for ads in (*chosen, *self._pruned) for ad in ads)
        revenue, found = 0, None
        for i, ad in sorted(((i, ad) for i, ads in enumerate(self._pruned) for ad in ads), key=lambda x: -worth(x[1])):
            if len(chosen[i]) >= self.sections[i].most_ads or ad.duration_s > seconds_left[i]:
                continue
            if not (taken.isdisjoint(ad.apart_in_pod) and neighbours.isdisjoint(ad.apart_if_adjacent)):
                continue
            chosen[i].append(ad)
            if not any_order:
                found_now = arranged(self.sections, chosen, self._placings)
                if found_now is None:
                    chosen[i].pop()
                    continue
                found = found_now
            revenue += ad.cpm_micros
            seconds_left[i] -= ad.duration_s
            taken |= ad.apart_in_pod
            neighbours |= ad.apart_if_adjacent
        if found is None:
            self._keep(chosen, revenue)
        elif revenue > self._revenue:
            self._revenue, self._found = revenue, Filling(*found, cpm_micros=revenue)

    def _search(self, chosen: list[list[PodAd]]) -> None:
        """Goes through the sets, with tables that say what each way can still bring."""
        rooms = [_room_s(section, ads) for section, ads in zip(self.sections, self._pruned, strict=True)]
        durations = [a.duration_s for ads in self._pruned for a in ads]
        unit = math.gcd(*durations) or 1
        cells = sum(
            (len(ads) + 1) * (section.ads_left + 1) * (room // unit + 1)
            for section, ads, room in zip(self.sections, self._pruned, rooms, strict=True)
            if section.ads_left > 1
        )
        self._unit = unit * max(1, -(-cells // _MOST_CELLS))
        self._tables = [
            self._table(section, ads, room)
            for section, ads, room in zip(self.sections, self._pruned, rooms, strict=True)
        ]
        self._groups = _grouped([ad for ads in self._pruned for ad in ads])
        self._later = [0] * (len(self.sections) + 1)
        self._room_later = list(self._later)
        for i in range(len(self.sections) - 1, -1, -1):
            section = self.sections[i]
            best = self._bound(i, 0, max(section.ads_left, 0), max(section.seconds_left, 0))
            self._later[i] = self._later[i + 1] + best
            self._room_later[i] = self._room_later[i + 1] + max(section.ads_left, 0)
        taken: Counter[str] = Counter()
        for ads in chosen:
            for ad in ads:
                taken.update(ad.apart_in_pod)
        self._look(0, 0, chosen, taken, 0)

    def _table(self, section: Section, ads: list[PodAd], room_s: int) -> np.ndarray:
        """[first ad][ads left][units left] -> highest revenue, separators ignored."""
        units, most = room_s // self._unit, max(section.ads_left, 0)
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
            if self._steps > self.most_steps or self._placings[0] < 0:
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


def _room_s(section: Section, ads: Sequence[PodAd]) -> int:
    """Seconds that a section can use: its own, or those of the longest ads that it has slots for."""
    longest = heapq.nlargest(max(section.ads_left, 0), (ad.duration_s for ad in ads))
    return max(min(section.seconds_left, sum(longest)), 0)


def _pruned(sections: Sequence[Section]) -> tuple[list[list[PodAd]], bool]:
    """(each section's ads that can be in a best set, those of the highest revenue per second first; whether those are
    all). Of many the dearest are kept, by price and by price per second.
    """
    meetings: Counter[str] = Counter()
    for section in sections:
        for ad in (*section.ads, *section.fixed):
            meetings.update(ad.apart_in_pod | ad.apart_if_adjacent)
    most = max(_LEAST_LOOKED_AT, _MOST_LOOKED_AT // max(len(sections), 1))
    found, whole = [], True
    for section in sections:
        fitting = [a for a in section.ads if a.cpm_micros > 0 and 0 < a.duration_s <= section.seconds_left]
        alike: defaultdict[tuple[object, ...], int] = defaultdict(int)
        fitting.sort(key=lambda a: -a.cpm_micros)
        several = section.ads_left > 1
        kept = _unlike(fitting, section, meetings, alike, most // 2 if several else most)
        if several:
            names = {id(ad) for ad in kept}
            rest = sorted((a for a in fitting if id(a) not in names), key=lambda a: -a.cpm_micros / a.duration_s)
            kept += _unlike(rest, section, meetings, alike, most - len(kept))
            kept.sort(key=lambda a: -a.cpm_micros / a.duration_s)
        whole = whole and len(kept) < most
        found.append(kept)
    return found, whole


def _unlike(
    ads: Sequence[PodAd],
    section: Section,
    meetings: Counter[str],
    alike: defaultdict[tuple[object, ...], int],
    most: int,
) -> list[PodAd]:
    """The first of those that are alike, as many as a set could hold, and `most` in all. `alike` counts them."""
    kept: list[PodAd] = []
    for ad in ads:
        if len(kept) >= most:
            break
        shared = _met(ad.apart_in_pod, meetings), _met(ad.apart_if_adjacent, meetings)
        kind = (ad.duration_s if section.ads_left > 1 else 0, ad.place, *shared)
        room = 1 if shared[0] else section.ads_left  # of ads that exclude each other one is enough
        if alike[kind] < room:
            alike[kind] += 1
            kept.append(ad)
    return kept


def _met(separators: Collection[str], meetings: Counter[str]) -> frozenset[str]:
    """Those that another ad has as well."""
    return frozenset(s for s in separators if meetings[s] > 1)
