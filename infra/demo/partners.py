"""Third parties against the ledger: each was told of every event that its trackers are for, and of none twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import httpx

from connectors.endpoints import Endpoints
from infra.demo.hops import ByCampaign, minus
from infra.demo.reconcile import Check
from infra.simulator.ledger import read_event_counts
from jobs.vendors.partners import PartnerBook
from schemas.catalog import Catalog
from schemas.catalog_text import load_catalog, load_partners
from schemas.errors import Unavailable

_QUIET_S = 20.0
_POLL_S = 0.5


def calls_due(ledgers: Iterable[Path], catalog: Catalog, book: PartnerBook) -> Counter[str]:
    """How many calls each partner is due, by the ledgers' events and the creatives' trackers."""
    trackers = {creative.id: creative.trackers for creative in catalog.creatives}
    due: Counter[str] = Counter()
    for path in ledgers:
        for (creative_id, event), count in read_event_counts(path).items():
            for url in trackers.get(creative_id, {}).get(event, ()):
                due[book.of_url(url).id] += count
    return due


def calls_taken(ends: Endpoints) -> ByCampaign:
    """What the simulated partners were told: calls, and distinct ones, by partner. Errors: Unavailable."""
    try:
        answer = httpx.get(f"{ends.dsps_url}/status", timeout=5.0).raise_for_status().json()
    except httpx.HTTPError as e:
        raise Unavailable(f"simulated partners: {e}") from e
    return {
        partner: {"calls": int(report["calls"]), "distinct": int(report["distinct"])}
        for partner, report in answer["partners"].items()
    }


def partner_checks(ends: Endpoints, ledgers: Iterable[Path], before: ByCampaign) -> tuple[Check, ...]:
    """Waits until the partners have what they are due, or hear nothing more, and compares. Errors: Unavailable."""
    book = PartnerBook(load_partners(ends.partners_path.read_text()))
    due = calls_due(ledgers, load_catalog(ends.catalog_path.read_text()), book)
    found, moved_s = minus(calls_taken(ends), before), time.monotonic()
    while any(found.get(p, {}).get("calls", 0) < wanted for p, wanted in due.items()):
        time.sleep(_POLL_S)
        now = minus(calls_taken(ends), before)
        if now != found:
            found, moved_s = now, time.monotonic()
        elif time.monotonic() - moved_s > _QUIET_S:
            break
    checks = []
    for partner in sorted(due.keys() | found.keys()):
        taken = found.get(partner, {"calls": 0, "distinct": 0})
        checks.append(Check(f"calls to {partner}", due[partner], taken["distinct"]))
        checks.append(Check(f"calls to {partner}, repeated", 0, taken["calls"] - taken["distinct"]))
    return tuple(checks)
