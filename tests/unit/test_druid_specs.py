"""Druid's supervisor spec says what the contract says, and the connector sends it only when it changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from connectors.druid import DruidClient, ensure_supervisors
from connectors.druid_specs import COLUMNS_INTERVAL, FINGERPRINT, campaign_metrics_supervisor, fingerprint
from schemas import campaign_metrics
from schemas.errors import Refused, TimedOut, Unavailable
from schemas.metrics import REACH_SKETCH
from schemas.topics import CAMPAIGN_METRICS


def client(answer) -> DruidClient:
    return DruidClient("http://broker", "http://coordinator", transport=httpx.MockTransport(answer))


def test_every_column_of_the_contract_is_ingested_once():
    schema = campaign_metrics_supervisor("kafka:9092")["spec"]["dataSchema"]
    dimensions = [dimension["name"] for dimension in schema["dimensionsSpec"]["dimensions"]]
    by_type: dict[str, list[str]] = {}
    for metric in schema["metricsSpec"]:
        by_type.setdefault(metric["type"], []).append(metric["fieldName"])
    assert dimensions == list(campaign_metrics.DIMENSIONS)
    assert by_type["longSum"] == list(campaign_metrics.SUMS)
    assert by_type["longMax"] == list(campaign_metrics.MAXIMA)
    assert by_type["thetaSketch"] == by_type["HLLSketchBuild"] == [campaign_metrics.REACH_COLUMN]
    assert schema["timestampSpec"] == {"column": campaign_metrics.TIME_COLUMN, "format": "millis"}
    assert REACH_SKETCH in [metric["name"] for metric in schema["metricsSpec"]]


def test_no_user_id_is_kept_as_a_dimension():
    schema = campaign_metrics_supervisor("kafka:9092")["spec"]["dataSchema"]
    assert campaign_metrics.REACH_COLUMN not in json.dumps(schema["dimensionsSpec"])


def test_rows_of_open_transactions_are_not_read():
    io = campaign_metrics_supervisor("kafka:9092")["spec"]["ioConfig"]
    assert io["consumerProperties"]["isolation.level"] == "read_committed"
    assert io["topic"] == CAMPAIGN_METRICS.name
    assert io["useEarliestOffset"] is True


def test_the_fingerprint_tells_specs_apart_and_leaves_itself_out():
    spec = campaign_metrics_supervisor("kafka:9092")
    assert fingerprint(spec) == spec["context"][FINGERPRINT]
    assert fingerprint(campaign_metrics_supervisor("other:9092")) != fingerprint(spec)


def test_ensure_creates_once_and_sends_no_unchanged_spec():
    kept: dict[str, dict] = {}
    posts = 0
    columns: dict[str, dict] = {}

    def overlord(request: httpx.Request) -> httpx.Response:
        nonlocal posts
        name = request.url.path.rpartition("/")[2]
        if request.url.host == "broker":
            return httpx.Response(200, json=[{"columns": columns}] if columns else [])
        if name == "task":
            schema = json.loads(request.content)["spec"]["dataSchema"]
            assert schema["granularitySpec"]["intervals"] == [COLUMNS_INTERVAL]
            columns.update({c["name"]: {} for c in (*schema["dimensionsSpec"]["dimensions"], *schema["metricsSpec"])})
            return httpx.Response(200, json={"task": "columns"})
        if name == "status":
            return httpx.Response(200, json={"status": {"status": "SUCCESS"}})
        if request.method == "POST":
            posts += 1
            spec = json.loads(request.content)
            kept[spec["spec"]["dataSchema"]["dataSource"]] = spec
            return httpx.Response(200, json={"id": "x"})
        return httpx.Response(200, json=list(kept) if name == "supervisor" else kept[name])

    druid = client(overlord)
    assert ensure_supervisors(druid, "kafka:9092") == {campaign_metrics.DATASOURCE: True}
    assert ensure_supervisors(druid, "kafka:9092") == {campaign_metrics.DATASOURCE: False}
    assert posts == 1
    assert ensure_supervisors(druid, "other:9092") == {campaign_metrics.DATASOURCE: True}, "a changed spec is sent"
    assert posts == 2
    del columns["clicks"]
    assert ensure_supervisors(druid, "other:9092") == {campaign_metrics.DATASOURCE: True}, "a new column is declared"
    assert posts == 2
    assert "clicks" in columns


def test_a_task_that_fails_says_why():
    def druid(request: httpx.Request) -> httpx.Response:
        if request.url.host == "broker":
            return httpx.Response(200, json=[])
        failed = {"status": {"status": "FAILED", "errorMsg": "no slot"}}
        return httpx.Response(200, json={"task": "t"} if request.method == "POST" else failed)

    with pytest.raises(Refused, match="no slot"):
        client(druid).declare_columns(campaign_metrics_supervisor("kafka:9092"))


def test_sql_passes_parameters_by_type():
    sent = {}

    def broker(request: httpx.Request) -> httpx.Response:
        sent.update(json.loads(request.content))
        return httpx.Response(200, json=[{"n": 1}])

    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert client(broker).sql("SELECT ?, ?, ?", ("a'b", 3, moment)) == [{"n": 1}]
    assert sent["query"] == "SELECT ?, ?, ?", "values never become part of the query's text"
    assert sent["parameters"] == [
        {"type": "VARCHAR", "value": "a'b"},
        {"type": "BIGINT", "value": 3},
        {"type": "TIMESTAMP", "value": "2026-03-01 12:30:00"},
    ]


def test_a_datasource_without_a_segment_is_empty():
    message = "Object 'campaign_metrics_v1' not found (line [1], column [22])"
    druid = client(lambda _: httpx.Response(400, json={"errorMessage": message}))
    assert druid.sql("SELECT 1 FROM campaign_metrics_v1") == []


@pytest.mark.parametrize(
    ("status", "error"), [(400, Refused), (404, Refused), (429, Unavailable), (500, Unavailable), (504, TimedOut)]
)
def test_bad_answers_become_our_errors(status, error):
    druid = client(lambda _: httpx.Response(status, json={"errorMessage": "Incorrect syntax"}))
    with pytest.raises(error, match="Incorrect syntax"):
        druid.sql("SELECT")


@pytest.mark.parametrize(
    ("raised", "error"),
    [(httpx.ConnectError("refused"), Unavailable), (httpx.ReadTimeout("slow"), TimedOut)],
)
def test_broken_connections_become_our_errors(raised, error):
    def fail(_request):
        raise raised

    with pytest.raises(error, match="/druid/v2/sql"):
        client(fail).sql("SELECT 1")


def test_a_reading_task_that_does_not_answer_counts_for_nothing():
    def overlord(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("campaign_metrics_v1/status"):
            payload = {
                "stream": "campaign-metrics-v1",
                "detailedState": "RUNNING",
                "healthy": True,
                "suspended": False,
                "activeTasks": [{"id": "task_1", "currentOffsets": {"0": 7, "1": None}}],
            }
            return httpx.Response(200, json={"payload": payload})
        if request.url.path.endswith("task_1/status") and request.url.host == "coordinator":
            return httpx.Response(200, json={"status": {"location": {"host": "worker", "port": 8091}}})
        return httpx.Response(404, text="no such task")

    druid = client(overlord)
    status = druid.supervisor_status("campaign_metrics_v1")
    assert status.offsets == {0: 7}
    assert druid.reading_tasks("campaign_metrics_v1") == []
