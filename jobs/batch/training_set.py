"""Was each shown ad clicked, and what was known when it was decided?

In: silver/ad_events, bronze/ad_decisions. Out: gold/training_set, one row per ad shown: label, the inputs of
schemas/features.py as they stood at the decision, keys, times.
Time: an event is known from its publish time on, strictly before the decision; it leaves a window when the window's
first bucket has passed it. Ads without a logged decision (upstream logs) are taken as decided when they were shown.

How: a counter over a window is a sum of what an event adds when it becomes known, and takes away again when its bucket
leaves the window. Both kinds of change and the decisions are put in one order per key and summed in one growing frame
of integers. (Range frames over rolling windows are quadratic in Spark.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.batch.counters import amount, counts_event, has_ids, id_expression
from schemas.counters import COUNTER_BY_NAME, Counter
from schemas.features import CATEGORIES, CONTEXT_FEATURES, FEATURE_BY_NAME, FEATURES, Feature

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Order of what happens in the same millisecond: a bucket that leaves is gone, an event that comes is not yet known.
_LEAVES, _DECIDED, _BECOMES_KNOWN = 0, 1, 2

_KEYS = (
    "record_id",
    "user_pseudonym",
    "advertiser_id",
    "creative_id",
    "creative_format",
    "campaign_id",
    "placement_id",
)
#: Columns of an impression that the training set and its keys need.
_COLUMNS = (
    *dict.fromkeys((*_KEYS, *(column for columns in CATEGORIES.values() for column in columns))),
    *("live", "creative_length_s", "bidder_id", "event_time_ms", "event_hour"),
)
#: SQL of `schemas.features.CONTEXT_FEATURES`. The epoch was a Thursday.
_CONTEXT: dict[str, str] = {
    "hour_of_day": "CAST(decision_time_ms DIV 3600000 % 24 AS DOUBLE)",
    "hour_of_week": "CAST((decision_time_ms DIV 3600000 + 72) % 168 AS DOUBLE)",
    "live_content": "IF(live, 1D, 0D)",
    "creative_duration_s": "CAST(coalesce(creative_length_s, 0) AS DOUBLE)",
}


@dataclass(frozen=True, slots=True)
class Component:
    """A counter summed over a rolling window: what features are made of."""

    counter: Counter
    window_s: int

    @property
    def name(self) -> str:
        return f"{self.counter.name}_{self.window_s}"

    @property
    def key(self) -> str:
        """SQL expression of what the counter is kept for."""
        entity, scope = id_expression(self.counter.entity), id_expression(self.counter.scope)
        return f"concat_ws('\\u001f', '{self.name}', {entity}, {scope})"


def components() -> tuple[Component, ...]:
    """Every component that some feature needs, once."""
    needed = [(f, name) for f in FEATURES for name in (f.numerator, f.denominator) if name]
    return tuple(dict.fromkeys(Component(COUNTER_BY_NAME[name], f.window_s) for f, name in needed))


def impressions(silver: DataFrame, decisions: DataFrame) -> DataFrame:
    """One row per ad shown, with when it was decided and whether it was clicked. Invalid traffic is left out."""
    from pyspark.sql import functions as F

    decided = (
        decisions.where("record_id IS NOT NULL")
        .groupBy("record_id")
        .agg(F.min_by("decision_time_ms", "kafka_offset").alias("decision_time_ms"),
             F.min_by("features", "kafka_offset").alias("logged"))
    )  # fmt: skip
    lives = (
        silver.where("event_type IN ('impression', 'click')")
        .where("NOT exists(quality_reasons, r -> startswith(r, 'ivt_'))")
        .groupBy("record_id")
        .agg(
            *[
                F.expr(f"max(CASE WHEN event_type = 'impression' THEN {name} END) AS {name}")
                for name in _COLUMNS
                if name != "record_id"
            ],
            F.expr("CAST(count_if(event_type = 'click') > 0 AS INT) AS clicked"),
            F.expr("count_if(event_type = 'impression') AS shown"),
        )
        .where("shown > 0")
    )
    return (
        lives.join(decided, "record_id", "left")
        .withColumn("decision_source", F.expr("IF(decision_time_ms IS NULL, 'impression', 'decision')"))
        .withColumn("decision_time_ms", F.expr("coalesce(decision_time_ms, event_time_ms)"))
        .drop("shown", "event_time_ms")
    )


def training_set(silver: DataFrame, shown: DataFrame) -> DataFrame:
    """`impressions` with their features, of silver events.

    Shape: keys, label, the components' sums, `schemas.features.model_inputs()`.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("key").orderBy("at_ms", "kind").rowsBetween(Window.unboundedPreceding, 0)
    sums = (
        _changes(silver)
        .unionByName(_readings(shown))
        .withColumn("total", F.sum("delta").over(order))
        .where(f"kind = {_DECIDED}")
        .groupBy("record_id")
        .agg(*[F.expr(f"max(IF(component = '{c.name}', total, 0)) AS {c.name}") for c in components()])
    )
    joined = shown.drop("logged").join(sums, "record_id", "left").na.fill(0, [c.name for c in components()])
    return joined.selectExpr(
        *joined.columns,
        *[f"{feature_expression(f)} AS {f.name}" for f in FEATURES],
        *[f"{_CONTEXT[name]} AS {name}" for name in CONTEXT_FEATURES],
        *[f"{category_expression(name)} AS {name}" for name, columns in CATEGORIES.items() if columns != (name,)],
    )


