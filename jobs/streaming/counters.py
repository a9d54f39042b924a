"""Counters (schemas/counters.py) as the connector `counters-kafka` is told of them: a new one is a line there alone.

How: java/GatheredCounts.java sums what events add to each entity for a moment, java/CountedBuckets.java keeps each
entity's buckets packed and gives those that changed. A row per counter, each through a shuffle and a state of its own,
took several times the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connectors.flink.tables import Column
from jobs.streaming.job import IDS, IDS_COLUMN, sql, text_list
from schemas.campaign_metrics import PACKED_COLUMN, PACKED_TEXTS
from schemas.counters import DAY_S, ID_COLUMNS, LIFETIME_S, STANDS_IN_FOR, Counter

#: The connector of java/CountersKafkaSink.java.
COUNTERS_KAFKA = "counters-kafka"

#: Ids as java/EventIds.java numbers them.
_IDS = (*IDS, *PACKED_TEXTS)


def counted_columns() -> tuple[Column, ...]:
    """Columns of the events that the connector is given, in its order: nullable, as it checks."""
    return (
        Column("event_type", "STRING"),
        *(Column(name, "BIGINT") for name in ("event_time_ms", "published_time_ms", "cost_micros")),
        Column(IDS_COLUMN, "BYTES"),
        Column(PACKED_COLUMN, "BYTES"),
    )


def counted_events(counters: Iterable[Counter]) -> str:
    """Query of the events that any of `counters` counts, with those columns."""
    chosen = tuple(counters)
    return sql(
        "counted_events",
        columns=", ".join(f"`{column.name}`" for column in counted_columns()),
        event_types=text_list(sorted({event_type for counter in chosen for event_type in counter.event_types})),
    )


def declared(counters: Iterable[Counter]) -> str:
    """`counters` as java/CounterRules.java reads them, a line each."""
    return "\n".join(declaration(counter, _IDS) for counter in _beside_each_other(tuple(counters)))


def counted_ids(counters: Iterable[Counter]) -> frozenset[str]:
    """Which of the packed ids `counters` count by."""
    kinds = {kind for c in counters for kind in (c.entity, c.scope, STANDS_IN_FOR.get(c.entity)) if kind}
    return frozenset(column for kind in kinds for column in ID_COLUMNS[kind] if column in IDS)


def kept_s(counters: Iterable[Counter]) -> int:
    """How long an entity is kept after its last event: as long as any of its buckets may be of use, and a day."""
    return max(c.retention_s + (c.bucket_s if c.bucket_s < LIFETIME_S else 0) for c in counters) + DAY_S


def declaration(counter: Counter, ids: Sequence[str]) -> str:
    """A counter as java/CounterRules.java reads it, with AdEvent's columns by their place among `ids`.

    Example:
    >>> from schemas.counters import COUNTER_BY_NAME
    >>> counter = COUNTER_BY_NAME["household_campaign_impressions_day"]
    >>> declaration(counter, ["user_pseudonym", "household_pseudonym", "creative_id", "campaign_id"])
    '4 household 1 0 3 impression 86400 2678400 0'
    """

    def numbers(kind: str) -> str:
        return ",".join(str(ids.index(column)) for column in ID_COLUMNS[kind])

    absent = STANDS_IN_FOR.get(counter.entity)
    return " ".join(
        (
            str(counter.code),
            counter.entity,
            numbers(counter.entity),
            numbers(absent) if absent else "-",
            numbers(counter.scope) if counter.scope else "-",
            ",".join(counter.event_types),
            str(counter.bucket_s),
            str(counter.retention_s),
            "1" if counter.measure == "cost_micros" else "0",
        )
    )


def _beside_each_other(counters: tuple[Counter, ...]) -> list[Counter]:
    """Counters of one entity and bucket follow each other: a bucket is looked up once for them."""
    return sorted(counters, key=lambda c: (c.entity, c.bucket_s))
