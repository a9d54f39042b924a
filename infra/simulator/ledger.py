"""What truly happened: every decision that was received and every beacon that was fired, in SQLite.

One file per run, `<home>/ledger/<run>.sqlite`. The platform never reads it; reconciliation does. Costs in it are
learned from the public door alone (VAST `<Pricing>`), so it is an independent truth to the micro.
An event counts when at least one of its genuine beacons was accepted (2xx); further accepted ones are duplicates.

Units: `*_ms` epoch milliseconds, `*_micros` of `currency`.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from infra.simulator.behaviour import GENUINE, LATE, Kind
from infra.simulator.vast import ShownAd

_TABLES = """
CREATE TABLE IF NOT EXISTS run(name TEXT PRIMARY KEY, seed INTEGER, started_ms INTEGER, ended_ms INTEGER);
CREATE TABLE IF NOT EXISTS decisions(
  record_id TEXT PRIMARY KEY, request INTEGER, door TEXT, user_id TEXT, placement_id TEXT, asked_ms INTEGER,
  latency_ms REAL, advertiser_id TEXT, campaign_id TEXT, line_item_id TEXT, creative_id TEXT, pricing TEXT,
  currency TEXT, impression_cost_micros INTEGER, click_cost_micros INTEGER, opted_out INTEGER);
CREATE TABLE IF NOT EXISTS beacons(
  record_id TEXT, event TEXT, ordinal INTEGER, kind TEXT, client_ms INTEGER, fired_ms INTEGER,
  status INTEGER, expected_reject TEXT, url TEXT);
CREATE TABLE IF NOT EXISTS conversions(
  order_id TEXT PRIMARY KEY, record_id TEXT, value_micros INTEGER, fired_ms INTEGER, status INTEGER);
"""

_ACCEPTED = "status BETWEEN 200 AND 299"


def _is_one_of(kinds: tuple[Kind, ...]) -> str:
    return "kind IN ({})".format(", ".join(f"'{k}'" for k in kinds))


_GENUINE = _is_one_of(GENUINE)
#: Distinct events that count, with their ad.
_EVENTS = f"""
  SELECT record_id, event, ordinal, COUNT(*) AS sent, MAX({_is_one_of(LATE)}) AS late, MAX(kind = 'ahead') AS ahead
  FROM beacons WHERE {_ACCEPTED} AND {_GENUINE} GROUP BY record_id, event, ordinal
"""
_BY_CAMPAIGN = f"""
  SELECT d.campaign_id,
    SUM(e.event = 'impression'), SUM(e.event = 'click'), SUM(e.event = 'complete'),
    SUM(CASE e.event WHEN 'impression' THEN d.impression_cost_micros WHEN 'click' THEN d.click_cost_micros ELSE 0 END)
  FROM ({_EVENTS}) e JOIN decisions d USING (record_id) GROUP BY d.campaign_id
"""


@dataclass(frozen=True, slots=True)
class CampaignTotals:
    """What one campaign got. `completes` is also the number of its sessions that were completed."""

    impressions: int = 0
    clicks: int = 0
    completes: int = 0
    spend_micros: int = 0

    def __add__(self, other: CampaignTotals) -> CampaignTotals:
        return CampaignTotals(
            self.impressions + other.impressions,
            self.clicks + other.clicks,
            self.completes + other.completes,
            self.spend_micros + other.spend_micros,
        )

    def __sub__(self, other: CampaignTotals) -> CampaignTotals:
        return CampaignTotals(
            self.impressions - other.impressions,
            self.clicks - other.clicks,
            self.completes - other.completes,
            self.spend_micros - other.spend_micros,
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything that later counts are compared with.

    `events` are distinct; `duplicates` and `late` are beacons and events planted on purpose; `rejects` counts planted
    beacons by the reason that their dead letter must name. `conversions` were accepted by the conversion door.
    `expired` events came with a token past its life, and count all the same; so do those from clocks that are a day
    `ahead` (which happen when they are received) or behind (which are late).
    """

    campaigns: dict[str, CampaignTotals] = field(default_factory=dict)
    events: int = 0
    sessions: int = 0
    duplicates: int = 0
    late: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    conversions: int = 0
    unanswered: int = 0
    expired: int = 0
    ahead: int = 0

    @property
    def total(self) -> CampaignTotals:
        return sum(self.campaigns.values(), CampaignTotals())

    def __add__(self, other: Truth) -> Truth:
        names = self.campaigns.keys() | other.campaigns.keys()
        nothing = CampaignTotals()
        return Truth(
            {n: self.campaigns.get(n, nothing) + other.campaigns.get(n, nothing) for n in sorted(names)},
            self.events + other.events,
            self.sessions + other.sessions,
            self.duplicates + other.duplicates,
            self.late + other.late,
            self.rejects + other.rejects,
            self.conversions + other.conversions,
            self.unanswered + other.unanswered,
            self.expired + other.expired,
            self.ahead + other.ahead,
        )


