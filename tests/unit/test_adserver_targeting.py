"""The targeting index against the plain reading of a line item's lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import Daypart, LineItem, Targeting
from schemas.errors import ConfigError
from serving.adserver.targeting import Audience, TargetingIndex, hour_of_week, wanted_hours

VALUES = st.sampled_from(["a", "b", "c"])
LISTS = st.lists(VALUES, max_size=2)
SINGLE = {
    "placement_id": "placement_ids",
    "country": "countries",
    "region": "regions",
    "city": "cities",
    "device_type": "device_types",
    "platform": "platforms",
    "category": "content_categories",
    "content_id": "content_ids",
    "genre": "genres",
}
DAYPARTS = st.lists(
    st.builds(
        lambda days, hours: Daypart(days, min(hours), max(hours) + 1),
        st.lists(st.integers(1, 7), min_size=1, max_size=3),
        st.tuples(st.integers(0, 23), st.integers(0, 23)),
    ),
    max_size=2,
)
TARGETINGS = st.builds(
    Targeting,
    **dict.fromkeys(SINGLE.values(), LISTS),
    segments=LISTS,
    deal_ids=LISTS,
    dayparts=DAYPARTS,
    daypart_clock=st.sampled_from(["utc", "viewer"]),
)
SAID = st.one_of(st.none(), VALUES, st.just("nobody asked for this"))
AUDIENCES = st.builds(
    Audience,
    placement_id=VALUES,
    **dict.fromkeys([name for name in SINGLE if name != "placement_id"], SAID),
    segments=st.frozensets(VALUES, max_size=3),
    deal_ids=st.frozensets(VALUES, max_size=2),
    utc_hour=st.integers(0, 167),
    viewer_hour=st.integers(0, 167),
)


def _wants(targeting: Targeting, audience: Audience) -> bool:
    for name, lists in SINGLE.items():
        values = getattr(targeting, lists)
        if values and getattr(audience, name) not in values:
            return False
    for name in ("segments", "deal_ids"):
        values = getattr(targeting, name)
        if values and not set(values) & getattr(audience, name):
            return False
    hour = audience.utc_hour if targeting.daypart_clock == "utc" else audience.viewer_hour
    day, of_day = hour // 24 + 1, hour % 24
    return not targeting.dayparts or any(
        day in part.days and part.from_hour <= of_day < part.to_hour for part in targeting.dayparts
    )


@settings(max_examples=120, deadline=None)
@given(targetings=st.lists(TARGETINGS, max_size=12), audience=AUDIENCES)
def test_index_finds_what_the_lists_say(targetings: list[Targeting], audience: Audience) -> None:
    index = TargetingIndex([LineItem(f"li-{i}", "c", "cpm", 1, t) for i, t in enumerate(targetings)])
    expected = tuple(i for i, t in enumerate(targetings) if _wants(t, audience))
    everything = index.bits(range(len(targetings)))
    assert index.find(audience, everything) == expected
    assert index.find(index.reduced(audience), everything) == expected, "what nobody asks for changes nothing"
    even = index.bits(range(0, len(targetings), 2))
    assert index.find(audience, even) == tuple(i for i in expected if i % 2 == 0)


def test_hours_are_counted_from_monday_where_the_clock_is() -> None:
    monday_noon_ms = 1_767_614_400_000
    assert hour_of_week(monday_noon_ms) == 12
    assert hour_of_week(monday_noon_ms, -13 * 60) == 167, "there it is still Sunday"
    assert hour_of_week(monday_noon_ms, 330) == 17


@pytest.mark.parametrize(
    "wrong",
    [
        {"dayparts": [Daypart([8])]},
        {"dayparts": [Daypart([])]},
        {"dayparts": [Daypart([1], 5, 5)]},
        {"dayparts": [Daypart([1], 0, 25)]},
        {"daypart_clock": "mine"},
    ],
)
def test_dayparts_that_can_not_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        wanted_hours(Targeting(**wrong))
