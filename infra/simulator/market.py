"""The simulated market: publishers, placements, advertisers, campaigns, and how appealing each creative truly is."""

from __future__ import annotations

import random

from schemas.catalog import (
    Advertiser,
    Campaign,
    Catalog,
    Creative,
    FrequencyCap,
    LineItem,
    Placement,
    Publisher,
    Targeting,
)

#: IAB content taxonomy 1.0: arts, food, hobbies, news, sports, technology.
CONTENT_CATEGORIES = ("IAB1", "IAB8", "IAB9", "IAB12", "IAB17", "IAB19")
DEVICE_TYPES = ("ctv", "phone", "tablet", "desktop")
DSP_IDS = ("dsp-a", "dsp-b", "dsp-c")
HOUSE = "house"
HOUSE_LINE = "li-house"
#: A verification and a measurement partner, and which events of every creative they are told of.
PARTNER_EVENTS: dict[str, tuple[str, ...]] = {
    "verifier": ("impression", "viewable", "complete"),
    "measurer": ("impression", "click"),
}
#: Placement that freshness probes use and no simulated user visits.
PROBE_PLACEMENT = "pl-probe"

HOUR_S = 3600
DAY_S = 86_400
DOLLAR = 1_000_000  # micros

_PUBLISHERS = ("Northlight TV", "Kitchen Table", "Matchday", "The Ledger", "Makers", "Bytewise")
_ADVERTISERS = (
    ("Alder Coffee", "IAB8"),
    ("Brightwave Mobile", "IAB19"),
    ("Cobalt Motors", "IAB17"),
    ("Dunes Travel", "IAB1"),
    ("Ember Kitchens", "IAB8"),
    ("Fjord Outdoor", "IAB9"),
    ("Granite Bank", "IAB12"),
    ("Harbor Streaming", "IAB1"),
    ("Iris Games", "IAB9"),
    ("Juniper Sports", "IAB17"),
)
_DURATIONS_S = (15, 15, 30, 6)

#: A campaign's daily budget: about one in four is small enough to run out within a minute of traffic.
_SMALL_BUDGET_DOLLARS = (0.25, 0.9)
_LARGE_BUDGET_DOLLARS = (3.0, 20.0)
_SMALL_BUDGET_SHARE = 0.25
#: An ad paid by the click holds a whole click's price in reserve until its impression expires.
_CLICK_BUDGET_FACTOR = 12

_CAPS: tuple[tuple[FrequencyCap, ...], ...] = (
    (),
    (FrequencyCap("campaign", 4, HOUR_S),),
    (FrequencyCap("campaign", 3, HOUR_S), FrequencyCap("creative", 6, DAY_S)),
    (FrequencyCap("creative", 2, HOUR_S), FrequencyCap("advertiser", 8, DAY_S)),
)


def build_market(rng: random.Random) -> tuple[Catalog, dict[str, float]]:
    """The catalogue, and each creative's true appeal (log-odds added to a click)."""
    publishers, placements = _supply(rng)
    advertisers = [Advertiser(HOUSE, "House", "house.example")]
    campaigns = [Campaign(HOUSE, HOUSE, "House ads", daily_budget_micros=1_000_000 * DOLLAR)]
    line_items = [LineItem(HOUSE_LINE, HOUSE, "house", 0)]
    creatives = [_video("cr-house-v", HOUSE_LINE, 15), _banner("cr-house-b", HOUSE_LINE)]
    appeal = {"cr-house-v": -1.0, "cr-house-b": -1.0}
    for a, (name, category) in enumerate(_ADVERTISERS, 1):
        slug = name.split()[0].lower()
        advertisers.append(Advertiser(f"adv-{a:02d}", name, f"{slug}.example", category))
        for c in range(rng.choice((1, 2, 2, 3))):
            campaign_id = f"cmp-{a:02d}{c + 1}"
            line_id = f"li-{a:02d}{c + 1}"
            line_items.append(_line_item(rng, line_id, campaign_id))
            pricing = line_items[-1].pricing
            campaigns.append(_campaign(rng, campaign_id, f"adv-{a:02d}", f"{name} {c + 1}", pricing))
            for k in range(rng.choice((2, 2, 3))):
                creative_id = f"cr-{a:02d}{c + 1}{k + 1}"
                banner = k == 2
                creatives.append(
                    _banner(creative_id, line_id) if banner else _video(creative_id, line_id, rng.choice(_DURATIONS_S))
                )
                appeal[creative_id] = round(rng.gauss(0.0, 0.9), 4)
    return Catalog(1, "USD", advertisers, campaigns, line_items, creatives, publishers, placements), appeal


