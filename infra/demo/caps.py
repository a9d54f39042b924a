"""One user's frequency caps as the ad server reads them, beside what the ledger knows of that user."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from connectors.endpoints import Endpoints
from connectors.keys import KeyRing
from connectors.valkey import Valkey
from schemas.catalog_text import load_catalog
from schemas.redis_layout import user_key
from serving.adserver.features.counters import CounterBlob
from serving.adserver.limits.caps import cap_rules, seen

_BUSIEST = """
SELECT d.user_id, COUNT(*) FROM decisions d JOIN beacons b USING (record_id)
WHERE d.opted_out = 0 AND b.event = 'impression' AND b.kind = 'normal' AND b.status = 204
  AND d.campaign_id IN ({marks}) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1
"""
#: Not those of clocks that are a day behind: they are in the longer windows only.
_SEEN = """
SELECT d.{scope}_id, COUNT(DISTINCT d.record_id) FROM decisions d JOIN beacons b USING (record_id)
WHERE d.user_id = ? AND b.event = 'impression' AND b.status = 204
  AND b.kind IN ('normal', 'duplicate', 'late', 'ahead')
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class CapRow:
    """One cap of one campaign for one user: what the ad server counts, the limit, and what the ledgers know of."""

    campaign_id: str
    scope: str
    scope_id: str
    window_s: int | None  # None: a lifetime
    seen: int
    truth: int
    limit: int


def busiest_user_caps(ends: Endpoints, ledgers: Iterable[Path]) -> tuple[str, list[CapRow]]:
    """The user with most impressions of capped campaigns, and that user's caps of the campaigns that were seen.

    The truth covers the given ledgers; it equals `seen` on a stack that served nothing else within the window.
    Errors: ConnectorError.
    """
    paths = list(ledgers)
    catalog = load_catalog(ends.catalog_path.read_text())
    capped = {c.id: c for c in catalog.campaigns if c.frequency_caps}
    totals: dict[str, int] = {}
    for path in paths:
        for user, impressions in _rows(path, _BUSIEST.format(marks=", ".join("?" * len(capped))), tuple(capped)):
            totals[user] = totals.get(user, 0) + impressions
    if not totals:
        return "", []
    user = max(totals, key=lambda name: (totals[name], name))
    truth: dict[tuple[str, str], int] = {}
    for path in paths:
        for scope in ("creative", "campaign", "advertiser"):
            for scope_id, count in _rows(path, _SEEN.format(scope=scope), (user,)):
                truth[scope, scope_id] = truth.get((scope, scope_id), 0) + count
    with Valkey(ends.valkey_url) as valkey:
        blob = CounterBlob(valkey.call("HGETALL", user_key(KeyRing.load(ends.secrets).pseudonym(user))))
    rows = []
    now_s = int(time.time())
    line_campaign = {line.id: line.campaign_id for line in catalog.line_items}
    for campaign in capped.values():
        creatives = [c.id for c in catalog.creatives if line_campaign[c.line_item_id] == campaign.id]
        for cap in campaign.frequency_caps:
            ids = {"campaign": [campaign.id], "advertiser": [campaign.advertiser_id], "creative": creatives}
            for scope_id in ids[cap.scope]:
                if (cap.scope, scope_id) not in truth:
                    continue
                (rule,) = cap_rules([cap], {cap.scope: scope_id})
                counted = seen(rule, blob, now_s)
                rows.append(
                    CapRow(
                        campaign.id,
                        cap.scope,
                        scope_id,
                        cap.window_s,
                        counted,
                        truth[cap.scope, scope_id],
                        cap.limit,
                    )
                )
    return user, rows


def _rows(path: Path, query: str, arguments: tuple[object, ...]) -> list[tuple[str, int]]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute(query, arguments).fetchall()
    finally:
        database.close()
