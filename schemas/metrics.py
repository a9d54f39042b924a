"""Every metric and dimension of a report, defined once: name, meaning, unit, and how it is made from summed columns.

A ratio is always a quotient of sums, never a mean of ratios, so that it can be asked at any grain. Reports, notebooks
and the API documentation read this list; the columns are those of `schemas/campaign_metrics.py` and of the sketches
that Druid builds from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.campaign_metrics import COUNTED, DIMENSIONS, SUMS

#: Sketch column that Druid builds from `campaign_metrics.REACH_COLUMN`. HLL: a group of a query needs 4 KB of it, where
#: a theta sketch of the same accuracy needs 64 KB, and a report by minute has thousands of groups.
REACH_SKETCH = "reach_hll"

Kind = Literal["additive", "ratio", "distinct"]
Unit = Literal["count", "micros", "share", "per_user"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    `additive`: values of parts may be added up; with `less`, the sum of column `of` without those of other columns.
    `ratio`: `parts` names its numerator and denominator, both summed; `scale` multiplies the numerator; null where the
    denominator is 0. `distinct`: estimated from a sketch, must not be added. `is_money`: has a meaning only within one
    currency. `is_user_level`: subject to the k-threshold.
    """

    name: str
    meaning: str
    kind: Kind
    unit: Unit
    parts: tuple[str, str] | None = None
    scale: int = 1
    of: str | None = None
    less: tuple[str, ...] = ()

    @property
    def is_money(self) -> bool:
        return self.unit == "micros" or any(part in MONEY_COLUMNS for part in self.parts or ())

    @property
    def is_user_level(self) -> bool:
        return self.kind == "distinct" or self.unit == "per_user"

    @property
    def type(self) -> Literal["int", "float"]:
        return "float" if self.unit in ("share", "per_user") else "int"

    @property
    def sql(self) -> str:
        """The Druid SQL expression that aggregates it."""
        if self.kind == "distinct":
            return _REACH_SQL
        if self.parts is None:
            return " - ".join(_sum(column) for column in (self.of or self.name, *self.less))
        numerator, denominator = (_REACH_SQL if part == "reach" else _sum(part) for part in self.parts)
        if self.unit == "micros":  # whole micros, rounded down as money is everywhere (schemas/money.py)
            return f"{numerator} * {self.scale} / NULLIF({denominator}, 0)"
        return f"CAST({numerator} * {self.scale} AS DOUBLE) / NULLIF({denominator}, 0)"


MONEY_COLUMNS = ("spend_micros", "conversion_value_micros", "attributed_value_micros", "invalid_spend_micros")

_REACH_SQL = f'CAST(APPROX_COUNT_DISTINCT_DS_HLL("{REACH_SKETCH}") AS BIGINT)'

_MEANINGS: dict[str, str] = {
    "events": "all events of any type",
    "late_events": "events that came later than the lateness limit; counted in their own minute all the same",
    "invalid_events": "events that a rule against invalid traffic marked",
    "spend_micros": "cost of the impressions",
    "conversion_value_micros": "value that advertisers reported with conversions",
    "sessions": "ads whose life has closed",
    "sessions_completed": "of these, ads watched to the end",
    "watch_time_ms": "time that ads were watched, as far as their length is known",
    "click_through_conversions": "conversions credited to a click",
    "view_through_conversions": "conversions credited to an impression",
    "attributed_value_micros": "value of the credited conversions",
    "givt_impressions": "impressions that are general invalid traffic (lists, rates)",
    "sivt_impressions": "impressions that are sophisticated invalid traffic (patterns)",
    "givt_clicks": "clicks that are general invalid traffic",
    "sivt_clicks": "clicks that are sophisticated invalid traffic",
    "invalid_spend_micros": "cost of the events with a verdict",
}


def _sum(column: str) -> str:
    return f'COALESCE(SUM("{column}"), 0)'


def _additive(column: str) -> Metric:
    meaning = _MEANINGS.get(column)
    if meaning is None:
        event = next(event for event, counted in COUNTED.items() if counted == column)
        meaning = f"{event.replace('_', ' ')} events"
    return Metric(column, meaning, "additive", "micros" if column in MONEY_COLUMNS else "count")


def _net(column: str, *invalid: str) -> Metric:
    meaning = f"{column} without what has a verdict as invalid traffic, general or sophisticated"
    unit: Unit = "micros" if column in MONEY_COLUMNS else "count"
    return Metric(f"net_{column}", meaning, "additive", unit, of=column, less=invalid)


def _ratio(name: str, numerator: str, denominator: str, meaning: str) -> Metric:
    return Metric(name, meaning, "ratio", "share", (numerator, denominator))


def _price(name: str, denominator: str, meaning: str, scale: int = 1) -> Metric:
    return Metric(name, meaning, "ratio", "micros", ("spend_micros", denominator), scale)


METRICS: tuple[Metric, ...] = (
    *(_additive(column) for column in SUMS),
    _net("impressions", "givt_impressions", "sivt_impressions"),
    _net("clicks", "givt_clicks", "sivt_clicks"),
    _net("spend_micros", "invalid_spend_micros"),
    _ratio("ctr", "clicks", "impressions", "clicks per impression"),
    _ratio("viewable_rate", "viewables", "impressions", "viewable impressions per impression"),
    _ratio("completion_rate", "completes", "starts", "completes per start"),
    _ratio("skip_rate", "skips", "starts", "skips per start"),
    _ratio("conversion_rate", "conversions", "clicks", "conversions per click"),
    _ratio("invalid_rate", "invalid_events", "events", "share of events marked as invalid traffic"),
    _ratio("roas", "conversion_value_micros", "spend_micros", "conversion value per unit of spend"),
    _price("ecpm_micros", "impressions", "spend per thousand impressions", scale=1000),
    _price("ecpc_micros", "clicks", "spend per click"),
    _price("ecpcv_micros", "completes", "spend per completed view"),
    Metric("reach", "distinct users with an impression (estimate, 1.6 % standard error)", "distinct", "count"),
    Metric("frequency", "impressions per reached user", "ratio", "per_user", ("impressions", "reach")),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}

#: Name in a report to the datasource's column. The grain dimensions below come in addition.
REPORT_DIMENSIONS: dict[str, str] = {column.removesuffix("_id"): column for column in DIMENSIONS}

#: Grain of time to its ISO 8601 period. Minutes, hours, days, weeks and months begin in the report's time zone.
GRAINS: dict[str, str] = {"minute": "PT1M", "hour": "PT1H", "day": "P1D", "week": "P1W", "month": "P1M"}
