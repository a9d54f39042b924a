"""Counters (schemas/features.py) compiled to SQL: a new counter is a line there and nothing here."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.streaming.job import sql, text_list
from schemas.events import OLDEST_MS
from schemas.features import DAY_S, ID_COLUMNS, Counter


def counter_values_query(counters: Iterable[Counter]) -> str:
    """Query of the absolute values of all `counters`, in one pass over the events."""
    chosen = tuple(counters)
    event_types = sorted({event_type for counter in chosen for event_type in counter.event_types})
    return sql(
        "counter_values",
        counters=",\n    ".join(_row(counter) for counter in chosen),
        event_types=text_list(event_types),
        state_ttl=state_ttl(max(counter.bucket_s for counter in chosen)),
    )


def state_ttl(bucket_s: int) -> str:
    """How long the value of a bucket must be remembered after its last change: until no event can come for it.

    Example:
    >>> state_ttl(86_400)
    '8 d'
    """
    days = -(-(OLDEST_MS // 1000 + bucket_s) // DAY_S)
    return f"{days} d"


def _row(counter: Counter) -> str:
    bucket_ms = counter.bucket_s * 1000
    scope = f"e.{ID_COLUMNS[counter.scope]}" if counter.scope else "''"
    counts = f"e.event_type IN ({text_list(counter.event_types)})"
    return (
        f"ROW('{counter.name}', '{counter.entity}', "
        f"CASE WHEN {counts} THEN e.{ID_COLUMNS[counter.entity]} END, {scope}, "
        f"e.event_time_ms - MOD(e.event_time_ms, CAST({bucket_ms} AS BIGINT)))"
    )
