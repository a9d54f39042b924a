"""Every golden case through the jobs' own SQL, in one Flink in this process, over bounded tables of the same names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from connectors.flink.session import streaming_session
from connectors.flink.tables import KEY_COLUMN, columns
from jobs.streaming.application import JOBS
from jobs.streaming.tables import SINKS, select_statement
from jobs.streaming.views import (
    CLOCK,
    DECISION_COLUMNS,
    DECISIONS,
    views,
)
from schemas.codec import Encoder, decode, parsed_schema, split_header
from tests.samples import counted
from tests.samples.additive import add_up, as_written
from tests.samples.bounded_source import json_line, source_ddl, source_row
from tests.samples.counters import unpacked
from tests.samples.golden import SETTINGS, Case, cases, differences, rows_of

ENCODE = Encoder("ad_event", schema_id=7)
CASES = cases(tuple(JOBS))
#: Deployed alone too: those whose rows depend on which copy of an event came first, each at the cost of a JVM.
ALONE = cases(("campaign_metrics", "attribution", "invalid_traffic"))
Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Rows of every output of every job over the events of all cases, all jobs in one deployment."""
    return _outputs(tuple(JOBS), tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def outputs_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Tables]]]:
    """The same of jobs deployed alone, each in a process of its own: our Java is compiled for a deployment's columns,
    and a JVM keeps what it has loaded."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        yield {
            name: pool.submit(_outputs, (name,), tmp_path_factory.mktemp(name))
            for name in sorted({case.job for case in ALONE})
        }


def _outputs(names: tuple[str, ...], folder: Path) -> Tables:
    """Rows of every output of a deployment of some jobs over the events of all cases, the last of each key."""
    source = folder / "events.json"
    events = sorted((event for case in CASES for event in case.events), key=lambda e: e["published_time_ms"])
    source.write_text("".join(_json_line(event, offset) for offset, event in enumerate(events)))
    jobs = [JOBS[name](SETTINGS) for name in names]
    session = streaming_session({"parallelism.default": "1", "table.exec.state.ttl": "1 d"}, counted.java())
    decisions = folder / "decisions.json"
    decisions.write_text("".join(json.dumps(d) + "\n" for case in CASES for d in case.decisions))
    for statement in (source_ddl(source, SETTINGS), _clock_ddl(), _decisions_ddl(decisions)):
        session.execute_sql(statement)
    for view in views(jobs, SETTINGS):
        session.execute_sql(f"CREATE TEMPORARY VIEW `{view.name}` AS {view.query}")
    found: Tables = {}
    for job in jobs:
        for view in job.views:
            session.execute_sql(f"CREATE TEMPORARY VIEW `{view.name}` AS {view.query}")
        for output in job.outputs:
            if SINKS[output.table].kind == "counted":
                last = {row["counter_key"]: row for row in counted.counted_rows(session, output, SETTINGS, folder)}
                found[output.table] = unpacked(last.values(), events)
            else:
                found[output.table] = _as_read(output.table, session.execute_sql(select_statement(output)))
    return found


def _decisions_ddl(path: Path) -> str:
    parts = ", ".join(column.ddl for column in columns("ad_decision", DECISION_COLUMNS))
    return (
        f"CREATE TEMPORARY TABLE `{DECISIONS}` ({parts}) "
        f"WITH ('connector' = 'filesystem', 'path' = '{path.as_uri()}', 'format' = 'json')"
    )


def _clock_ddl() -> str:
    return (
        f"CREATE TEMPORARY TABLE `{CLOCK}` (`tick` BIGINT, `rowtime` AS CAST(CURRENT_TIMESTAMP AS TIMESTAMP_LTZ(3)), "
        "WATERMARK FOR `rowtime` AS `rowtime`) "
        "WITH ('connector' = 'datagen', 'number-of-rows' = '1', 'fields.tick.min' = '0')"
    )


def _json_line(event: dict[str, Any], offset: int) -> str:
    key = {KEY_COLUMN: event["record_id"].encode()}
    place = {"kafka_partition": 0, "kafka_offset": offset}
    return json_line(source_row(event, schema_id=ENCODE.schema_id, raw=ENCODE(event), **place, **key))


def _as_read(table: str, result: Any) -> list[dict[str, Any]]:
    """The rows as a reader of the topic sees them: the last of each key, deltas added up, bytes decoded."""
    sink = SINKS[table]
    names = [column.name for column in sink.columns]
    rows: dict[Any, dict[str, Any]] = {}
    with result.collect() as found:
        for number, values in enumerate(found):
            row = dict(zip(names, values, strict=True))
            if sink.kind == "additive":
                add_up(rows, as_written(row))
            elif sink.kind == "raw":
                rows[number] = decode(split_header(bytes(row["raw"]))[1], parsed_schema("ad_event"))
            else:  # of a row that is revised the last revision counts
                of_key = sink.kind == "absolute" or "revision" in names
                key = row[str(sink.key)] if of_key else number
                if key not in rows or row.get("revision", 0) >= rows[key].get("revision", 0):
                    rows[key] = row
    return list(rows.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.job}-{case.name}")
def test_flink_gives_the_expected_rows(case: Case, outputs: Tables) -> None:
    _assert_expected(case, outputs)


@pytest.mark.parametrize("case", ALONE, ids=lambda case: f"{case.job}-{case.name}")
def test_a_job_alone_gives_the_expected_rows(case: Case, outputs_alone: dict[str, Future[Tables]]) -> None:
    """Without the jobs that keep an ad's life, copies are told apart by `first_copies` instead."""
    _assert_expected(case, outputs_alone[case.job].result())


def _assert_expected(case: Case, outputs: Tables) -> None:
    expected_of = {output.table for output in JOBS[case.job](SETTINGS).outputs}
    assert set(case.expected) <= expected_of, "a table that the job does not write"
    wrong = [w for table in expected_of for w in differences(case, table, rows_of(case, outputs[table]))]
    assert not wrong, "\n".join([case.why, *wrong])
