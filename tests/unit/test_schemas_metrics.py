"""The metrics of reports: every one made of columns that exist, ratios as quotients of sums."""

from __future__ import annotations

import re

import pytest

from connectors import druid_specs
from schemas.campaign_metrics import DIMENSIONS, INVALID_TRAFFIC_SUMS, SUMS
from schemas.metrics import BY_NAME, GRAINS, METRICS, MONEY_COLUMNS, REACH_SKETCH, REPORT_DIMENSIONS

COLUMNS = {*SUMS, REACH_SKETCH}


def test_names_are_unique_and_apart_from_dimensions():
    assert len(BY_NAME) == len(METRICS)
    assert not set(BY_NAME) & (set(REPORT_DIMENSIONS) | set(GRAINS))


def test_every_summed_column_can_be_asked_for():
    assert set(SUMS) <= set(BY_NAME)
    assert set(REPORT_DIMENSIONS.values()) == set(DIMENSIONS)
    assert REACH_SKETCH == druid_specs.REACH_HLL


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_sql_reads_only_columns_of_the_contract(metric):
    assert set(re.findall(r'"(\w+)"', metric.sql)) <= COLUMNS


def test_net_is_gross_without_every_column_of_invalid_traffic():
    net = {metric.of: metric for metric in METRICS if metric.less}
    assert set(net) == {"impressions", "clicks", "spend_micros"}
    assert sorted(column for metric in net.values() for column in metric.less) == sorted(INVALID_TRAFFIC_SUMS)
    assert net["clicks"].sql == (
        'COALESCE(SUM("clicks"), 0) - COALESCE(SUM("givt_clicks"), 0) - COALESCE(SUM("sivt_clicks"), 0)'
    )
    assert net["spend_micros"].is_money and net["impressions"].type == "int"


@pytest.mark.parametrize("metric", [m for m in METRICS if m.kind == "ratio"], ids=lambda metric: metric.name)
def test_a_ratio_is_a_quotient_of_sums_that_survives_zero(metric):
    assert "AVG" not in metric.sql
    assert "/ NULLIF(" in metric.sql
    assert metric.type == ("int" if metric.unit == "micros" else "float")


def test_money_and_users_are_known_as_such():
    assert {m.name for m in METRICS if m.is_money} >= {*MONEY_COLUMNS, "roas", "ecpm_micros"}
    assert not BY_NAME["impressions"].is_money
    assert {m.name for m in METRICS if m.is_user_level} == {"reach", "frequency"}
