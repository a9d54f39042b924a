"""The materializer on real services: what the topics say is what Valkey holds, whatever is killed or emptied."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.endpoints import Endpoints
from connectors.kafka import producer
from connectors.records import encoder
from connectors.registry import SchemaRegistry
from connectors.valkey import Valkey
from infra.local import control
from infra.local.stack import COMPONENTS
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
from tests.samples.faults import during
from tests.samples.ingest import Service, now_ms, service, wait_until

HOUR_MS = 3_600_000
USERS = 40
CAP = COUNTER_BY_NAME["user_campaign_impressions_hour"]
HOME_EVER = COUNTER_BY_NAME["household_campaign_impressions_lifetime"]
INTEREST = COUNTER_BY_NAME["user_category_impressions_hour"]
CLICKS, COST = COUNTER_BY_NAME["creative_clicks_5m"], COUNTER_BY_NAME["creative_cost_micros_5m"]


class Values:
    """Writes absolute values as the stream jobs do, and knows what Valkey has to hold."""

    def __init__(self, where: Endpoints) -> None:
        registry = SchemaRegistry(where.registry_url)
        self._cap, self._feature, self._spend = (
            encoder(topic, registry) for topic in (FREQUENCY_COUNTS, STREAMING_FEATURES, CAMPAIGN_SPEND)
        )
        self._producer = producer("test-values")
        self._start_s = now_ms() // HOUR_MS * HOUR_MS // 1000
        self.expected: dict[bytes, dict[bytes, bytes]] = {}

    def write(self, first: int, count: int) -> None:
        for n in range(first, first + count):
            user, home, campaign, creative = f"v1:u{n % USERS}", f"v1:h{n % 9}", f"c-{n % 3}", f"cr-{n % 7}"
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
        assert self._producer.flush(60) == 0

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


@pytest.fixture(scope="module")
def values(local_services: Endpoints) -> Values:
    return Values(local_services)


@pytest.fixture(scope="module")
def materializer(local_services: Endpoints) -> Iterator[Service]:
    with service("jobs.materializer", local_services.port("materializer_metrics")) as started:
        yield started


def test_values_arrive_and_users_expire(values: Values, materializer: Service, local_services: Endpoints) -> None:
    values.write(1, 500)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
    with Valkey(local_services.valkey_url) as valkey:
        assert valkey.call("TTL", entity_key("user", "v1:u1")) > 399 * 86_400
        assert valkey.call("TTL", entity_key("household", "v1:h1")) > 399 * 86_400
        assert 86_400 < valkey.call("TTL", entity_key("creative", "cr-1")) < 3 * 86_400
        assert 0 < valkey.call("TTL", open_wins_key("c-1")) <= 86_400
        assert valkey.call("TTL", spend_key("c-1")) == -1


def test_killed_in_traffic(values: Values, materializer: Service, local_services: Endpoints) -> None:
    for round_ in range(4):
        values.write(1_000 + round_ * 600, 600)
        materializer.kill()
        materializer.restart()
        wait_until("the next one is ready", materializer.status)
    wait_until("Valkey holds the values", lambda: values.held(local_services))


def test_an_emptied_valkey_is_filled_again_without_traffic(
    values: Values, materializer: Service, local_services: Endpoints
) -> None:
    assert values.held(local_services)
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("FLUSHALL")
    assert not values.held(local_services)
    wait_until("Valkey holds the values", lambda: values.held(local_services))


def test_emptied_again_and_again_in_traffic(values: Values, materializer: Service, local_services: Endpoints) -> None:
    """What a rebuild reads again and what the stream writes meanwhile meet in the same hashes: the latest win."""

    def empty() -> None:
        time.sleep(0.1)
        with Valkey(local_services.valkey_url) as valkey:
            valkey.call("FLUSHALL")

    for round_ in range(3):
        with during(empty):
            values.write(12_000 + round_ * 1_500, 1_500)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
    wait_until("nothing is rebuilt any more", lambda: (s := materializer.status()) and not s["rebuilding"])


def test_a_valkey_that_was_away_is_waited_for_and_checked(
    values: Values, materializer: Service, local_services: Endpoints
) -> None:
    before = wait_until("ready", materializer.status)["rebuilds"]
    control.down(local_services, ["valkey"])
    values.write(5_000, 200)
    wait_until("the worker waits", lambda: (s := materializer.status()) and s["waiting_for"])
    time.sleep(1)
    control.up(local_services, COMPONENTS, ["valkey"], timeout_s=60)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
    wait_until(
        "rebuilt: a restarted server may have lost its last writes",
        lambda: (s := materializer.status()) and s["rebuilds"] == before + 1 and not s["rebuilding"],
    )


def test_rebuild_by_command_beside_the_running_worker(
    values: Values, materializer: Service, local_services: Endpoints
) -> None:
    key, fields = next(iter(values.expected.items()))
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("HSET", key, next(iter(fields)), b"tampered with")
    command = Service("jobs.materializer", local_services.port("materializer_metrics"), "--rebuild")
    assert command.process.wait(120) == 0
    assert values.held(local_services)


def test_rebuild_by_command_alone(values: Values, materializer: Service, local_services: Endpoints) -> None:
    assert materializer.stop() == 0
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("FLUSHALL")
    command = Service("jobs.materializer", local_services.port("materializer_metrics"), "--rebuild")
    assert command.process.wait(120) == 0
    assert values.held(local_services)


def test_what_no_counter_declares_is_left_out(values: Values, materializer: Service, local_services: Endpoints) -> None:
    materializer.restart()
    values.unknown()
    values.send(FREQUENCY_COUNTS.name, "y", b"not avro")
    values.write(9_000, 100)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
