"""Pods: the best set is the one that trying every set and order finds; separators, places and durations hold."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise, permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.adserver.auction import pods as pods_module
from serving.adserver.auction.pod_order import Place, PodAd, Section
from serving.adserver.auction.pods import fill, lowest_cpm_micros

SEPARATORS = st.frozensets(st.sampled_from("abcd"), max_size=2)


@st.composite
def pods(draw: st.DrawFn, most_ads: int = 7) -> list[Section]:
    """Small pods of up to three sections; keys count through all of them."""
    sections = []
    key = 0
    for _ in range(draw(st.integers(1, 3))):
        ads = []
        for _ in range(draw(st.integers(0, most_ads - key))):
            key += 1
            ads.append(
                PodAd(
                    key,
                    draw(st.sampled_from([5, 6, 10, 15, 30])),
                    draw(st.integers(1, 9)),
                    draw(SEPARATORS),
                    draw(SEPARATORS),
                    draw(st.sampled_from([Place.ANY, Place.ANY, Place.FIRST, Place.LAST])),
                )
            )
        place = draw(st.sampled_from([Place.ANY, Place.FIRST, Place.LAST]))
        sections.append(Section(ads, draw(st.sampled_from([15, 31, 60])), draw(st.integers(1, 3)), place))
    return sections


def _in_line(sections: list[Section], chosen: tuple[tuple[PodAd, ...], ...], order: tuple[int, ...]) -> bool:
    """Whether what is chosen may be shown in this order."""
    line = [ad for i in order for ad in chosen[i]]
    taken = Counter(s for ad in line for s in ad.apart_in_pod)
    places = {Place.FIRST: 0, Place.LAST: len(line) - 1}
    return (
        all(count == 1 for count in taken.values())
        and not any(a.apart_if_adjacent & b.apart_if_adjacent for a, b in pairwise(line))
        and all(places.get(ad.place, at) == at for at, ad in enumerate(line))
        and all(
            len(ads) <= s.most_ads and sum(a.duration_s for a in ads) <= s.seconds
            for s, ads in zip(sections, chosen, strict=True)
        )
    )


def _order(sections: list[Section]) -> tuple[int, ...]:
    rank = {Place.FIRST: 0, Place.ANY: 1, Place.LAST: 2}
    return tuple(sorted(range(len(sections)), key=lambda i: rank[sections[i].place]))


def _brute_force(sections: list[Section]) -> int:
    order = _order(sections)
    choices = [
        [p for n in range(s.most_ads + 1) for c in combinations(s.ads, n) for p in permutations(c)] for s in sections
    ]
    return max(
        sum(ad.cpm_micros for ads in chosen for ad in ads)
        for chosen in product(*choices)
        if _in_line(sections, chosen, order)
    )


@settings(max_examples=150, deadline=None)
@given(pods())
def test_the_best_filling_is_found(sections: list[Section]) -> None:
    found = fill(sections)
    assert found.exact and found.order == _order(sections)
    assert _in_line(sections, found.sections, found.order)
    assert found.cpm_micros == sum(ad.cpm_micros for ads in found.sections for ad in ads) == _brute_force(sections)


@settings(max_examples=50, deadline=None)
@given(pods(most_ads=12), st.integers(1, 30))
def test_a_search_that_ends_early_still_keeps_every_rule(sections: list[Section], steps: int) -> None:
    found = fill(sections, steps)
    assert _in_line(sections, found.sections, found.order)


@settings(max_examples=100, deadline=None)
@given(pods(), st.data())
def test_what_is_fixed_stays_and_the_rest_is_filled_around_it(sections: list[Section], data: st.DataObject) -> None:
    first = fill(sections)
    kept = [tuple(a for a in ads if a.place is Place.ANY and data.draw(st.booleans())) for ads in first.sections]
    again = [
        Section([a for a in s.ads if a not in fixed], s.seconds, s.most_ads, s.place, fixed)
        for s, fixed in zip(sections, kept, strict=True)
    ]
    found = fill(again)
    assert all(set(fixed) <= set(ads) for fixed, ads in zip(kept, found.sections, strict=True))
    if found.cpm_micros:
        assert _in_line(sections, found.sections, found.order)


def test_many_slots_and_buyers_are_filled_without_trying_them_all() -> None:
    """Eight slots, twelve advertisers with three ads each for every slot: the eight dearest, one each."""
    ads = [
        PodAd(key, 15, 1_000 - key % 12, frozenset({f"advertiser {key % 12}", f"creative {key}"})) for key in range(36)
    ]
    found = fill([Section(ads, 15, 1) for _ in range(8)])
    assert found.exact and found.cpm_micros == sum(1_000 - k for k in range(8))


def test_labels_that_can_never_be_arranged_do_not_take_for_ever() -> None:
    ads = [PodAd(k, 1, 10, frozenset({str(k)}), frozenset({"same"})) for k in range(40)]
    found = fill([Section(ads, 40, 40)])
    assert found.cpm_micros == 10


def _market(section: int, ads: int, advertisers: int) -> list[PodAd]:
    """Ads of one section: creatives of its own, advertisers that all sections share, seconds of 5 to 60."""
    return [
        PodAd(
            section * ads + k,
            5 + (7 * k) % 56,
            1_000 + (k * 7919) % 4_999,
            frozenset({f"creative {section}-{k}", f"advertiser {k % advertisers}"}),
        )
        for k in range(ads)
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 64), st.integers(1, 40), st.sampled_from([15, 60, 3_600, 999_999]), st.integers(1, 24))
def test_no_pod_is_filled_with_less_than_its_dearest(sections: int, ads: int, seconds: int, most: int) -> None:
    pod = [Section(_market(i, ads, 17), seconds, most) for i in range(sections)]
    found, dearest = fill(pod), fill(pod, 0)
    assert _in_line(pod, found.sections, found.order) and _in_line(pod, dearest.sections, dearest.order)
    assert found.cpm_micros >= dearest.cpm_micros > 0


def test_what_a_filling_costs_does_not_follow_what_is_asked_for() -> None:
    """Tables of one day would have 86,400 seconds, 24 ads and 300 buyers: 600 million cells."""
    search = pods_module._Search([Section(_market(0, 300, 300), 86_400, 24)], 10)
    search.best()
    assert sum(table.size for table in search._tables) < 500_000
    assert search._steps <= 11


def test_the_floor_of_an_ad_of_a_dynamic_imp() -> None:
    assert lowest_cpm_micros(5_000_000, 100_000, 30) == 5_000_000