def category_expression(name: str) -> str:
    """SQL of `schemas.features.category_value`."""
    columns = CATEGORIES[name]
    there = " AND ".join(f"coalesce({column}, '') <> ''" for column in columns)
    return f"IF({there}, concat_ws('/', {', '.join(columns)}), NULL)"


def feature_expression(feature: Feature) -> str:
    """SQL of `schemas.features.feature_value` over component columns. A sum of 0 means that no bucket was present."""
    numerator = Component(COUNTER_BY_NAME[feature.numerator], feature.window_s).name
    if feature.denominator is None:
        return f"IF({numerator} = 0, {feature.default}D, CAST({numerator} AS DOUBLE))"
    denominator = Component(COUNTER_BY_NAME[feature.denominator], feature.window_s).name
    if feature.parent is not None:
        believed = f"{feature_expression(FEATURE_BY_NAME[feature.parent])} * {feature.prior_impressions}D"
        return f"(({numerator} + {believed}) / ({denominator} + {feature.prior_impressions}D))"
    rate = f"({numerator} + {feature.prior_clicks}D) / ({denominator} + {feature.prior_impressions}D)"
    return f"IF({denominator} = 0, {feature.default}D, {rate})"


def _changes(silver: DataFrame) -> DataFrame:
    """What every event adds to, and later takes from, every component that counts it.

    An event that is known only after its window does neither.
    """
    pairs = []
    for c in components():
        leaves = f"event_time_ms - event_time_ms % {c.counter.bucket_s * 1000}L + {c.window_s * 1000}L"
        condition = f"{counts_event(c.counter)} AND published_time_ms < {leaves}"
        adds = amount(c.counter)
        for at_ms, kind, delta in (("published_time_ms", _BECOMES_KNOWN, adds), (leaves, _LEAVES, f"-{adds}")):
            pairs.append(f"CASE WHEN {condition} THEN {_row(c, at_ms, kind, delta, 'CAST(NULL AS STRING)')} END")
    types = sorted({t for c in components() for t in c.counter.event_types})
    return _exploded(silver.where(f"event_type IN ({', '.join(repr(t) for t in types)})"), pairs)


def _readings(shown: DataFrame) -> DataFrame:
    """One row per decision and component whose entity the decision has."""
    pairs = []
    for c in components():
        row = _row(c, "decision_time_ms", _DECIDED, "0L", "record_id")
        pairs.append(f"CASE WHEN {has_ids(c.counter)} THEN {row} END")
    return _exploded(shown, pairs)


def _row(c: Component, at_ms: str, kind: int, delta: str, record_id: str) -> str:
    return (
        f"named_struct('component', '{c.name}', 'key', {c.key}, 'at_ms', {at_ms}, 'kind', {kind}, "
        f"'delta', {delta}, 'record_id', {record_id})"
    )


def _exploded(rows: DataFrame, structs: list[str]) -> DataFrame:
    array = ",\n".join(structs)
    return rows.selectExpr(f"explode(filter(array({array}), c -> c IS NOT NULL)) AS change").selectExpr("change.*")


def parity(training: DataFrame, shown: DataFrame) -> dict[str, dict[str, float]]:
    """Rebuilt features beside those that the ad server logged: by feature, rows compared and the share that is equal.

    `equal` is to nine digits; `close` within 10 %, or one event. They differ by what was under way at the decision:
    the ad server sees counters of creatives up to a second late.
    """
    from pyspark.sql import functions as F

    logged = shown.where("size(logged) > 0").select("record_id", "logged")
    joined = logged.join(training, "record_id")
    expressions = []
    for f in FEATURES:
        there = f"logged['{f.name}']"
        scale = 1.0 if f.denominator is None else 1.0 / f.prior_impressions
        expressions += [
            F.expr(f"count({there}) AS {f.name}_compared"),
            F.expr(f"count_if(abs({there} - {f.name}) <= 1e-9) AS {f.name}_equal"),
            F.expr(f"count_if(abs({there} - {f.name}) <= greatest({scale}D, 0.1D * {f.name})) AS {f.name}_close"),
        ]
    row = joined.agg(*expressions).first()
    assert row is not None
    report = {}
    for f in FEATURES:
        compared = row[f"{f.name}_compared"]
        shares = {kind: row[f"{f.name}_{kind}"] / compared if compared else 0.0 for kind in ("equal", "close")}
        report[f.name] = {"compared": compared, **{kind: round(share, 4) for kind, share in shares.items()}}
    return report
