"""The reporting API on the running stack: its numbers are Druid's, its keys are those of the secrets folder."""

from __future__ import annotations

import httpx
import pytest

from connectors.api_keys import ADMIN, FILE_NAME, read_keys
from connectors.druid import DruidClient
from connectors.endpoints import Endpoints
from schemas.campaign_metrics import DATASOURCE
from schemas.metrics import METRICS, REPORT_DIMENSIONS

EVER = {"from": "2026-01-01", "to": "2027-01-01"}


@pytest.fixture
def keys(stack: Endpoints) -> dict[str, str]:
    return read_keys(stack.secrets / FILE_NAME)


def _log_says(stack: Endpoints) -> str:
    """The last lines of the service's log: an answer of 500 says no more than that they say why."""
    return "\n".join((stack.home / "logs" / "reporting.log").read_text().splitlines()[-3:])


def ask(stack: Endpoints, key: str, path: str = "/v1/report", **parameters: str) -> dict:
    answer = httpx.get(
        stack.reporting_url + path,
        params=parameters,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    assert answer.status_code == 200, f"{answer.text}\n{_log_says(stack)}"
    return answer.json()


def test_every_metric_by_every_dimension_is_answered(stack: Endpoints, keys: dict[str, str]):
    names = ",".join(metric.name for metric in METRICS)
    for dimension in (*REPORT_DIMENSIONS, "minute", "hour", "day", "week", "month"):
        page = ask(stack, keys[ADMIN], metrics=names, dimensions=dimension, time_zone="Europe/Berlin", **EVER)
        assert {column["name"] for column in page["columns"]} >= {metric.name for metric in METRICS}
        assert all(row["data_status"] == "streaming" for row in page["rows"])


def test_parts_add_up_to_druids_totals(stack: Endpoints, keys: dict[str, str]):
    with DruidClient.of(stack) as druid:
        totals = druid.sql(
            f'SELECT SUM("impressions") AS impressions, SUM("spend_micros") AS spend_micros FROM "{DATASOURCE}" '
            "WHERE __time >= TIMESTAMP '2026-01-01' AND __time < TIMESTAMP '2027-01-01'"
        )
    wanted = totals[0] if totals else {"impressions": 0, "spend_micros": 0}
    for dimensions in ("campaign,hour", "creative,country,minute", "day"):
        rows = ask(
            stack, keys[ADMIN], metrics="impressions,spend_micros", dimensions=dimensions, limit="10000", **EVER
        )["rows"]
        for name in ("impressions", "spend_micros"):
            assert sum(row[name] for row in rows) == (wanted[name] or 0)


def test_the_advertisers_parts_are_the_whole(stack: Endpoints, keys: dict[str, str]):
    def impressions(key: str) -> int:
        rows = ask(stack, key, metrics="impressions", dimensions="campaign", filter="bidder!:x", **EVER)["rows"]
        return sum(row["impressions"] for row in rows)

    page = ask(stack, keys[ADMIN], metrics="impressions", dimensions="advertiser", **EVER)
    for row in page["rows"]:
        if row["advertiser"] in keys:
            assert impressions(keys[row["advertiser"]]) == row["impressions"]


def test_freshness_is_known(stack: Endpoints, keys: dict[str, str]):
    freshness = ask(stack, keys[ADMIN], "/v1/freshness")
    assert freshness["checked_time"] is not None
    assert freshness["is_behind"] is (freshness["behind_reason"] is not None)


def test_the_page_for_people_and_the_one_for_programs_answer(stack: Endpoints):
    assert "swagger" in httpx.get(f"{stack.reporting_url}/docs").text.lower()
    assert httpx.get(f"{stack.reporting_url}/status").status_code == 200
    assert httpx.get(f"{stack.reporting_url}/v1/report", params={"metrics": "clicks"}).status_code == 401