class Ledger:
    """Writes one run's ledger. Rows are kept in memory until `flush`, which takes one transaction."""

    def __init__(self, path: Path, name: str, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.name = name
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)
        self._db.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?, NULL)", (name, seed, _now_ms()))
        self._db.commit()
        self._decisions: list[tuple[object, ...]] = []
        self._beacons: list[tuple[object, ...]] = []
        self._conversions: list[tuple[object, ...]] = []

    def decided(
        self,
        ad: ShownAd,
        *,
        request: int,
        door: str,
        user_id: str,
        placement_id: str,
        asked_ms: int,
        latency_ms: float,
        opted_out: bool,
    ) -> None:
        """An ad was received."""
        self._decisions.append(
            (
                ad.record_id,
                request,
                door,
                user_id,
                placement_id,
                asked_ms,
                latency_ms,
                ad.advertiser_id,
                ad.campaign_id,
                ad.line_item_id,
                ad.creative_id,
                ad.pricing,
                ad.currency,
                ad.impression_cost_micros,
                ad.click_cost_micros,
                int(opted_out),
            )
        )

    def fired(
        self,
        record_id: str,
        event: str,
        ordinal: int,
        kind: str,
        client_ms: int,
        fired_ms: int,
        status: int,
        expected_reject: str,
        url: str,
    ) -> None:
        """A beacon was answered with `status`; 0: it was not answered, and nobody knows whether it arrived."""
        self._beacons.append((record_id, event, ordinal, kind, client_ms, fired_ms, status, expected_reject, url))

    def converted(self, order_id: str, record_id: str, value_micros: int, status: int) -> None:
        """A conversion was sent."""
        self._conversions.append((order_id, record_id, value_micros, _now_ms(), status))

    def flush(self) -> None:
        """Writes what has been told so far."""
        with self._db:
            self._db.executemany(f"INSERT INTO decisions VALUES ({_marks(16)})", self._decisions)
            self._db.executemany(f"INSERT INTO beacons VALUES ({_marks(9)})", self._beacons)
            self._db.executemany(f"INSERT INTO conversions VALUES ({_marks(5)})", self._conversions)
        self._decisions.clear()
        self._beacons.clear()
        self._conversions.clear()

    def close(self) -> None:
        """Flushes, marks the run as ended."""
        self.flush()
        with self._db:
            self._db.execute("UPDATE run SET ended_ms = ? WHERE name = ?", (_now_ms(), self.name))
        self._db.close()


def read_truth(path: Path) -> Truth:
    """The truth of one ledger file."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        campaigns = {row[0]: CampaignTotals(*row[1:]) for row in db.execute(_BY_CAMPAIGN)}
        events, sessions, sent, late, ahead = db.execute(
            "SELECT COUNT(*), COUNT(DISTINCT record_id), COALESCE(SUM(sent), 0), COALESCE(SUM(late), 0), "
            f"COALESCE(SUM(ahead), 0) FROM ({_EVENTS})"
        ).fetchone()
        rejects = db.execute(
            f"SELECT expected_reject, COUNT(*) FROM beacons WHERE expected_reject <> '' AND {_ACCEPTED} GROUP BY 1"
        )
        (conversions,) = db.execute(f"SELECT COUNT(*) FROM conversions WHERE {_ACCEPTED}").fetchone()
        (unanswered,) = db.execute(f"SELECT COUNT(*) FROM beacons WHERE NOT ({_ACCEPTED})").fetchone()
        (expired,) = db.execute(f"SELECT COUNT(*) FROM beacons WHERE kind = 'expired' AND {_ACCEPTED}").fetchone()
        planted = sent - events, late, Counter(dict(rejects))
        return Truth(campaigns, events, sessions, *planted, conversions, unanswered, expired, ahead)
    finally:
        db.close()


def read_event_counts(path: Path) -> Counter[tuple[str, str]]:
    """Distinct events that count, by (creative id, event)."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = db.execute(
            "SELECT d.creative_id, e.event, COUNT(*) "
            f"FROM ({_EVENTS}) e JOIN decisions d USING (record_id) GROUP BY 1, 2"
        )
        return Counter({(creative_id, event): count for creative_id, event, count in rows})
    finally:
        db.close()


def read_truths(paths: Iterable[Path]) -> Truth:
    """The truth of several runs together."""
    return sum((read_truth(p) for p in paths), Truth())


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
