"""The market of `headwater bench adserver`: a catalogue of 100 ads with caps and budgets, DSPs, users with a past."""

from __future__ import annotations

import random
import time

from connectors.keys import KeyRing
from connectors.valkey import Valkey
from connectors.valkey_wire import Command
from schemas.catalog import (
    Advertiser,
    Bidder,
    Campaign,
    Catalog,
    Creative,
    FrequencyCap,
    LineItem,
    Placement,
    Publisher,
)
from schemas.counters import COUNTERS, DAY_S, HOUR_S, Counter
from schemas.redis_layout import (
    MATERIALIZER_MARKER,
    PROGRESS_KEY,
    SPEND_PROGRESS,
    entity_key,
    pack_counters,
    spend_key,
)

ADS = 100
CAMPAIGNS = 50
ADVERTISERS = 20
PLACEMENTS = 12
USERS = 2_000
_DOLLAR = 1_000_000


def catalog(seed: int) -> Catalog:
    """100 video creatives of 50 campaigns that all want every request, so all 100 are candidates each time."""
    rng = random.Random(f"market:{seed}")
    caps = [
        FrequencyCap("creative", 20, DAY_S),
        FrequencyCap("campaign", 30, DAY_S),
        FrequencyCap("advertiser", 60, 7 * DAY_S),
    ]
    campaigns = [
        Campaign(f"cmp-{i}", f"adv-{i % ADVERTISERS}", f"Campaign {i}", 1_000_000 * _DOLLAR, frequency_caps=caps)
        for i in range(CAMPAIGNS)
    ]
    lines, creatives = [], []
    for i in range(ADS):
        cpc = i % 2 == 0
        bid_micros = int(rng.uniform(0.1, 0.4) * _DOLLAR) if cpc else int(rng.uniform(1.0, 5.0) * _DOLLAR)
        lines.append(LineItem(f"li-{i}", f"cmp-{i % CAMPAIGNS}", "cpc" if cpc else "cpm", bid_micros))
        creatives.append(
            Creative(
                id=f"cr-{i}",
                line_item_id=f"li-{i}",
                format="video",
                landing_url=f"https://brand-{i}.example/",
                duration_s=15,
                width=1280,
                height=720,
                media_url=f"https://media.example/{i}.mp4",
                mime="video/mp4",
            )
        )
    return Catalog(
        version=1,
        currency="USD",
        advertisers=[Advertiser(f"adv-{i}", f"Brand {i}", f"brand-{i}.example") for i in range(ADVERTISERS)],
        campaigns=campaigns,
        line_items=lines,
        creatives=creatives,
        publishers=[Publisher("pub-1", "Publisher", "publisher.example")],
        placements=[Placement(f"pl-{i}", "pub-1", "video", "IAB17", site_id="site-1") for i in range(PLACEMENTS)],
    )


def bidders(count: int, dsps_url: str) -> list[Bidder]:
    """The fleet's DSPs as a bidders file names them."""
    return [Bidder(f"dsp-{n + 1:02d}", f"{dsps_url}/dsp/dsp-{n + 1:02d}/bid", timeout_ms=120) for n in range(count)]


def fill(valkey: Valkey, keys: KeyRing, seed: int) -> None:
    """Users' and ads' counters, and spend, as the stream jobs would have written them."""
    rng = random.Random(f"past:{seed}")
    now_s = int(time.time())
    commands: list[Command] = []
    for n in range(USERS):
        _add(commands, "user", keys.pseudonym(f"user-{n}"), _user(rng, now_s))
    ids = {
        "creative": [f"cr-{i}" for i in range(ADS)],
        "campaign": [f"cmp-{i}" for i in range(CAMPAIGNS)],
        "advertiser": [f"adv-{i}" for i in range(ADVERTISERS)],
        "creative_format": [f"adv-{i}/video" for i in range(ADVERTISERS)],
        "placement": [f"pl-{i}" for i in range(PLACEMENTS)],
        "category": ["IAB17"],
    }
    for entity, names in ids.items():
        mine = [c for c in COUNTERS if c.entity == entity]
        for name in names:
            _add(commands, entity, name, {(c, "", _start(c, now_s)): rng.randrange(20, 2_000) for c in mine})
    day = time.strftime("%Y%m%d", time.gmtime(now_s))
    commands += [("HSET", spend_key(c), day, rng.randrange(100 * _DOLLAR)) for c in ids["campaign"]]
    # without these a budget is unknown, and no campaign runs
    commands += [("SET", MATERIALIZER_MARKER, "bench"), ("HSET", PROGRESS_KEY, SPEND_PROGRESS, now_s * 1000)]
    for start in range(0, len(commands), 500):
        valkey.pipeline(commands[start : start + 500])


def _user(rng: random.Random, now_s: int) -> dict[tuple[Counter, str, int], int]:
    """A user who has seen a dozen ads within a week."""
    values: dict[tuple[Counter, str, int], int] = {}
    scoped = [c for c in COUNTERS if c.entity == "user"]
    for _ in range(12):
        ad = rng.randrange(ADS)
        scopes = {
            "creative": f"cr-{ad}",
            "campaign": f"cmp-{ad % CAMPAIGNS}",
            "advertiser": f"adv-{ad % CAMPAIGNS % ADVERTISERS}",
            "category": "IAB17",
        }
        seen_s = now_s - rng.randrange(7 * DAY_S)
        for counter in scoped:
            if counter.scope and seen_s + counter.retention_s > now_s:
                key = (counter, scopes[counter.scope], _start(counter, seen_s))
                values[key] = values.get(key, 0) + 1
    return values


def _start(counter: Counter, at_s: int) -> int:
    return at_s - at_s % counter.bucket_s


def _add(commands: list[Command], entity: str, name: str, values: dict[tuple[Counter, str, int], int]) -> None:
    fields = pack_counters(values)
    if fields:
        commands.append(("HSET", entity_key(entity, name), *(part for pair in fields.items() for part in pair)))
    commands.append(("EXPIRE", entity_key(entity, name), HOUR_S))
