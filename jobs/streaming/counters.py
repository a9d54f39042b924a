"""Counters (schemas/features.py) compiled to a query: a new counter is a line there and nothing here.

How: `counter_updates` (java/CounterUpdates.java) turns an event into a row per entity that it belongs to, with all
that it adds there; `counter_buckets` (java/CounterBuckets.java) keeps each entity's buckets packed and gives back those
that changed. A row per counter, each through a shuffle and a state of its own, took several times the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable

from jobs.streaming.job import Job, Output, View, sql, text_list
from schemas.counters import DAY_S, ID_COLUMNS, LIFETIME_S, STANDS_IN_FOR, Counter

#: AdEvent's columns that ids are made of, in the order in which `counter_updates` takes them.
_ID_ARGUMENTS = tuple(dict.fromkeys(column for columns in ID_COLUMNS.values() for column in columns))


def counters_job(name: str, counters: Iterable[Counter], buckets: int) -> Job:
    """A job that writes the absolute values of `counters` to the table of its own name, in one pass over the events.

    Its state lies in `buckets` keys.
    """
    chosen = tuple(counters)
    event_types = sorted({event_type for counter in chosen for event_type in counter.event_types})
    updates = View(
        f"{name}_updates",
        sql(
            "counter_updates",
            declaration="\n".join(declaration(counter) for counter in _beside_each_other(chosen)),
            ids=", ".join(f"e.{column}" for column in _ID_ARGUMENTS),
            event_types=text_list(event_types),
            buckets=buckets,
        ),
    )
    query = sql(
        "counter_buckets",
        updates=updates.name,
        kept_s=max(c.retention_s + (c.bucket_s if c.bucket_s < LIFETIME_S else 0) for c in chosen) + DAY_S,
        job=name,
        buckets=buckets,
    )
    return Job(name, outputs=(Output(name, query),), views=(updates,))


def declaration(counter: Counter) -> str:
    """A counter as `counter_updates` reads it.

    Example:
    >>> from schemas.counters import COUNTER_BY_NAME
    >>> declaration(COUNTER_BY_NAME["household_campaign_impressions_day"])
    '4 household 1 0 3 impression 86400 2678400 0'
    """
    absent = STANDS_IN_FOR.get(counter.entity)
    return " ".join(
        (
            str(counter.code),
            counter.entity,
            _positions(counter.entity),
            _positions(absent) if absent else "-",
            _positions(counter.scope) if counter.scope else "-",
            ",".join(counter.event_types),
            str(counter.bucket_s),
            str(counter.retention_s),
            "1" if counter.measure == "cost_micros" else "0",
        )
    )


def _positions(kind: str) -> str:
    return ",".join(str(_ID_ARGUMENTS.index(column)) for column in ID_COLUMNS[kind])


def _beside_each_other(counters: tuple[Counter, ...]) -> list[Counter]:
    """Counters of one entity and bucket follow each other: `counter_buckets` looks a bucket up once for them."""
    return sorted(counters, key=lambda c: (c.entity, c.bucket_s))
