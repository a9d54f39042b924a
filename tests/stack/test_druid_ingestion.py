"""Real Kafka into real Druid: sums to the micro, sketches within their error, transactions, handoff, a kill.

Each test's rows go through a topic and a datasource of their own, so that no other test's counts change.
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from connectors.druid import DruidClient
from connectors.druid_progress import ProgressProbe
from connectors.druid_specs import FINGERPRINT, REACH_HLL, REACH_THETA, campaign_metrics_supervisor, fingerprint
from connectors.endpoints import Endpoints
from connectors.kafka import create_topics, transactional_producer
from infra.local import control
from schemas.campaign_metrics import DIMENSIONS, MAXIMA, SUMS
from schemas.errors import ConnectorError
from schemas.topics import Topic
from tests.samples.ingest import wait_until

MINUTE_MS = 60_000
START_MS = int(datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp() * 1000)
CAUGHT_UP_S = 120.0
#: How often the broker looks at the columns of segments that grow (druid.properties).
METADATA_REFRESH_S = 10.0


def row(number: int, **given: Any) -> dict[str, Any]:
    """A row of the contract; numbers spread over ten minutes and three campaigns."""
    made: dict[str, Any] = {name: f"{name}-1" for name in DIMENSIONS}
    made |= dict.fromkeys(SUMS, 0) | dict.fromkeys(MAXIMA, START_MS + number)
    made |= {
        "minute_ms": START_MS + number % 10 * MINUTE_MS,
        "campaign_id": f"campaign-{number % 3}",
        "country": None,
        "events": 3,
        "impressions": 2,
        "clicks": 1,
        "spend_micros": 1_234_567_890_123 + number,
        "reach_users": [],
    }
    return made | given


@dataclass
class Ingestion:
    """A datasource of this test alone, with a transactional producer into its topic."""

    name: str
    topic: str
    druid: DruidClient
    probe: ProgressProbe
    producer: Producer

    def write(self, rows: list[dict[str, Any]], *, commit: bool = True) -> None:
        self.producer.begin_transaction()
        for number, value in enumerate(rows):
            self.producer.produce(self.topic, json.dumps(value), partition=number % 4)
            self.producer.poll(0)
        self.producer.flush()
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.abort_transaction(30)

    def total(self, expression: str) -> Any:
        rows = self.druid.sql(f'SELECT {expression} AS answer FROM "{self.name}"')
        return rows[0]["answer"] if rows else None


@pytest.fixture
def ingestion(stack: Endpoints) -> Iterator[Ingestion]:
    suffix = uuid.uuid4().hex[:8]
    topic, name = f"druid-test-{suffix}", f"druid_test_{suffix}"
    create_topics([Topic(name=topic, what="a test's", key="none", schema=None, producers=(), consumers=())])
    with DruidClient.of(stack) as druid, ProgressProbe(druid, name, topic) as probe:
        assert druid.sql(f'SELECT 1 FROM "{name}"') == [], "no segment yet is no error"
        druid.ensure_supervisor(campaign_metrics_supervisor(stack.kafka_bootstrap, datasource=name, topic=topic))
        yield Ingestion(name, topic, druid, probe, transactional_producer("druid-test", f"druid-test-{suffix}"))
    httpx.post(f"{stack.druid_coordinator_url}/druid/indexer/v1/supervisor/{name}/terminate").raise_for_status()


def test_sums_are_exact_and_aborted_rows_never_seen(ingestion: Ingestion):
    count = 5000
    rows = [row(i) for i in range(count)]
    ingestion.write(rows[: count // 2])
    ingestion.write([row(i, clicks=1000, reach_users=["nobody"]) for i in range(1000)], commit=False)
    ingestion.write(rows[count // 2 :])
    ingestion.write([row(0, clicks=1000)], commit=False)
    assert ingestion.probe.wait_until_caught_up(CAUGHT_UP_S).caught_up
    assert ingestion.total('SUM("spend_micros")') == sum(value["spend_micros"] for value in rows)
    assert ingestion.total('SUM("clicks")') == count
    assert ingestion.total('MAX("last_event_time_ms")') == START_MS + count - 1
    assert ingestion.total("COUNT(*)") == 30, "rolled up: ten minutes of three campaigns"
    assert ingestion.total(f'APPROX_COUNT_DISTINCT_DS_THETA("{REACH_THETA}")') == 0, "no user stands behind them"


def test_every_user_of_an_array_counts_once(ingestion: Ingestion):
    users = 20_000
    rows = [row(i, reach_users=[f"v1:user-{(i * 10 + k) % users}" for k in range(15)]) for i in range(4000)]
    ingestion.write(rows)
    ingestion.write(
        [
            row(0, campaign_id="small", reach_users=["v1:a", "v1:b", "v1:a"]),
            row(1, campaign_id="small", reach_users=None),
        ]
    )
    ingestion.probe.wait_until_caught_up(CAUGHT_UP_S)
    for function, column in (("THETA", REACH_THETA), ("HLL", REACH_HLL)):
        counted = f'APPROX_COUNT_DISTINCT_DS_{function}("{column}")'
        everyone = ingestion.total(counted)
        assert abs(everyone - users - 2) / users < 3 * 0.016, f"{function}: {everyone} of {users} (three sigma)"
        few = ingestion.druid.sql(f"SELECT {counted} AS few FROM \"{ingestion.name}\" WHERE campaign_id = 'small'")
        assert few == [{"few": 2}]


def test_columns_stay_known_while_a_segment_is_partly_on_disk(stack: Endpoints, ingestion: Ingestion):
    """Druid's own view of such a segment has no sketch columns any more, and no other segment has rows."""
    spec = campaign_metrics_supervisor(stack.kafka_bootstrap, datasource=ingestion.name, topic=ingestion.topic)
    spec["spec"]["tuningConfig"]["intermediatePersistPeriod"] = "PT1S"
    spec["context"][FINGERPRINT] = fingerprint(spec)
    assert ingestion.druid.declare_columns(spec)
    assert ingestion.druid.ensure_supervisor(spec)
    metadata = {
        "queryType": "segmentMetadata",
        "dataSource": ingestion.name,
        "intervals": ["2026-01-01/2027-01-01"],
        "merge": True,
        "analysisTypes": [],
    }

    def contradicts_itself() -> bool:
        ingestion.write([row(i, reach_users=["v1:a", "v1:b"]) for i in range(10)])
        found = httpx.post(f"{stack.druid_broker_url}/druid/v2", json=metadata, timeout=30).raise_for_status().json()
        return bool(found) and found[0]["columns"][REACH_HLL].get("errorMessage") is not None

    wait_until("a part of the segment is on disk", contradicts_itself, CAUGHT_UP_S)
    time.sleep(METADATA_REFRESH_S * 1.5)
    assert ingestion.total(f'APPROX_COUNT_DISTINCT_DS_HLL("{REACH_HLL}")') == 2
    assert ingestion.total(f'APPROX_COUNT_DISTINCT_DS_THETA("{REACH_THETA}")') == 2
    assert ingestion.druid.declare_columns(spec) is False


