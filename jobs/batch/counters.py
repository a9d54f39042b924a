"""What does every counter of schemas/features.py say, rebuilt from the lake? And the 30-day click rates from it.

In: silver/ad_events. Out: gold/counter_values (the batch sibling of streaming-features-v1 and frequency-counts-v1),
gold/ctr_features_30d (by day). Time: buckets of event time, so that the order of arrival does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from schemas.features import COUNTER_BY_NAME, ID_COLUMNS, Counter

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

CTR_DAYS = 30
PRIOR_CLICKS, PRIOR_IMPRESSIONS = 1.0, 100.0
_DAY_MS = 86_400_000

#: (impressions, clicks) counters of each click rate.
CTR_COUNTERS: tuple[tuple[str, str], ...] = (
    ("creative_impressions_hour", "creative_clicks_hour"),
    ("campaign_impressions_hour", "campaign_clicks_hour"),
    ("placement_impressions_hour", "placement_clicks_hour"),
    ("user_category_impressions_hour", "user_category_clicks_hour"),
)


def counts_event(counter: Counter) -> str:
    """SQL condition: an event is counted when its type is and it has the ids of entity and scope."""
    types = ", ".join(f"'{name}'" for name in counter.event_types)
    conditions = [f"event_type IN ({types})", f"coalesce({ID_COLUMNS[counter.entity]}, '') <> ''"]
    if counter.scope:
        conditions.append(f"{ID_COLUMNS[counter.scope]} IS NOT NULL")
    return " AND ".join(conditions)


def scope_id(counter: Counter) -> str:
    """SQL expression of the scope's id."""
    return ID_COLUMNS[counter.scope] if counter.scope else "''"


def counter_values(silver: DataFrame, counters: Iterable[Counter]) -> DataFrame:
    """Absolute values. Shape: counter, entity_type, entity_id, scope_id, bucket_start_ms, value."""
    chosen = tuple(counters)
    rows = ",\n".join(
        f"CASE WHEN {counts_event(c)} THEN named_struct('counter', '{c.name}', 'entity_type', '{c.entity}', "
        f"'entity_id', {ID_COLUMNS[c.entity]}, 'scope_id', {scope_id(c)}, "
        f"'bucket_start_ms', event_time_ms - event_time_ms % {c.bucket_s * 1000}L) END"
        for c in chosen
    )
    types = sorted({t for c in chosen for t in c.event_types})
    return (
        silver.where(f"event_type IN ({', '.join(repr(t) for t in types)})")
        .selectExpr(f"explode(filter(array({rows}), c -> c IS NOT NULL)) AS counted")
        .selectExpr("counted.*")
        .groupBy("counter", "entity_type", "entity_id", "scope_id", "bucket_start_ms")
        .count()
        .withColumnRenamed("count", "value")
    )


def ctr_features_30d(values: DataFrame) -> DataFrame:
    """Click rates by day over the 30 days that end with it, shrunk by a Beta prior.

    Shape: entity_type, entity_id, scope_id (content category for users), day (yyyy-MM-dd), impressions, clicks,
    impressions_30d, clicks_30d, ctr_30d. A day without an event of the entity has no row.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    shown = [COUNTER_BY_NAME[i].name for i, _ in CTR_COUNTERS]
    clicked = [COUNTER_BY_NAME[c].name for _, c in CTR_COUNTERS]
    entity = ("entity_type", "entity_id", "scope_id")
    days = (
        values.where(F.col("counter").isin(shown + clicked))
        .withColumn("day_number", F.expr(f"bucket_start_ms DIV {_DAY_MS}"))
        .groupBy(*entity, "day_number")
        .agg(
            F.sum(F.when(F.col("counter").isin(shown), F.col("value")).otherwise(0)).alias("impressions"),
            F.sum(F.when(F.col("counter").isin(clicked), F.col("value")).otherwise(0)).alias("clicks"),
        )
    )
    window = Window.partitionBy(*entity).orderBy("day_number").rangeBetween(1 - CTR_DAYS, 0)
    return (
        days.withColumn("impressions_30d", F.sum("impressions").over(window))
        .withColumn("clicks_30d", F.sum("clicks").over(window))
        .selectExpr(
            *entity,
            "CAST(date_from_unix_date(CAST(day_number AS INT)) AS STRING) AS day",
            "impressions",
            "clicks",
            "impressions_30d",
            "clicks_30d",
            f"(clicks_30d + {PRIOR_CLICKS}) / (impressions_30d + {PRIOR_IMPRESSIONS}) AS ctr_30d",
        )
    )
