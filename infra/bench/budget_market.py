"""The market of the budget soak: few campaigns, small budgets, tight caps, so that every limit is reached."""

from __future__ import annotations

from schemas.catalog import Advertiser, Campaign, Catalog, Creative, FrequencyCap, LineItem
from schemas.counters import DAY_S, HOUR_S
from schemas.ids import encode_id
from schemas.registry_record import AdRecord
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.limits.budgets import BudgetTimes

CAMPAIGNS = 12
VIEWERS = 3_000
#: Short lives, so that a soak of seconds sees many of them end.
TIMES = BudgetTimes(
    reservation_s=4.0,
    event_reservation_s=8.0,
    settle_s=0.5,
    refresh_s=0.3,
    expired_s=3.0,
    lease_s=1.5,
    lease_wins_per_s=20.0,
)


def inventory(budget_wins: int, run: str = "bench") -> Inventory:
    """Two campaigns per advertiser; every second one is capped, every third advertiser across its campaigns. Every
    third campaign is paid by clicks.

    `budget_wins`: how many wins a campaign's budget pays; every fourth has a lifetime budget below its day's. `run` is
    in all ids, so that runs are strangers to each other.
    """
    advertisers, campaigns, lines, creatives = [], [], [], []
    for n in range(CAMPAIGNS):
        owner = n // 2
        if n % 2 == 0:
            advertisers.append(Advertiser(f"adv-{run}-{owner}", f"Advertiser {owner}", f"a{owner}.example"))
        price_micros = 1_000 + 137 * n
        caps = [FrequencyCap("campaign", 2, HOUR_S)] if n % 2 == 0 else []
        if owner % 3 == 0:
            caps.append(FrequencyCap("advertiser", 3, DAY_S))
        budget_micros = budget_wins * price_micros + 501  # never an exact number of wins
        lifetime_micros = budget_micros * 3 // 4 if n % 4 == 3 else 0
        campaigns.append(
            Campaign(
                f"cmp-{run}-{n}",
                f"adv-{run}-{owner}",
                f"Campaign {n}",
                budget_micros,
                frequency_caps=caps,
                lifetime_budget_micros=lifetime_micros,
            )
        )
        pricing, bid_micros = ("cpc", price_micros) if n % 3 == 1 else ("cpm", price_micros * 1000 + n)
        lines.append(LineItem(f"li-{run}-{n}", f"cmp-{run}-{n}", pricing, bid_micros))
        creatives.append(
            Creative(f"cr-{run}-{n}", f"li-{run}-{n}", "banner", f"https://a{owner}.example/", width=300, height=250)
        )
    return Inventory(Catalog(1, "USD", advertisers, campaigns, lines, creatives, [], []))


def record_of(row: AdRow, raw_id: bytes, decided_ms: int) -> AdRecord:
    """The registry's record of a win."""
    return AdRecord(
        record_id=encode_id(raw_id),
        request_id=raw_id.hex(),
        imp_id="1",
        advertiser_id=row.advertiser.id,
        campaign_id=row.campaign.id,
        creative_id=row.creative.id,
        decision_time_ms=decided_ms,
    )


def limit_micros(daily_micros: int, lifetime_micros: int) -> int:
    """What may be spent in a soak, which is one day of one life."""
    return min(daily_micros, lifetime_micros) if lifetime_micros else daily_micros
