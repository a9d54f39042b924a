"""A report's rows as the API gives them: local times, names beside ids, small counts of users withheld, data status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.catalog import Catalog
from schemas.metrics import BY_NAME, Metric
from serving.reporting.data_status import DataStatus, status_of
from serving.reporting.query import REACH_COLUMN, ReportQuery

Row = dict[str, Any]

#: Dimensions whose ids have names, to the catalogue's list of them.
_NAMED = {"advertiser": "advertisers", "campaign": "campaigns", "publisher": "publishers"}


def names_of(catalog: Catalog) -> dict[str, dict[str, str]]:
    """For each dimension that has names: id to name."""
    return {dimension: {item.id: item.name for item in getattr(catalog, room)} for dimension, room in _NAMED.items()}


def report_rows(
    query: ReportQuery,
    rows: Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, Mapping[str, str]],
    min_users: int,
    hours: Mapping[datetime, DataStatus],
) -> list[Row]:
    """The page's rows, at most `query.limit` of them.

    A metric of users is null where fewer than `min_users` stand behind it; `suppressed` then says why.
    """
    return [_row(query, row, names, min_users, hours) for row in rows[: query.limit]]


def _row(
    query: ReportQuery,
    row: Mapping[str, Any],
    names: Mapping[str, Mapping[str, str]],
    min_users: int,
    hours: Mapping[datetime, DataStatus],
) -> Row:
    out: Row = {}
    begin = query.start
    if query.grain:
        begin = datetime.fromisoformat(row[query.grain]).astimezone(UTC)
        out[query.grain] = begin.astimezone(query.zone).isoformat()
    for dimension in query.dimensions:
        out[dimension] = row[dimension]
        if dimension in names:
            out[f"{dimension}_name"] = names[dimension].get(row[dimension])
    too_few = query.reads_users and 0 < row[REACH_COLUMN] < min_users
    suppressed = {}
    for name in query.metrics:
        withheld = too_few and BY_NAME[name].is_user_level
        out[name] = None if withheld else row[name]
        if withheld:
            suppressed[name] = f"fewer than {min_users} users"
    if suppressed:
        out["suppressed"] = suppressed
    out["data_status"] = status_of(*query.interval_of(begin), hours).label
    return out


def columns_of(query: ReportQuery) -> list[dict[str, str]]:
    """What each column of the report is, for a client that shows it."""
    keys = ([query.grain] if query.grain else []) + list(query.dimensions)
    dimensions = [{"name": name, "kind": "dimension", "type": "string"} for name in keys]
    return dimensions + [described(BY_NAME[name]) for name in query.metrics]


def described(metric: Metric) -> dict[str, str]:
    """What a metric is, in words and units."""
    return {
        "name": metric.name,
        "kind": metric.kind,
        "type": metric.type,
        "unit": metric.unit,
        "meaning": metric.meaning,
    }
