"""What a report may ask for, how it becomes SQL, and how rows are labelled. No Druid here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from serving.reporting.answer import report_rows
from serving.reporting.data_status import DataStatus, status_of
from serving.reporting.query import QueryError, parse

NOW = datetime(2026, 3, 29, 12, 0, 30, tzinfo=UTC)


def asked(**given):
    defaults = {
        "dimensions": "campaign,hour",
        "metrics": "impressions",
        "start": None,
        "end": None,
        "time_zone": "UTC",
        "filters": (),
        "order": None,
        "limit": 100,
        "offset": 0,
        "now": NOW,
        "max_days": 400,
        "max_rows": 1000,
    }
    return parse(**{**defaults, **given})


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"metrics": "impresions"}, "unknown_metric"),
        ({"metrics": " , "}, "no_metric"),
        ({"dimensions": "user_pseudonym"}, "unknown_dimension"),
        ({"dimensions": "hour,day"}, "two_grains"),
        ({"start": "yesterday"}, "bad_time"),
        ({"start": "99999999999999999999"}, "bad_time"),
        ({"start": "2026-03-02", "end": "2026-03-01"}, "empty_interval"),
        ({"start": "2020-01-01", "end": "2026-01-01"}, "interval_too_long"),
        ({"time_zone": "Europe/Atlantis"}, "unknown_time_zone"),
        ({"time_zone": "UTC', 1) --"}, "unknown_time_zone"),
        ({"time_zone": "../../etc/passwd"}, "unknown_time_zone"),
        ({"filters": ["country"]}, "bad_filter"),
        ({"filters": ["country:"]}, "bad_filter"),
        ({"filters": ['country" OR 1=1 --:DE']}, "unknown_dimension"),
        ({"order": "-clicks"}, "unknown_order"),
        ({"limit": 1001}, "page_too_long"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(given, code):
    with pytest.raises(QueryError) as caught:
        asked(**given)
    assert caught.value.code == code
    assert caught.value.reason


def test_values_travel_as_parameters():
    sql, parameters = asked(filters=["country:DE,A'T", "device_type!:tv"]).as_sql()
    assert "A'T" not in sql
    assert parameters[2:] == ["DE", "A'T", "tv"]
    assert sql.count("?") == len(parameters)
    assert '("device_type" IS NULL OR "device_type" NOT IN (?))' in sql


def test_a_page_asks_for_one_row_more():
    sql, _ = asked(limit=10, offset=20).as_sql()
    assert sql.endswith("LIMIT 11 OFFSET 20")


def test_money_is_always_split_by_currency():
    assert asked(dimensions="", metrics="spend_micros").dimensions == ("currency",)
    assert asked(dimensions="", metrics="net_spend_micros").dimensions == ("currency",)
    assert asked(dimensions="", metrics="impressions,net_impressions").dimensions == ()


def test_frequency_brings_the_reach_that_its_threshold_needs():
    sql, _ = asked(metrics="frequency").as_sql()
    assert 'AS "reach"' in sql
    assert 'AS "reach"' not in asked(metrics="impressions").as_sql()[0]


def test_times_are_read_in_the_reports_zone():
    query = asked(start="2026-03-28", end="2026-03-29", time_zone="Europe/Berlin")
    assert query.start == datetime(2026, 3, 27, 23, tzinfo=UTC)
    assert query.end == datetime(2026, 3, 28, 23, tzinfo=UTC)
    moment = datetime(2026, 3, 28, 9, tzinfo=UTC)
    for text in ("2026-03-28T10:00:00+01:00", "2026-03-28T10:00:00 01:00", "2026-03-28T09:00Z", "1774688400000"):
        assert asked(start=text).start == moment


def test_the_interval_is_widened_to_whole_minutes():
    query = asked(start="2026-03-29T10:00:59")
    assert query.start == datetime(2026, 3, 29, 10, 0, tzinfo=UTC)
    assert query.end == datetime(2026, 3, 29, 12, 1, tzinfo=UTC), "now, 12:00:30, is in it"


def test_the_day_that_the_clocks_change_has_23_hours():
    query = asked(dimensions="day", start="2026-03-29", end="2026-03-30", time_zone="Europe/Berlin")
    begin, end = query.interval_of(query.start)
    assert end - begin == timedelta(hours=23)
    assert "'P1D', NULL, 'Europe/Berlin'" in query.as_sql()[0]


HOUR = datetime(2026, 3, 1, 10, tzinfo=UTC)
NEXT = HOUR + timedelta(hours=1)


@pytest.mark.parametrize(
    ("start", "end", "hours", "status"),
    [
        (HOUR, NEXT, {}, DataStatus.STREAMING),
        (HOUR, NEXT, {HOUR: DataStatus.CORRECTED}, DataStatus.CORRECTED),
        (HOUR, NEXT, {HOUR: DataStatus.FINAL}, DataStatus.FINAL),
        (HOUR, NEXT + timedelta(minutes=1), {HOUR: DataStatus.FINAL}, DataStatus.STREAMING),
        (
            HOUR + timedelta(minutes=30),
            NEXT + timedelta(minutes=30),
            {HOUR: DataStatus.FINAL, NEXT: DataStatus.CORRECTED},
            DataStatus.CORRECTED,
        ),
    ],
)
def test_a_row_is_as_final_as_its_least_final_hour(start, end, hours, status):
    assert status_of(start, end, hours) is status


def rows_of(query, rows, **given):
    defaults = {"names": {"campaign": {"c1": "Spring"}}, "min_users": 50, "hours": {}}
    return report_rows(query, rows, **{**defaults, **given})


def test_rows_have_local_times_names_and_a_status():
    query = asked(start="2026-03-01", end="2026-03-02", time_zone="Asia/Kolkata")
    druid = {"hour": "2026-03-01T04:30:00.000Z", "campaign": "c1", "impressions": 3}
    assert rows_of(query, [druid]) == [
        {
            "hour": "2026-03-01T10:00:00+05:30",
            "campaign": "c1",
            "campaign_name": "Spring",
            "impressions": 3,
            "data_status": "streaming",
        }
    ]


@pytest.mark.parametrize(("reach", "shown"), [(0, True), (1, False), (49, False), (50, True)])
def test_small_counts_of_users_are_withheld_with_a_reason(reach, shown):
    query = asked(dimensions="", metrics="impressions,frequency")
    (row,) = rows_of(query, [{"impressions": 80, "frequency": 1.6, "reach": reach}])
    assert row["impressions"] == 80, "only metrics of users are withheld"
    assert row["frequency"] == (1.6 if shown else None)
    assert row.get("suppressed") == (None if shown else {"frequency": "fewer than 50 users"})
    assert "reach" not in row, "it was not asked for"
