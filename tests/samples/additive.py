"""Rows of campaign-metrics-v1 as their readers see them: whatever has the same minute and dimensions is added up."""

from __future__ import annotations

from typing import Any

from schemas.campaign_metrics import DIMENSIONS, MAXIMA, REACH_COLUMN, SUMS, TIME_COLUMN


def add_up(rows: dict[Any, dict[str, Any]], row: dict[str, Any]) -> None:
    """Adds a row to those that are there, by its key. A row leaves out what its job does not count."""
    row = {**dict.fromkeys((*SUMS, *MAXIMA), 0), **row}
    key = (row[TIME_COLUMN], *(row[name] for name in DIMENSIONS))
    users = set(row.get(REACH_COLUMN) or ())
    if key not in rows:
        rows[key] = {**row, REACH_COLUMN: sorted(users)}
        return
    sums = rows[key]
    for name in SUMS:
        sums[name] += row[name]
    for name in MAXIMA:
        sums[name] = max(sums[name], row[name])
    sums[REACH_COLUMN] = sorted(users | set(sums[REACH_COLUMN]))
