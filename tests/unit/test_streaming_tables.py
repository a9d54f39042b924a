"""DDL made from the contracts, names of deployments, and what goes into an application."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connectors.endpoints import Endpoints
from connectors.flink.rest import Deployment, latest_checkpoint
from connectors.flink.tables import Cluster, columns, flink_type, source_ddl
from jobs.streaming.application import ALL_JOBS, JOBS, Application, deployment_name, jobs_of
from jobs.streaming.counters import declared, kept_s
from jobs.streaming.deploy import overlapping
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, Sink
from schemas.counters import COUNTERS, FREQUENCY_COUNTERS, LIFETIME_KEPT_S
from schemas.errors import ConfigError
from schemas.topics import AD_EVENTS

CLUSTER = Cluster("kafka:9092", "http://registry/apis/ccompat/v7")


def application(*names: str) -> Application:
    return Application.of(names or tuple(JOBS), Settings(), Endpoints(home=Path("/nowhere")))


@pytest.mark.parametrize(
    "schema", sorted({t.schema for t in (AD_EVENTS, *(sink.topic for sink in SINKS.values())) if t.schema})
)
def test_every_schema_has_flink_types(schema: str) -> None:
    assert columns(schema)


@pytest.mark.parametrize(
    "avro_type",
    [
        {"type": "enum", "name": "e", "symbols": ["a"]},
        {"type": "fixed", "name": "f", "size": 16},
        ["null", "string", "long"],
        "null",
    ],
)
def test_types_that_flink_would_not_write_are_refused(avro_type: object) -> None:
    with pytest.raises(ValueError, match="no Flink type"):
        flink_type(avro_type)


def test_the_source_reads_committed_records_and_survives_bad_ones() -> None:
    ddl = source_ddl("ad_events", AD_EVENTS, CLUSTER, group="g")
    assert "'properties.isolation.level' = 'read_committed'" in ddl
    assert "'value.format' = 'row-avro-confluent'" in ddl
    assert "`user_pseudonym` STRING,\n" in ddl
    assert "`event_id` BYTES NOT NULL" in ddl


def test_transactional_ids_are_unique_and_topics_are_written_by_their_producers() -> None:
    prefixes = []
    for name, build in JOBS.items():
        for output in build(Settings()).outputs:
            sink = SINKS[output.table]
            assert name in sink.topic.producers, f"{name} is no producer of {sink.topic.name}"
            ddl = sink.ddl(name, CLUSTER, Settings())
            if not _is_absolute(sink):
                assert "'sink.transaction-naming-strategy' = 'POOLING'" in ddl
                prefixes.append(next(line for line in ddl.splitlines() if "transactional-id-prefix" in line))
            assert sink.topic.compacted == _is_absolute(sink)
    assert len(prefixes) == len(set(prefixes)) == sum(not _is_absolute(sink) for sink in SINKS.values())


def _is_absolute(sink: Sink) -> bool:
    return sink.kind in ("absolute", "counted")


def test_a_quote_in_a_schema_text_does_not_end_the_option() -> None:
    assert "''house'' for house ads" in SINKS["ad_sessions"].ddl("ad_sessions", CLUSTER, Settings())


def test_deployment_names_lead_back_to_their_jobs() -> None:
    assert deployment_name(list(JOBS)) == ALL_JOBS
    assert jobs_of(ALL_JOBS) == set(JOBS)
    assert jobs_of(deployment_name(["campaign_spend", "ad_sessions"])) == {"ad_sessions", "campaign_spend"}
    assert jobs_of("somebody-elses-job") == frozenset()
    with pytest.raises(ConfigError, match="no such stream job: nonsense"):
        deployment_name(["ad_sessions", "nonsense"])


def test_two_deployments_may_not_run_one_job() -> None:
    running = [
        Deployment("1", "ad_sessions", "RUNNING", 0),
        Deployment("2", "campaign_spend", "CANCELED", 0),
        Deployment("3", "other", "RUNNING", 0),
    ]
    assert overlapping(running, JOBS) == running[0]
    assert overlapping(running, ["campaign_spend"]) is None


def test_one_job_alone_declares_only_its_own_sinks() -> None:
    ddl, inserts = application("campaign_spend").statements()
    assert len(inserts) == 1
    assert sum("sink.delivery-guarantee" in statement for statement in ddl) == 1
    _all_ddl, all_inserts = application().statements()
    assert len(all_inserts) == len(SINKS)


def test_a_counter_is_one_line_and_an_entity_lives_as_long_as_its_longest() -> None:
    lines = declared(FREQUENCY_COUNTERS).splitlines()
    assert len(lines) == len(set(lines)) == len(FREQUENCY_COUNTERS)
    assert kept_s(FREQUENCY_COUNTERS) == LIFETIME_KEPT_S + 86_400
    ddl = SINKS["frequency_counts"].ddl("frequency_counts", CLUSTER, Settings())
    assert f"'counters.declaration' = '{declared(FREQUENCY_COUNTERS)}'" in ddl


def test_counters_of_a_bucket_are_declared_beside_each_other() -> None:
    """A bucket is looked up once for them."""
    lines = [line.split() for line in declared(COUNTERS).splitlines()]
    buckets = [(entity, bucket_s) for _code, entity, _ids, _absent, _scope, _types, bucket_s, _kept, _cost in lines]
    assert len(lines) == len(COUNTERS)
    assert [key for n, key in enumerate(buckets) if key != buckets[n - 1]] == sorted(set(buckets), key=buckets.index)


def test_decisions_are_a_source_of_the_jobs_that_read_them() -> None:
    def sources(*names: str) -> int:
        return sum("'connector' = 'kafka'" in s and "'scan." in s for s in application(*names).statements()[0])

    assert sources("campaign_spend") == 2
    assert sources("frequency_counts", "ad_sessions") == 1


def test_the_latest_complete_checkpoint_is_found_whichever_run_wrote_it(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for age, name in enumerate(("run-b/chk-9", "run-a/chk-10")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "_metadata").touch()
        os.utime(tmp_path / name / "_metadata", (age, age))
    (tmp_path / "run-a" / "chk-11").mkdir()  # not complete: Flink writes _metadata last
    assert latest_checkpoint(tmp_path) == tmp_path / "run-a" / "chk-10"
