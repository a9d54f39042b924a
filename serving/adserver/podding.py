"""Ad pods in the flow: the imps of one pod are settled together, so that the break as a whole earns most.

The set is chosen by `auction/pods.py`; every winner is written down on its own (markup, budget, caps, registry), and
one that is refused makes room for the next best set around those that are sold already.
Source: OpenRTB 2.6 §7.6 (structured, dynamic and hybrid pods), §3.2.7 Video (`podid`, `poddur`, `maxseq`,
`mincpmpersec`, `slotinpod`).
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from schemas.decisions import Degraded, Outcome
from schemas.money import to_micros
from serving.adserver.auction.contest import Contest, shown_as
from serving.adserver.auction.pod_order import Apart, Place, PodAd, Section
from serving.adserver.auction.pods import MOST_STEPS, Filling, fill, lowest_cpm_micros
from serving.adserver.auction.rates import Rates
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import Decision
from serving.adserver.markup.vast_parse import seconds
from serving.adserver.openrtb.impressions import Audio, Imp, Video
from serving.adserver.store import Commit

#: Ads that one dynamic imp is given at most, whatever it asks for, and those of all imps of a pod.
MOST_ADS, _MOST_IN_POD = 24, 64
#: Seconds before the answer has to leave from which the dearest ads are taken without a search for a better set.
_SHORT_S = 0.012
_SHORTEST_S = 5
#: Sets that are tried when winners are refused.
_MOST_ROUNDS = 8
#: A deal of a higher priority outweighs any bid of a lower one.
_PRIORITY_MICROS = 10**13
_DURATION = re.compile(r"<(?:\w++:)?Duration>\s*+(?:<!\[CDATA\[)?+\s*+([\d:.]{8,12})")


@dataclass(frozen=True, slots=True)
class Steps:
    """What the flow does with an ad of a pod, as functions of the decider's.

    `prepare` takes out who may not win now; `attempt` writes a winner down, setting its outcome when it is refused;
    `house` shows a house ad where nothing was sold.
    """

    prepare: Callable[[Contest], None]
    attempt: Callable[[Candidate, Contest], Awaitable[Commit | None]]
    house: Callable[[Contest], Awaitable[None]]


def timed_part(imp: Imp) -> Video | Audio | None:
    return imp.video or imp.audio


def groups(contests: Sequence[Contest]) -> Iterator[list[Contest]]:
    """The contests in order, those of one pod together: a group of one without a pod is an imp on its own."""
    pods: dict[object, list[Contest]] = {}
    for contest in contests:
        part = timed_part(contest.opportunity.imp)
        name = part.podid if part is not None else None
        pods.setdefault(("pod", name) if name is not None else id(contest), []).append(contest)
    yield from pods.values()


def is_pod(group: Sequence[Contest]) -> bool:
    return len(group) > 1 or is_dynamic(group[0].opportunity.imp)


def is_dynamic(imp: Imp) -> bool:
    """Whether an imp is filled with several ads that share its seconds."""
    part = timed_part(imp)
    return part is not None and bool(part.poddur)


class PageLabels:
    """Exclusion labels that a request's imps show already: no later imp of the page shows another ad of one."""

    def __init__(self, apart: Apart) -> None:
        self._applies = apart.label != "none"
        self._shown: set[str] = set()

    def keep_apart(self, group: Sequence[Contest]) -> None:
        """Takes out rivals of what earlier imps show."""
        if self._shown:
            for contest in group:
                for row, candidate in contest.internal:
                    if candidate.runs and not self._shown.isdisjoint(row.exclusion_labels):
                        candidate.outcome = Outcome.POD_SEPARATION

    def note(self, decisions: Sequence[Decision]) -> None:
        """Remembers the labels of winners."""
        for decision in decisions if self._applies else ():
            if decision.winner is not None and decision.winner.row is not None:
                self._shown |= decision.winner.row.exclusion_labels


