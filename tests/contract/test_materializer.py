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
from schemas.features import COUNTER_BY_NAME
from schemas.redis_layout import counter_field, entity_key, spend_key
from schemas.topics import CAMPAIGN_SPEND, FREQUENCY_COUNTS, STREAMING_FEATURES
from tests.samples.ingest import Service, now_ms, service, wait_until

HOUR_MS = 3_600_000
USERS = 40
CAP = COUNTER_BY_NAME["user_campaign_impressions_hour"]
CLICKS = COUNTER_BY_NAME["creative_clicks_hour"]


class Values:
    """Writes absolute values as the stream jobs do, and knows what Valkey has to hold."""

    def __init__(self, where: Endpoints) -> None:
        registry = SchemaRegistry(where.registry_url)
        self._cap, self._feature, self._spend = (
            encoder(topic, registry) for topic in (FREQUENCY_COUNTS, STREAMING_FEATURES, CAMPAIGN_SPEND)
        )
        self._producer = producer("test-values")
        self._bucket_ms = now_ms() // HOUR_MS * HOUR_MS
        self.expected: dict[bytes, dict[bytes, int]] = {}

    def write(self, first: int, count: int) -> None:
        for n in range(first, first + count):
            user, campaign, creative = f"v1:u{n % USERS}", f"c-{n % 3}", f"cr-{n % 7}"
            cap = self._value("user", user, CAP.name, campaign, n)
            self._send(FREQUENCY_COUNTS.name, f"{user}/{campaign}", self._cap(cap))
            self._expect(entity_key("user", user), counter_field(CAP, campaign, self._bucket_ms // 1000), n)
            self._send(
                STREAMING_FEATURES.name, creative, self._feature(self._value("creative", creative, CLICKS.name, "", n))
            )
            self._expect(entity_key("creative", creative), counter_field(CLICKS, "", self._bucket_ms // 1000), n)
            spend = {"campaign_id": campaign, "day": "20261122", "spend_micros": n, "updated_ms": now_ms()}
            self._send(CAMPAIGN_SPEND.name, campaign, self._spend(spend))
            self._expect(spend_key(campaign), b"20261122", n)
        assert self._producer.flush(60) == 0

    def _value(self, entity: str, entity_id: str, counter: str, scope: str, value: int) -> dict[str, Any]:
        return {
            "entity_type": entity,
            "entity_id": entity_id,
            "counter": counter,
            "scope_id": scope,
            "bucket_start_ms": self._bucket_ms,
            "value": value,
            "updated_ms": now_ms(),
        }

    def _send(self, topic: str, key: str, value: bytes) -> None:
        self._producer.produce(topic, value, key.encode())
        self._producer.poll(0)

    def _expect(self, key: bytes, field: bytes, value: int) -> None:
        self.expected.setdefault(key, {})[field] = value

    def held(self, where: Endpoints) -> bool:
        """Whether Valkey holds exactly the latest values of these hashes."""
        with Valkey(where.valkey_url) as valkey:
            replies = valkey.pipeline([("HGETALL", key) for key in self.expected])
        found = [dict(zip(flat[::2], map(int, flat[1::2]), strict=True)) for flat in replies]
        return found == list(self.expected.values())


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
        assert valkey.call("TTL", entity_key("user", "v1:u1")) > 30 * 86_400
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
        valkey.call("HSET", key, next(iter(fields)), 999_999_999)
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
    values._send(FREQUENCY_COUNTS.name, "x", values._cap(values._value("user", "v1:u0", "no_such_counter", "", 1)))
    values._send(FREQUENCY_COUNTS.name, "y", b"not avro")
    values.write(9_000, 100)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
