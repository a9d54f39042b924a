"""What does every counter of schemas/features.py say, rebuilt from the lake? And the 30-day click rates from it.

In: silver/ad_events. Out: gold/counter_values (the batch sibling of streaming-features-v2 and frequency-counts-v2),
gold/ctr_features_30d (by day). Time: buckets of event time, so that the order of arrival does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from schemas.counters import COUNTER_BY_NAME, ID_COLUMNS, STANDS_IN_FOR, Counter
from schemas.features import PRIOR_IMPRESSIONS, PRIOR_RATE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

CTR_DAYS = 30
_DAY_MS = 86_400_000

#: (impressions, clicks) counters of each click rate.
CTR_COUNTERS: tuple[tuple[str, str], ...] = (
    ("creative_impressions_hour", "creative_clicks_hour"),
    ("campaign_impressions_hour", "campaign_clicks_hour"),
    ("placement_impressions_hour", "placement_clicks_hour"),
    ("user_category_impressions_hour", "user_category_clicks_hour"),
)


def counts_event(counter: Counter) -> str:
    """SQL condition: an event is counted when its type is, it has the ids of entity and scope, and is not too late."""
    types = ", ".join(f"'{name}'" for name in counter.event_types)
    conditions = [f"event_type IN ({types})", has_ids(counter)]
    bucket_ms = counter.bucket_s * 1000
    end = f"event_time_ms - event_time_ms % {bucket_ms}L + {bucket_ms + counter.retention_s * 1000}L"
    conditions.append(f"published_time_ms < {end}")
    if counter.measure != "events":
        conditions.append(f"{counter.measure} <> 0")
    return " AND ".join(conditions)


def has_ids(counter: Counter) -> str:
    """SQL condition: a row has the ids of entity and scope (`schemas.features.id_of`)."""
    kinds = [counter.entity, *([counter.scope] if counter.scope else [])]
    conditions = [f"coalesce({column}, '') <> ''" for kind in kinds for column in ID_COLUMNS[kind]]
    if instead_of := STANDS_IN_FOR.get(counter.entity):
        conditions += [f"coalesce({column}, '') = ''" for column in ID_COLUMNS[instead_of]]
    return " AND ".join(conditions)


def id_expression(kind: str) -> str:
    """SQL expression of an entity's or a scope's id; '' for no scope."""
    return f"concat_ws('/', {', '.join(ID_COLUMNS[kind])})" if kind else "''"


def amount(counter: Counter) -> str:
    """SQL expression of what a counted event adds."""
    return "1L" if counter.measure == "events" else counter.measure


def counter_values(silver: DataFrame, counters: Iterable[Counter]) -> DataFrame:
    """Absolute values. Shape: counter, entity_type, entity_id, scope_id, bucket_start_ms, value."""
    chosen = tuple(counters)
    rows = ",\n".join(
        f"CASE WHEN {counts_event(c)} THEN named_struct('counter', '{c.name}', 'entity_type', '{c.entity}', "
        f"'entity_id', {id_expression(c.entity)}, 'scope_id', {id_expression(c.scope)}, "
        f"'bucket_start_ms', event_time_ms - event_time_ms % {c.bucket_s * 1000}L, 'amount', {amount(c)}) END"
        for c in chosen
    )
    types = sorted({t for c in chosen for t in c.event_types})
    return (
        silver.where(f"event_type IN ({', '.join(repr(t) for t in types)})")
        .selectExpr(f"explode(filter(array({rows}), c -> c IS NOT NULL)) AS counted")
        .selectExpr("counted.*")
        .groupBy("counter", "entity_type", "entity_id", "scope_id", "bucket_start_ms")
        .agg({"amount": "sum"})
        .withColumnRenamed("sum(amount)", "value")
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
            f"(clicks_30d + {PRIOR_RATE * PRIOR_IMPRESSIONS}) / (impressions_30d + {PRIOR_IMPRESSIONS}) AS ctr_30d",
        )
    )
