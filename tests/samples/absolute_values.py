"""Absolute values as the stream jobs write them, and what Valkey has to hold because of them."""

from __future__ import annotations

from typing import Any

from connectors.endpoints import Endpoints
from connectors.kafka import producer
from connectors.records import encoder
from connectors.registry import SchemaRegistry
from connectors.valkey import Valkey
from schemas.counters import COUNTER_BY_NAME, Counter
from schemas.redis_layout import (
    TOTAL_SPEND,
    OpenWins,
    entity_key,
    open_wins_key,
    open_wins_value,
    pack_counters,
    spend_key,
)
from schemas.topics import CAMPAIGN_SPEND, FREQUENCY_COUNTS, STREAMING_FEATURES
from tests.samples.ingest import WRITTEN_WITHIN_S, now_ms

HOUR_MS = 3_600_000
USERS = 40
CAP = COUNTER_BY_NAME["user_campaign_impressions_hour"]
HOME_EVER = COUNTER_BY_NAME["household_campaign_impressions_lifetime"]
INTEREST = COUNTER_BY_NAME["user_category_impressions_hour"]
CLICKS, COST = COUNTER_BY_NAME["creative_clicks_5m"], COUNTER_BY_NAME["creative_cost_micros_5m"]


class Values:
    """Writes absolute values as the stream jobs do, and knows what Valkey has to hold. `mark` keeps its ids apart."""

    def __init__(self, where: Endpoints, mark: str = "") -> None:
        self._mark = mark
        registry = SchemaRegistry(where.registry_url)
        self._cap, self._feature, self._spend = (
            encoder(topic, registry) for topic in (FREQUENCY_COUNTS, STREAMING_FEATURES, CAMPAIGN_SPEND)
        )
        self._producer = producer("test-values")
        self._start_s = now_ms() // HOUR_MS * HOUR_MS // 1000
        self.expected: dict[bytes, dict[bytes, bytes]] = {}

    def write(self, first: int, count: int) -> None:
        for n in range(first, first + count):
            user, home = f"v1:u{self._mark}{n % USERS}", f"v1:h{self._mark}{n % 9}"
            campaign, creative = f"c-{self._mark}{n % 3}", f"cr-{self._mark}{n % 7}"
            self.counters("user", user, {(CAP, campaign, self._start_s): n % 60_000, (CAP, "c-x", self._start_s): 1})
            self.counters("household", home, {(HOME_EVER, campaign, 0): n % 60_000})
            self.counters("user", user, {(INTEREST, "IAB1", self._start_s): n % 60_000})
            self.counters("creative", creative, {(CLICKS, "", self._start_s): n, (COST, "", self._start_s): n * 2**33})
            self.spend({"campaign_id": campaign, "day": "20261122", "spend_micros": n})
            self._expect(spend_key(campaign), b"20261122", b"%d" % n)
            self.spend({"campaign_id": campaign, "day": "total", "spend_micros": 7 * n})
            self._expect(spend_key(campaign), TOTAL_SPEND, b"%d" % (7 * n))
            wins = OpenWins(4 * n, n, 4, 1)
            row = {"won_micros": wins.won_micros, "confirmed_micros": n, "wins": 4, "confirmed_wins": 1}
            self.spend({"campaign_id": campaign, "day": "open", "spend_micros": 0, "decision_minute_ms": 60_000} | row)
            self._expect(open_wins_key(campaign), b"60", open_wins_value(wins))
        assert self._producer.flush(WRITTEN_WITHIN_S) == 0

    def counters(self, entity: str, entity_id: str, values: dict[tuple[Counter, str, int], int]) -> None:
        """One bucket of an entity."""
        counter, _scope, start_s = next(iter(values))
        ((field, entries),) = pack_counters(values).items()
        row = {
            "entity_type": entity,
            "entity_id": entity_id,
            "bucket_s": counter.bucket_s,
            "bucket_start_ms": start_s * 1000,
            "entries": entries,
            "updated_ms": now_ms(),
        }
        caps = counter.family == "frequency"
        topic, encode = (FREQUENCY_COUNTS, self._cap) if caps else (STREAMING_FEATURES, self._feature)
        self.send(topic.name, f"{entity}/{entity_id}/{counter.bucket_s}", encode(row))
        self._expect(entity_key(entity, entity_id), field, entries)

    def spend(self, row: dict[str, Any]) -> None:
        self.send(
            CAMPAIGN_SPEND.name, f"{row['campaign_id']}|{row['day']}", self._spend(row | {"updated_ms": now_ms()})
        )

    def unknown(self) -> None:
        """A bucket that no declared counter has."""
        row = {"entity_type": "galaxy", "entity_id": "x", "bucket_s": 60, "bucket_start_ms": 0, "entries": b"?"}
        self.send(FREQUENCY_COUNTS.name, "x", self._cap(row))

    def send(self, topic: str, key: str, value: bytes) -> None:
        self._producer.produce(topic, value, key.encode())
        self._producer.poll(0)

    def _expect(self, key: bytes, field: bytes, value: bytes) -> None:
        self.expected.setdefault(key, {})[field] = value

    def held(self, where: Endpoints) -> bool:
        """Whether Valkey holds exactly the latest values of these hashes."""
        with Valkey(where.valkey_url) as valkey:
            replies = valkey.pipeline([("HGETALL", key) for key in self.expected])
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in replies] == list(self.expected.values())