def test_an_open_transaction_is_neither_seen_nor_waited_for(ingestion: Ingestion):
    ingestion.write([row(i) for i in range(10)])
    ingestion.producer.begin_transaction()
    ingestion.producer.produce(ingestion.topic, json.dumps(row(0, clicks=7)), partition=0)
    ingestion.producer.flush()
    assert ingestion.probe.wait_until_caught_up(CAUGHT_UP_S).caught_up
    assert ingestion.total('SUM("clicks")') == 10
    ingestion.producer.commit_transaction(30)
    behind = ingestion.probe.progress()
    assert behind.caught_up or behind.lag_ms >= 0
    ingestion.probe.wait_until_caught_up(CAUGHT_UP_S)
    assert ingestion.total('SUM("clicks")') == 17


def test_totals_hold_while_segments_are_handed_over(ingestion: Ingestion):
    ingestion.write([row(i) for i in range(300)])
    ingestion.probe.wait_until_caught_up(CAUGHT_UP_S)
    ingestion.druid.handoff(ingestion.name)
    hour = datetime.fromtimestamp(START_MS / 1000, UTC)
    deadline = time.monotonic() + CAUGHT_UP_S
    while ingestion.druid.unpublished_segments(ingestion.name, hour, hour + timedelta(hours=1)):
        assert ingestion.total('SUM("clicks")') == 300
        assert time.monotonic() < deadline, "segments were not handed over"
        time.sleep(0.2)
    assert ingestion.total('SUM("clicks")') == 300


def test_a_killed_druid_comes_back_exact_and_says_when_it_is_not(stack: Endpoints, ingestion: Ingestion):
    ingestion.write([row(i) for i in range(400)])
    ingestion.probe.wait_until_caught_up(CAUGHT_UP_S)
    state = control.running(stack)
    assert state is not None
    os.kill(state.components["druid"].pid, signal.SIGKILL)
    ingestion.write([row(i) for i in range(200)])

    ends = ingestion.probe.committed_ends()
    deadline = time.monotonic() + 2 * CAUGHT_UP_S
    while True:
        assert time.monotonic() < deadline, "Druid did not come back"
        try:
            caught_up = ingestion.probe.progress(ends).caught_up
            clicks = ingestion.total('SUM("clicks")')
        except ConnectorError:
            caught_up, clicks = False, None
        if caught_up:
            assert clicks == 600, "who says that all was read must have it all"
            break
        time.sleep(0.3)