def _supply(rng: random.Random) -> tuple[list[Publisher], list[Placement]]:
    publishers, placements = [], []
    for p, (name, category) in enumerate(zip(_PUBLISHERS, CONTENT_CATEGORIES, strict=True), 1):
        slug = name.split()[-1].lower()
        publishers.append(Publisher(f"pub-{p}", name, f"{slug}.example"))
        slots = [("pre", "video"), ("mid", "video")] + ([("side", "banner")] if p % 2 else [])
        for slot, kind in slots:
            placements.append(
                Placement(
                    id=f"pl-{p}-{slot}",
                    publisher_id=f"pub-{p}",
                    format=kind,
                    content_category=category,
                    floor_cpm_micros=rng.choice((0, DOLLAR // 2, DOLLAR)),
                    site_id=f"site-{p}" if p % 2 else None,
                    app_id=None if p % 2 else f"app-{p}",
                    live=category == "IAB17" and slot == "mid",
                )
            )
    placements.append(Placement(PROBE_PLACEMENT, "pub-1", "video", CONTENT_CATEGORIES[0], site_id="site-1"))
    return publishers, placements


def _campaign(rng: random.Random, campaign_id: str, advertiser_id: str, name: str, pricing: str) -> Campaign:
    small = rng.random() < _SMALL_BUDGET_SHARE
    dollars = rng.uniform(*(_SMALL_BUDGET_DOLLARS if small else _LARGE_BUDGET_DOLLARS))
    if pricing == "cpc":
        dollars *= _CLICK_BUDGET_FACTOR
    return Campaign(
        id=campaign_id,
        advertiser_id=advertiser_id,
        name=name,
        daily_budget_micros=round(dollars * 100) * (DOLLAR // 100),
        frequency_caps=list(rng.choice(_CAPS)),
    )


def _line_item(rng: random.Random, line_id: str, campaign_id: str) -> LineItem:
    # most campaigns want a part of the inventory only: that is what gives an auction different winners
    targeting = Targeting(
        countries=["US", "CA"] if rng.random() < 0.2 else [],
        device_types=rng.sample(DEVICE_TYPES, 2) if rng.random() < 0.4 else [],
        content_categories=sorted(rng.sample(CONTENT_CATEGORIES, 2)) if rng.random() < 0.75 else [],
    )
    if rng.random() < 0.35:
        return LineItem(line_id, campaign_id, "cpc", rng.randrange(12, 60) * (DOLLAR // 100), targeting)
    # CPMs with odd micros on purpose: rounding of a single impression's cost must agree everywhere
    return LineItem(line_id, campaign_id, "cpm", rng.randrange(2 * DOLLAR, 9 * DOLLAR), targeting)


def _video(creative_id: str, line_id: str, duration_s: int) -> Creative:
    return Creative(
        id=creative_id,
        line_item_id=line_id,
        format="video",
        landing_url=f"https://landing.example/{creative_id}",
        duration_s=duration_s,
        width=1920,
        height=1080,
        media_url=f"https://media.example/{creative_id}.mp4",
        mime="video/mp4",
    )


def _banner(creative_id: str, line_id: str) -> Creative:
    return Creative(
        id=creative_id,
        line_item_id=line_id,
        format="banner",
        landing_url=f"https://landing.example/{creative_id}",
        width=300,
        height=250,
        media_url=f"https://media.example/{creative_id}.png",
        mime="image/png",
    )
