"""A small market for tests of the ad server, and planned stand-ins for what the decider waits for: store, DSPs, log.

The stand-ins only say what a test planned; the real ones have tests of their own against real Valkey and real HTTP.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from connectors.keys import KeyRing
from connectors.tokens import TokenMinter
from connectors.valkey import AsyncValkey
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
    Targeting,
)
from schemas.codec import decode, parsed_schema, split_header
from schemas.counters import COUNTER_BY_NAME
from schemas.decision_encoder import DecisionEncoder
from schemas.decisions import Outcome
from schemas.redis_layout import pack_counters, pending_key, stream_pending_key, user_key
from schemas.registry_record import AdRecord
from serving.adserver.decider import Decider, Serving
from serving.adserver.dsps.desk import Turn
from serving.adserver.dsps.fanout import Fanout
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.snapshot import EntityCounters
from serving.adserver.inventory import Inventory
from serving.adserver.limits.budgets import Budgets
from serving.adserver.limits.caps import Lives, PendingRead, RequestCaps
from serving.adserver.limits.ledger import Account, Reservation
from serving.adserver.limits.pending import Claim, PendingWins
from serving.adserver.markup.trackers import TrackerMaker
from serving.adserver.openrtb.messages import decode_response
from serving.adserver.scoring.model import Scorer, SmoothedRates
from serving.adserver.settings import Settings
from serving.adserver.store import Commit, Standing

#: 2026-01-05 12:00:00 UTC, a Monday: the clock of all cases.
NOW_S = 1_767_614_400
DOLLAR = 1_000_000
COLLECTOR_URL = "http://collector.test"
#: Markup of a DSP that breaks no rule.
VAST_MARKUP = (
    '<VAST version="4.2"><Ad id="1"><InLine><AdSystem>d</AdSystem><AdTitle>t</AdTitle><Impression/><Creatives>'
    "<Creative><Linear><Duration>00:00:15</Duration><MediaFiles/></Linear></Creative></Creatives></InLine></Ad></VAST>"
)
NATIVE_MARKUP = (
    '{"ver":"1.2","assets":[{"id":1,"title":{"text":"A title"}}],"link":{"url":"https://brand.example/"},'
    '"imptrackers":["https://dsp.example/i"]}'
)


def catalog(ads: Sequence[Mapping[str, Any]], floor_cpm_micros: int = 0) -> Catalog:
    """A catalogue with one campaign per ad. Of an ad `a`: adv-a, cmp-a, li-a, cr-a.

    Keys of an ad: id, pricing, bid_micros; optional: format, budget_micros, caps, targeting, campaign, line,
    creative.
    """
    advertisers, campaigns, lines, creatives = [], [], [], []
    for ad in ads:
        name = ad["id"]
        advertisers.append(Advertiser(f"adv-{name}", name, f"{name}.example", ad.get("category", "")))
        campaigns.append(
            Campaign(
                id=f"cmp-{name}",
                advertiser_id=f"adv-{name}",
                name=f"Campaign {name}",
                daily_budget_micros=ad.get("budget_micros", 100 * DOLLAR),
                frequency_caps=[FrequencyCap(**cap) for cap in ad.get("caps", ())],
                **ad.get("campaign", {}),
            )
        )
        targeting = Targeting(**ad.get("targeting", {}))
        line = {"pricing": ad["pricing"], "bid_micros": ad["bid_micros"], "targeting": targeting} | ad.get("line", {})
        lines.append(LineItem(f"li-{name}", f"cmp-{name}", **line))
        ad_format = ad.get("format", "video")
        video = ad_format in ("video", "audio")
        fields = {
            "format": ad_format,
            "landing_url": f"https://{name}.example/?a=1&b=2",
            "duration_s": 15 if video else None,
            "width": 1280 if video else 300,
            "height": 720 if video else 250,
            "media_url": f"https://media.example/{name}",
            "mime": {"video": "video/mp4", "audio": "audio/mp4"}.get(ad_format, "image/png"),
        }
        creatives.append(Creative(id=f"cr-{name}", line_item_id=f"li-{name}", **(fields | ad.get("creative", {}))))
    placements = [
        Placement("pl-video", "pub-1", "video", "IAB17", floor_cpm_micros, site_id="site-1"),
        Placement("pl-banner", "pub-1", "banner", "IAB19", floor_cpm_micros, app_id="app-1"),
        Placement("pl-audio", "pub-1", "audio", "IAB1", floor_cpm_micros, app_id="app-1"),
        Placement("pl-native", "pub-1", "native", "IAB12", floor_cpm_micros, site_id="site-1"),
    ]
    publishers = [Publisher("pub-1", "Publisher", "publisher.example")]
    return Catalog(7, "USD", advertisers, campaigns, lines, creatives, publishers, placements)


def bid_request(**changes: Any) -> dict[str, Any]:
    """A valid video request as JSON data; `changes` replace top-level fields."""
    request: dict[str, Any] = {
        "id": "req-1",
        "imp": [{"id": "1", "tagid": "pl-video", "video": {"mimes": ["video/mp4"], "maxduration": 30}}],
        "site": {"id": "site-1", "cat": ["IAB17"]},
        "device": {
            "devicetype": 3,
            "os": "tvos",
            "ip": "192.0.2.7",
            "geo": {"country": "USA", "region": "US-CA"},
        },
        "user": {"id": "someone"},
        "cur": ["USD"],
        "tmax": 150,
    }
    return request | changes


def user_blob(rows: Sequence[Mapping[str, Any]]) -> CounterBlob:
    """Counters of a user or household. Keys of a row: counter, scope, hours_ago, count."""
    values = {}
    for row in rows:
        counter = COUNTER_BY_NAME[row["counter"]]
        at_s = NOW_S - int(row["hours_ago"] * 3600)
        values[counter, row["scope"], at_s - at_s % counter.bucket_s] = row["count"]
    return CounterBlob([part for pair in pack_counters(values).items() for part in pair])


class PlannedStore:
    """Says what was planned, and keeps what was committed."""

    def __init__(
        self,
        user: CounterBlob | None = None,
        household: CounterBlob | None = None,
        spend_micros: Mapping[str, int] | None = None,
        reads: bool = True,
        writes: bool = True,
        refused_budgets: Sequence[str] = (),
        capped: Sequence[str] = (),
    ) -> None:
        self.connected = reads or writes
        self.budgets = Budgets(AsyncValkey("redis://nowhere.test"))
        self.claims: list[tuple[Claim, ...]] = []
        self.records: list[AdRecord] = []
        self.reservations: list[Reservation | None] = []
        self._user = user or CounterBlob()
        self._household = household or CounterBlob()
        self._spend = spend_micros or {}
        self._reads = reads
        self._writes = writes
        self._refused = refused_budgets
        self._capped = capped
        self.pending = PendingWins()

    async def read(
        self,
        pseudonym: str | None,
        household: str | None,
        session: str | None,
        now_ms: int,
        waits: Callable[[], bool],
        capped: Callable[[], bool],
        by_s: float = float("inf"),
    ) -> Standing:
        viewer = self._user if pseudonym else self._household if household else None
        key = None if viewer is None else pending_key(user_key(pseudonym or household or ""))
        lives = Lives(120_000, 3_600_000, now_ms)
        stream = stream_pending_key(session) if session else None
        if not self._reads:
            return Standing(RequestCaps(None, PendingRead(), lives, now_ms), read=False)
        caps = RequestCaps(viewer, PendingRead(key, self.pending, stream), lives, now_ms)
        return Standing(caps, viewer) if pseudonym else Standing(caps, household=viewer)

    def plan_budgets(self, inventory: Inventory) -> None:
        """What is known of budgets: all that was not spent as planned; nothing when reading fails."""
        if self._reads:
            left = {c: b.daily_micros - self._spend.get(c, 0) for c, b in inventory.budgets.items()}
            self.budgets.know({c: Account(0, micros, 0, 0, 0, 0, 0) for c, micros in left.items()}, time.monotonic())

    async def commit(
        self,
        record: AdRecord,
        reservation: Reservation | None,
        claims: Sequence[Claim] = (),
        by_s: float = float("inf"),
    ) -> Commit:
        self.claims.append(tuple(claims))
        if not self._writes:
            return Commit.NOT_REGISTERED
        if reservation is not None and reservation.campaign_id in self._refused:
            return Commit.NO_BUDGET
        if record.campaign_id in self._capped:
            return Commit.CAPPED
        self.records.append(record)
        self.reservations.append(reservation)
        return Commit.DONE


class _PlannedFanout(Fanout):
    def __init__(self, turns: list[Turn]) -> None:
        super().__init__()
        self.turns = turns

    async def collect(self) -> list[Turn]:
        return self.turns


class PlannedBidders:
    """DSPs that answer what was planned: `{"response": {...}}` or `{"outcome": "EXPIRED"}` by id."""

    def __init__(self, plan: Mapping[str, Mapping[str, Any]]) -> None:
        self.bodies: dict[str, bytes] = {}
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def call(
        self,
        body_of: Callable[[Bidder], bytes | None],
        country: str | None,
        deadline_s: float,
        must_ask: Callable[[Bidder], bool] | None = None,
    ) -> Fanout:
        turns = []
        for bidder_id, said in self._plan.items():
            bidder = Bidder(bidder_id, f"http://{bidder_id}.test/bid", said.get("seat_ids", []), **said.get("row", {}))
            body = body_of(bidder)
            if body is None:
                continue
            self.bodies[bidder_id] = body
            if "outcome" in said:
                turns.append(Turn(bidder, Outcome[said["outcome"]]))
            else:
                turns.append(Turn(bidder, None, decode_response(msgspec.json.encode(said["response"]))))
        return _PlannedFanout(turns)


class KeptLog:
    """A decision log that keeps what is written."""

    def __init__(self, available: bool = True) -> None:
        self.available = available
        self.decisions: list[dict[str, Any]] = []

    def write(self, decision: dict[str, Any], candidates: Sequence[bytes]) -> bool:
        if self.available:
            _schema_id, written = split_header(DecisionEncoder(1)(decision, candidates))
            self.decisions.append(decode(written, parsed_schema("ad_decision")))
        return self.available


def decider(
    secrets: Path,
    ads: Sequence[Mapping[str, Any]],
    store: Any = None,
    bidders: Any = None,
    log: Any = None,
    floor_cpm_micros: int = 0,
    scorer: Scorer | None = None,
    seed: int = 1,
    changes: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    notify: Callable[[str], None] = lambda _url: None,
    kind: type[Decider] = Decider,
) -> tuple[Decider, Serving]:
    """A decider over a small market, with a fixed clock and seeded draws. `changes` replace fields of the catalogue."""
    keys = KeyRing.load(secrets)
    store = store or PlannedStore()
    serving = Serving(Inventory(replace(catalog(ads, floor_cpm_micros), **(changes or {}))), scorer or SmoothedRates())
    if isinstance(store, PlannedStore):
        store.plan_budgets(serving.inventory)
    made = kind(
        serving,
        Settings(**(settings or {})),
        keys,
        store,
        lambda _inventory: EntityCounters(0.0),
        bidders or PlannedBidders({}),
        TrackerMaker(TokenMinter(keys), COLLECTOR_URL, 3600),
        log or KeptLog(),
        clock=lambda: float(NOW_S),
        notify=notify,
        rng=random.Random(seed),
    )
    return made, serving
