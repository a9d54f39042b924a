"""Which events are right, and which copy of each counts?

In: bronze/ad_events. Out: silver/ad_events (first copy of every valid event), silver/ad_events_quarantine (refused
rows with their reason). The rules are those of jobs/transforms/event_rules.py and of the stream; a refused row never
hides a valid copy of the same event.
Time: a copy is first by its offset within a partition; between partitions by its publish time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.transforms.event_rules import PSEUDONYMS
from schemas.errors import RejectReason
from schemas.events import OLDEST_MS, OPT_OUT, YES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REASON_COLUMN = "reject_reason"
COPY_COLUMN = "copy"

#: (reason, SQL condition); the first that holds names the row. Bronze columns may be null: a table outlives a contract.
RULES: tuple[tuple[RejectReason, str], ...] = (
    (
        RejectReason.MISSING_FIELD,
        "coalesce(record_id, '') = '' OR coalesce(event_type, '') = '' "
        "OR (coalesce(campaign_id, '') = '' OR coalesce(creative_id, '') = '') AND event_type <> 'conversion' "
        "OR event_id IS NULL OR event_time_ms IS NULL OR received_time_ms IS NULL",
    ),
    (RejectReason.ABSURD_TIME, f"event_time_ms <= 0 OR received_time_ms - event_time_ms > {OLDEST_MS}"),
    (RejectReason.BAD_VALUE, "event_time_ms > received_time_ms OR cost_micros < 0 OR ordinal < 0"),
)


def judged(bronze: DataFrame) -> DataFrame:
    """Every row with its reject reason (null when valid) and the number of its copy among valid rows (1 = counts)."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    cases = " ".join(f"WHEN {condition} THEN '{reason}'" for reason, condition in RULES)
    order = Window.partitionBy("event_id", REASON_COLUMN).orderBy(
        "published_time_ms", "kafka_partition", "kafka_offset"
    )
    return bronze.withColumn(REASON_COLUMN, F.expr(f"CASE {cases} END")).withColumn(
        COPY_COLUMN, F.row_number().over(order)
    )


def silver(rows: DataFrame) -> DataFrame:
    """The first copies of valid events, of `judged` rows, as they may be used: no pseudonym of who opted out."""
    from pyspark.sql import functions as F

    first = rows.where(f"{REASON_COLUMN} IS NULL AND {COPY_COLUMN} = 1").drop(REASON_COLUMN, COPY_COLUMN)
    said = ", ".join(f"'{yes}'" for yes in YES)
    usable = {name: F.expr(f"IF(consent['{OPT_OUT}'] IN ({said}), NULL, {name})") for name in PSEUDONYMS}
    return first.withColumns(usable)


def quarantine(rows: DataFrame) -> DataFrame:
    """The refused rows, all copies of them."""
    return rows.where(f"{REASON_COLUMN} IS NOT NULL").drop(COPY_COLUMN)


def counts(rows: DataFrame) -> dict[str, int]:
    """Rows, duplicates and refused rows by reason, in one pass: bronze = silver + duplicates + quarantine."""
    valid = f"{REASON_COLUMN} IS NULL"
    sums = {
        "bronze": "count(1)",
        "silver": f"count_if({valid} AND {COPY_COLUMN} = 1)",
        "duplicates": f"count_if({valid} AND {COPY_COLUMN} > 1)",
        "quarantine": f"count_if(NOT ({valid}))",
    } | {f"quarantine_{reason}": f"count_if({REASON_COLUMN} = '{reason}')" for reason, _ in RULES}
    row = rows.selectExpr(*[f"{expression} AS {name}" for name, expression in sums.items()]).first()
    assert row is not None
    return {name: int(value) for name, value in row.asDict().items()}
