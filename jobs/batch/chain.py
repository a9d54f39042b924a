"""The whole chain in one Spark session: silver, campaign_hourly, counters, click rates, training set.

Each step is checked by its gate before it is written, so a reader never sees a batch that failed. Running it twice on
the same bronze gives the same tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobs.batch import gates, silver
from jobs.batch.campaign_hourly import campaign_hourly
from jobs.batch.counters import counter_values, ctr_features_30d
from jobs.batch.gates import GateFailed, Gates
from jobs.batch.lake_tables import HOUR_COLUMN, LakeTables
from jobs.batch.settings import BatchSettings
from jobs.batch.training_set import impressions, parity, training_set
from schemas.counters import COUNTERS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BRONZE_EVENTS, BRONZE_DECISIONS = "bronze/ad_events", "bronze/ad_decisions"
SILVER_EVENTS, SILVER_QUARANTINE = "silver/ad_events", "silver/ad_events_quarantine"
CAMPAIGN_HOURLY, COUNTER_VALUES = "gold/campaign_hourly", "gold/counter_values"
CTR_FEATURES, TRAINING_SET = "gold/ctr_features_30d", "gold/training_set"

Progress = Callable[[str], None]


class Chain:
    """One run. `progress` gets a line when a step is done."""

    def __init__(self, tables: LakeTables, checks: Gates, settings: BatchSettings, progress: Progress) -> None:
        self._tables = tables
        self._checks = checks
        self._settings = settings
        self._progress = progress

    def run(self, hours: Sequence[str] | None = None) -> dict[str, Any]:
        """Counts by table, and the parity of features. `hours` (as 2026-01-31-23) limits silver and campaign_hourly.

        Errors: GateFailed; Refused when bronze is not there.
        """
        events, counts = self._silver(hours)
        report: dict[str, Any] = {"silver": counts}
        report["campaign_hourly"] = self._campaign_hourly(events, hours)
        if hours:  # what follows needs all that came before, too
            events = self._tables.read(SILVER_EVENTS)
        report["counter_values"], report["ctr_features_30d"] = self._counters(events)
        report["training_set"] = self._training_set(events)
        return report

    def _silver(self, hours: Sequence[str] | None) -> tuple[DataFrame, dict[str, int]]:
        started_s = time.monotonic()
        bronze = self._tables.read(BRONZE_EVENTS)
        if hours:
            bronze = bronze.where(bronze[HOUR_COLUMN].isin(with_neighbours(hours, self._settings.copies_within_h)))
        rows = silver.judged(bronze)
        if hours:
            rows = rows.where(rows[HOUR_COLUMN].isin(list(hours)))
        rows = rows.persist()
        counts = silver.counts(rows)
        if counts["bronze"] and counts["quarantine"] / counts["bronze"] > self._settings.max_quarantine_share:
            refused = {k: n for k, n in counts.items() if k.startswith("quarantine_") and n}
            raise GateFailed(f"gate silver: {counts['quarantine']} of {counts['bronze']} rows are refused: {refused}")
        events = silver.silver(rows)
        self._checks.check("silver", events, gates.SILVER)
        self._tables.write(SILVER_EVENTS, events, [BRONZE_EVENTS], counts, hours, by_hour=True)
        self._tables.write(SILVER_QUARANTINE, silver.quarantine(rows), [BRONZE_EVENTS], counts, hours, by_hour=True)
        self._done(
            "silver/ad_events",
            started_s,
            f"{counts['bronze']} rows, {counts['silver']} events, {counts['duplicates']} duplicates, "
            f"{counts['quarantine']} in quarantine",
        )
        return events, counts

    def _campaign_hourly(self, events: DataFrame, hours: Sequence[str] | None) -> dict[str, int]:
        started_s = time.monotonic()
        rows = campaign_hourly(events)
        if hours:  # a session's first event may lie in an hour before
            rows = rows.where(rows[HOUR_COLUMN].isin(list(hours)))
        rows = rows.persist()
        self._checks.check("campaign_hourly", rows, gates.CAMPAIGN_HOURLY)
        total = rows.selectExpr(
            "count(1) AS rows",
            "sum(impressions) AS impressions",
            "sum(clicks) AS clicks",
            "sum(spend_micros) AS spend",
        ).first()
        assert total is not None
        counts = {
            "rows": total["rows"],
            "impressions": total["impressions"],
            "clicks": total["clicks"],
            "spend_micros": total["spend"],
        }
        self._tables.write(CAMPAIGN_HOURLY, rows, [SILVER_EVENTS], counts, hours)
        self._done(CAMPAIGN_HOURLY, started_s, ", ".join(f"{n} {name}" for name, n in counts.items()))
        return counts

    def _counters(self, events: DataFrame) -> tuple[dict[str, int], dict[str, int]]:
        started_s = time.monotonic()
        values = counter_values(events, COUNTERS).persist()
        value_counts = {"rows": values.count()}
        self._tables.write(COUNTER_VALUES, values, [SILVER_EVENTS], value_counts)
        rates = ctr_features_30d(values).persist()
        rate_counts = {"rows": rates.count()}
        self._tables.write(CTR_FEATURES, rates, [COUNTER_VALUES], rate_counts)
        self._done(CTR_FEATURES, started_s, f"{value_counts['rows']} counters, {rate_counts['rows']} rates")
        return value_counts, rate_counts

    def _training_set(self, events: DataFrame) -> dict[str, Any]:
        started_s = time.monotonic()
        shown = impressions(events, self._tables.read(BRONZE_DECISIONS)).persist()
        rows = training_set(events, shown).persist()
        self._checks.check("training_set", rows, gates.TRAINING_SET)
        total = rows.selectExpr("count(1) AS rows", "sum(clicked) AS clicked").first()
        assert total is not None
        counts: dict[str, Any] = {
            "rows": total["rows"],
            "clicked": total["clicked"],
            "parity": parity(rows, shown),
        }
        self._tables.write(TRAINING_SET, rows, [SILVER_EVENTS, BRONZE_DECISIONS], counts)
        compared = max(p["compared"] for p in counts["parity"].values())
        equal = min(p["equal"] for p in counts["parity"].values())
        self._done(
            TRAINING_SET,
            started_s,
            f"{counts['rows']} ads, {counts['clicked']} clicked; features as served: {compared} compared, "
            f"the least equal one {equal:.1%}",
        )
        return counts

    def _done(self, step: str, started_s: float, words: str) -> None:
        self._progress(f"{step}: {words} ({time.monotonic() - started_s:.1f} s)")


def with_neighbours(hours: Sequence[str], margin_h: int) -> list[str]:
    """The hours and those up to `margin_h` around them, where copies of their events may lie.

    Example:
        >>> with_neighbours(["2026-01-01-00"], 1)
        ['2025-12-31-23', '2026-01-01-00', '2026-01-01-01']
    """
    found = set()
    for hour in hours:
        moment = datetime.strptime(hour, "%Y-%m-%d-%H").replace(tzinfo=UTC)
        for offset in range(-margin_h, margin_h + 1):
            found.add((moment + timedelta(hours=offset)).strftime("%Y-%m-%d-%H"))
    return sorted(found)
