"""Kafka → bronze with the real broker and registry: killed again and again, every committed record is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from deltalake import DeltaTable

from connectors.delta import sql, table_uri
from connectors.endpoints import Endpoints
from connectors.kafka import consumer, end_offsets, transactional_producer
from connectors.registry import NotRegistered, SchemaRegistry
from jobs.lake.drain import drain
from jobs.lake.tables import BRONZE
from schemas import topics
from schemas.codec import Encoder, decode, parsed_schema, schema_text, split_header
from schemas.errors import ContractError, RejectReason, TimedOut, Unavailable
from tests.samples.ad_traffic import Traffic, traffic
from tests.samples.faults import ROUNDS, rng_of

START_TIMEOUT_S, DRAIN_TIMEOUT_S = 90.0, 180.0
KILLS = max(ROUNDS, 4)
Position = tuple[int, int]


@contextmanager
def worker(where: Endpoints, lake_uri: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "HEADWATER_PORT_BASE": str(where.port_base),
        "HEADWATER_HOME": str(where.home),
        "HEADWATER_LAKE_URI": lake_uri,
        **settings,
    }
    with log.open("ab") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "jobs.lake"], env=environment, stderr=stderr)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def status_url(where: Endpoints) -> str:
    return f"http://{where.host}:{where.port('lake_metrics')}"


def wait_for_commit(where: Endpoints, process: subprocess.Popen[bytes], lake_uri: str, rows_before: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while bronze_rows(lake_uri) <= rows_before:
        assert process.poll() is None, "the worker ended by itself"
        assert time.monotonic() < deadline_s, "no commit"
        time.sleep(0.02)


def bronze_rows(lake_uri: str) -> int:
    uri = table_uri("bronze/ad_events", lake_uri)
    if not Path(uri, "_delta_log").is_dir() or not DeltaTable.is_deltatable(uri):
        return 0
    return sql("SELECT count(*) AS n FROM t", t=DeltaTable(uri)).to_pylist()[0]["n"]


def bronze_positions(lake_uri: str) -> list[Position]:
    handle = DeltaTable(table_uri("bronze/ad_events", lake_uri))
    return [
        (r["kafka_partition"], r["kafka_offset"])
        for r in sql("SELECT kafka_partition, kafka_offset FROM t", t=handle).to_pylist()
    ]


def committed_records(topic: str) -> Iterator[tuple[Position, bytes]]:
    """Every record that a reader of committed records sees."""
    ends = end_offsets(topic)
    reader = consumer("lake-test", f"lake-test-{time.time_ns()}", [topic], {"enable.partition.eof": True})
    done: set[int] = {p for p, end in ends.items() if end == 0}
    try:
        while len(done) < len(ends):
            message = reader.poll(10)
            assert message is not None, "the topic went silent"
            if message.error():
                done.add(message.partition())
            else:
                yield (message.partition(), message.offset()), message.value()
    finally:
        reader.close()


def refusal(registry: SchemaRegistry, value: bytes) -> RejectReason | None:
    """Why a record can't be read, found without the worker's code."""
    try:
        schema_id, payload = split_header(value)
        decode(payload, registry.schema(schema_id), parsed_schema("ad_event"))
    except NotRegistered:
        return RejectReason.UNKNOWN_SCHEMA
    except ContractError:
        return RejectReason.UNDECODABLE
    return None


def produce(registry: SchemaRegistry, made: Traffic, name: str) -> None:
    """Events in one transaction, some that can't be read, and others in a transaction that is aborted."""
    topic = topics.AD_EVENTS
    encode = Encoder("ad_event", registry.register(topic.subject, schema_text("ad_event")))
    producer = transactional_producer(name, name)
    producer.begin_transaction()
    for n, event in enumerate(made.events):
        producer.produce(topic.name, encode(event), event["record_id"].encode())
        if n % 200 == 0:
            producer.produce(topic.name, b"rubbish", b"bad")
            producer.produce(topic.name, b"\x00\x7f\xff\xff\xff" + encode(event)[5:], b"bad")
            producer.produce(topic.name, encode(event)[:40], b"bad")
    producer.commit_transaction(60)
    producer.begin_transaction()
    for event in made.events[:50]:
        producer.produce(topic.name, encode(event), b"aborted")
    producer.flush(30)
    producer.abort_transaction(60)


def test_killed_at_any_moment_every_committed_record_is_in_bronze_once(
    local_services: Endpoints, tmp_path: Path
) -> None:
    registry, rng = SchemaRegistry(), rng_of("lake")
    lake_uri, log = str(tmp_path / "lake"), tmp_path / "worker.log"
    eager = {
        "HEADWATER_LAKE_COMMIT_INTERVAL_S": "0.05",
        "HEADWATER_LAKE_MAX_BUFFERED_ROWS": "60",
        "HEADWATER_LAKE_POLL_RECORDS": "60",
    }
    for kill in range(KILLS):
        produce(registry, traffic(seed=kill, ads=300), f"lake-test-{kill}")
        rows = bronze_rows(lake_uri)
        with worker(local_services, lake_uri, log, **eager) as process:
            wait_for_commit(local_services, process, lake_uri, rows)
            time.sleep(rng.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    with worker(local_services, lake_uri, log):
        drain(status_url(local_services), DRAIN_TIMEOUT_S)
    records = dict(committed_records(topics.AD_EVENTS.name))
    refusals = {position: refusal(registry, value) for position, value in records.items()}
    found = bronze_positions(lake_uri)
    assert len(found) == len(set(found)), "a record is in bronze twice"
    assert set(found) == {position for position, reason in refusals.items() if reason is None}

    letters = [
        decode(split_header(value)[1], parsed_schema("dead_letter"))
        for _, value in committed_records(topics.AD_EVENTS_DLQ.name)
    ]
    ours = {
        (x["partition"], x["offset"]): x
        for x in letters
        if x["job"] == "lake" and x["source_topic"] == topics.AD_EVENTS.name
    }
    refused = {position: reason for position, reason in refusals.items() if reason}
    assert {position: ours[position]["reason"] for position in refused} == refused
    assert set(refused.values()) == {RejectReason.UNKNOWN_SCHEMA, RejectReason.UNDECODABLE}
    for position, reason in refused.items():
        assert ours[position]["raw"] == records[position]
        if reason == RejectReason.UNKNOWN_SCHEMA:
            assert ours[position]["schema_id"] == int.from_bytes(records[position][1:5], "big")


def test_metrics_status_and_a_second_worker_that_finds_nothing_to_do(local_services: Endpoints, tmp_path: Path) -> None:
    lake_uri, log = str(tmp_path / "lake"), tmp_path / "worker.log"
    with worker(local_services, lake_uri, log):
        reached = drain(status_url(local_services), DRAIN_TIMEOUT_S)
        assert reached[topics.AD_EVENTS.name] > 0
        shown = httpx.get(status_url(local_services) + "/status").json()
        assert shown["ready"] is True
        assert set(shown["topics"]) == {t.topic.name for t in BRONZE}
        assert "lake_rows_total" in httpx.get(status_url(local_services) + "/metrics").text
    before = DeltaTable(table_uri("bronze/ad_events", lake_uri)).version()
    with worker(local_services, lake_uri, log):
        drain(status_url(local_services), DRAIN_TIMEOUT_S)
    assert DeltaTable(table_uri("bronze/ad_events", lake_uri)).version() == before


def test_drain_says_when_nobody_answers(local_services: Endpoints) -> None:
    with pytest.raises((Unavailable, TimedOut)):
        drain(status_url(local_services), timeout_s=0.5)