@dataclass(slots=True)
class _Slot:
    """One imp of a pod: its candidates as ads, and what was sold of it."""

    contest: Contest
    rates: Rates
    apart: Apart
    most_ads: int
    sold: list[tuple[PodAd, Contest]] = field(default_factory=list)
    _ads: dict[int, PodAd] = field(default_factory=dict)

    def section(self) -> Section:
        imp = self.contest.opportunity.imp
        part = timed_part(imp)
        fixed = [ad for ad, _ in self.sold]
        running = {
            k: c
            for k, c in enumerate(self.contest.decision.candidates)
            if c.runs and (c.bid_cpm_micros > 0 or c.under_deal)
        }
        ads = [ad for k, c in running.items() if (ad := self._ad(k, c)) is not None]
        if part is None:
            return Section([], 0, 0)
        place = _place(part.slotinpod)
        if not part.poddur:
            longest = max([a.duration_s for a in (*ads, *fixed)], default=0)
            return Section(ads, longest, 1, place, fixed)
        shortest = min(part.rqddurs, default=0) or part.minduration or _SHORTEST_S
        most = min(part.maxseq or part.poddur // shortest, self.most_ads)
        return Section(ads, part.poddur, most, place, fixed)

    def candidate(self, ad: PodAd) -> Candidate:
        return self.contest.decision.candidates[ad.key]

    def _ad(self, key: int, candidate: Candidate) -> PodAd | None:
        """A candidate as an ad of the pod; None, with its outcome, when it can't be one."""
        known = self._ads.get(key)
        if known is not None:
            return known
        part = timed_part(self.contest.opportunity.imp)
        if part is None or shown_as(candidate) not in ("video", "audio"):
            return None
        duration_s = _duration_s(candidate) or (0 if part.poddur else part.maxduration or 1)
        if not duration_s:
            candidate.outcome = Outcome.POD_DURATION
            return None
        if part.poddur and not candidate.under_deal and candidate.pricing != "guaranteed":
            floor = self.contest.opportunity.floor_cpm_micros or 0
            per_second = self.rates.floor_to_ours(
                to_micros(repr(part.mincpmpersec or 0.0)), self.contest.opportunity.imp.bidfloorcur
            )
            if per_second is None or candidate.bid_cpm_micros < lowest_cpm_micros(floor, per_second, duration_s):
                candidate.outcome = Outcome.BELOW_FLOOR
                return None
        in_pod, adjacent = separators(candidate, self.apart)
        said = candidate.bid.slotinpod if candidate.bid is not None and part.poddur else None
        weight = max(candidate.bid_cpm_micros, 1) + candidate.priority * _PRIORITY_MICROS
        ad = PodAd(key, duration_s, weight, in_pod, adjacent, _place(said))
        self._ads[key] = ad
        return ad


def separators(candidate: Candidate, apart: Apart) -> tuple[frozenset[str], frozenset[str]]:
    """What a candidate shares with its rivals: (kept apart in the pod, kept apart next to each other).

    Advertisers are told apart by domain, since a DSP may bring the same one as a campaign of ours.
    """
    row, bid = candidate.row, candidate.bid
    in_pod, adjacent = {f"creative {candidate.creative_id}"}, set()
    domains = [row.advertiser.domain] if row is not None else bid.adomain if bid is not None else []
    advertisers = [f"advertiser {d.lower()}" for d in domains if d] or [f"advertiser {candidate.advertiser_id}"]
    labels: list[str] = []
    if row is not None:
        labels = [f"label {x}" for x in row.exclusion_labels]
    for rule, names in ((apart.advertiser, advertisers), (apart.label, labels)):
        if rule == "pod":
            in_pod.update(names)
        elif rule == "adjacent":
            adjacent.update(names)
    return frozenset(in_pod), frozenset(adjacent)


async def settle(
    group: Sequence[Contest], rates: Rates, apart: Apart, steps: Steps, clock: Callable[[], float] = time.monotonic
) -> list[Decision]:
    """Decisions of a pod in playing order: at least one per imp, one for each ad that is shown."""
    most_ads = _most_ads(group)
    slots = [_Slot(contest, rates, apart, most_ads) for contest in group]
    for contest in group:
        steps.prepare(contest)
    for _ in range(_MOST_ROUNDS):
        left_s = group[0].answer_by_s - clock()
        filling = fill([s.section() for s in slots], MOST_STEPS if left_s > _SHORT_S else 0)
        again, stopped = await _sell(slots, filling, steps)
        if stopped or not again:
            break
    return await _decisions(slots, fill([_without_ads(s.section()) for s in slots]), steps)


def _most_ads(group: Sequence[Contest]) -> int:
    """Ads that each dynamic imp of a pod is given at most: they share what the pod has beside its structured ones."""
    dynamic = sum(is_dynamic(contest.opportunity.imp) for contest in group)
    return max(1, min(MOST_ADS, (_MOST_IN_POD - len(group) + dynamic) // max(dynamic, 1)))


async def _sell(slots: Sequence[_Slot], filling: Filling, steps: Steps) -> tuple[bool, bool]:
    """Writes down the chosen ads that are not sold yet. (whether one was refused, whether nothing can be sold)."""
    refused = False
    for i in filling.order:
        slot = slots[i]
        sold = {id(ad) for ad, _ in slot.sold}
        for ad in filling.sections[i]:
            if id(ad) in sold:
                continue
            candidate = slot.candidate(ad)
            own = _own_contest(slot, candidate)
            steps.prepare(slot.contest)  # caps, with what was won in the meantime
            committed = await steps.attempt(candidate, own) if candidate.runs else None
            if committed is Commit.DONE:
                slot.sold.append((ad, own))
                continue
            if committed is Commit.NOT_REGISTERED:
                candidate.outcome = Outcome.INTERNAL_ERROR
                for unsold in slots:
                    if not unsold.sold:
                        unsold.contest.decision.reasons.add(Degraded.REGISTRY_UNAVAILABLE)
                return refused, True
            refused = True
            if candidate.runs:
                candidate.outcome = Outcome.INTERNAL_ERROR
    return refused, False


def _own_contest(slot: _Slot, candidate: Candidate) -> Contest:
    """The slot's contest for its first ad, for each other one a copy with a decision of its own."""
    if not slot.sold:
        return slot.contest
    own, first = copy.copy(slot.contest), slot.contest.decision
    own.decision = Decision(first.opportunity, [candidate])
    own.decision.model_version, own.decision.feature_status = first.model_version, first.feature_status
    return own


async def _decisions(slots: Sequence[_Slot], filling: Filling, steps: Steps) -> list[Decision]:
    """Decisions in playing order, each ad's place in its `sequence`; house ads where an imp sold nothing."""
    found: list[Decision] = []
    shown = [c for slot in slots for ad, own in slot.sold if (c := own.decision.winner) is not None]
    creatives = {c.creative_id for c in shown}
    for i in filling.order:
        slot = slots[i]
        first = slot.contest.decision
        _mark_rivals(slot, shown)
        others = {id(own.decision.winner) for _, own in slot.sold[1:]}
        first.candidates = [c for c in first.candidates if id(c) not in others]  # each ad has one entry in the log
        by_ad = {id(ad): own.decision for ad, own in slot.sold}
        in_order = [by_ad[id(ad)] for ad in filling.sections[i]]
        if not in_order:
            slot.contest.house = tuple(r for r in slot.contest.house if r.creative.id not in creatives)
            await steps.house(slot.contest)
            creatives |= {c.creative_id for c in (first.winner,) if c is not None}
            in_order = [first]
        found += in_order
    for place, decision in enumerate([d for d in found if d.winner is not None], 1):
        decision.sequence = place
    return found


def _mark_rivals(slot: _Slot, shown: Sequence[Candidate]) -> None:
    """Says of those that could have won that they were kept apart from a winner."""
    taken = {s for c in shown for s in separators(c, slot.apart)[0]}
    for candidate in slot.contest.decision.candidates:
        if candidate.runs and not taken.isdisjoint(separators(candidate, slot.apart)[0]):
            candidate.outcome = Outcome.POD_SEPARATION


def _place(said: int | None) -> Place:
    """`slotinpod`; what is no code of the list says nothing."""
    return Place(said) if said is not None and -1 <= said <= 2 else Place.ANY


def _without_ads(section: Section) -> Section:
    return Section([], section.seconds, section.most_ads, section.place, section.fixed)


def _duration_s(candidate: Candidate) -> int:
    """Seconds that an ad lasts, rounded up; 0 when nothing says so."""
    if candidate.duration_s or candidate.bid is None:
        return candidate.duration_s or 0
    said = _DURATION.search(candidate.bid.adm)
    found = seconds(said.group(1)) if said is not None else None
    return -int(-found // 1) if found else 0
