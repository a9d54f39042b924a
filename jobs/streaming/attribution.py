"""Which click or impression is a conversion credited to?

In: deduplicated_events (conversions; impressions and clicks without a reason `ivt_...`). A conversion is credited to
the last click of its user, or of the ad that it names, within the advertiser's click look-back, else to the last
impression within the view look-back, else to nothing. What the publisher makes of credits (`post_view_conversion`) is
not read.
Out: attributions-v1 (key order_id): one row per order and revision, the highest counts; campaign-metrics-v1 (no key):
the credit as deltas in the conversion's minute, under the touch's ad. A better touch that arrives later makes the next
revision, and deltas that take the old credit back.
Time: event time alone decides what was before and what was last; equal times go by event id. So the order of arrival
changes no final credit. No watermark is waited for.
State: per user (and per ad) and advertiser the last `attribution_touches` clicks and as many impressions, 60 bytes each
and 130 more when the one before was of another ad, and the last `attribution_orders` conversions, 0.3 KB each; a touch
for its look-back and the OLDEST_MS that an event may be late, a conversion for OLDEST_MS, both in publish time. Touches
that no conversion can be credited to are not kept.
Look-backs come from the catalogue at submission: a changed one counts from the next submission on, state kept, but
finds no touch that was forgotten before.
Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs attribution
"""

from __future__ import annotations

import json

from jobs.streaming.job import Job, Output, View, packed_dimension, sql
from jobs.streaming.settings import Settings
from schemas.campaign_metrics import DIMENSIONS, PACKED_COLUMN
from schemas.catalog import Catalog
from schemas.events import OLDEST_MS

NAME = "attribution"

#: A conversion's credit is remembered for longer than it waits for touches, else its first revision would come twice.
_LATE_S = OLDEST_MS // 1000
_CREDIT_S = _LATE_S + 86_400


def lookbacks(settings: Settings) -> str:
    """JSON of click and view look-backs in seconds by advertiser, "" for all others: java/AttributionLookbacks.java.

    Example:
    >>> lookbacks(Settings(attribution_lookbacks_s={"adv-1": (86400, 0)}))
    '{"": [604800, 86400], "adv-1": [86400, 0]}'
    """
    others = (settings.attribution_click_lookback_s, settings.attribution_view_lookback_s)
    return json.dumps({"": others, **dict(sorted(settings.attribution_lookbacks_s.items()))})


def of_catalog(catalog: Catalog, settings: Settings) -> dict[str, tuple[int, int]]:
    """Click and view look-backs of the advertisers whose are not the settings'."""
    others = (settings.attribution_click_lookback_s, settings.attribution_view_lookback_s)
    own = {a.id: (a.click_lookback_s, a.view_lookback_s) for a in catalog.advertisers}
    return {advertiser: lookback for advertiser, lookback in own.items() if lookback != others}


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    of_advertisers = lookbacks(settings).replace("'", "''")
    inputs = sql("attribution_inputs", dimensions=PACKED_COLUMN, lookbacks=of_advertisers, buckets=settings.key_buckets)
    answers = sql(
        "attribution_answers",
        lookbacks=of_advertisers,
        buckets=settings.key_buckets,
        touches=settings.attribution_touches,
        orders=settings.attribution_orders,
        late_s=_LATE_S,
    )
    ad = f"CASE WHEN t.touch IS NULL THEN t.conversion.{PACKED_COLUMN} ELSE t.touch.{PACKED_COLUMN} END"
    of_the_ad = ",\n  ".join(packed_dimension(name, ad) for name in DIMENSIONS if name != "currency")
    currency = packed_dimension("currency", f"t.conversion.{PACKED_COLUMN}")
    credits = sql("attribution_credits", dimensions=f"{of_the_ad},\n  {currency}", late_s=_CREDIT_S)
    metrics = sql("attribution_metrics", dimensions=", ".join(DIMENSIONS))
    return Job(
        NAME,
        views=(
            View("attribution_inputs", inputs),
            View("attribution_answers", answers),
            View("attribution_credits", credits),
        ),
        outputs=(
            Output("attributions", "SELECT * FROM attribution_credits WHERE sign > 0"),
            Output("attribution_metrics", metrics),
        ),
    )
