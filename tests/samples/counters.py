"""Rows of the counters' topics as people read them: a row per counter, its scope by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.transforms.event_rules import Event
from schemas.counters import COUNTERS, id_of
from schemas.ids import scope_hash
from schemas.redis_layout import counter_field, unpack_counters

_NAMES = {(c.entity, c.code): c.name for c in COUNTERS}
_SCOPES = sorted({c.scope for c in COUNTERS if c.scope})


def unpacked(rows: Iterable[Mapping[str, Any]], events: Iterable[Event]) -> list[dict[str, Any]]:
    """Rows of counter_bucket records. Scopes are named by the ids that occur in `events`. Fails for any other."""
    scope_ids = {0: ""}
    for event in events:
        for kind in _SCOPES:
            if (scope_id := id_of(kind, event)) is not None:
                scope_ids[scope_hash(scope_id)] = scope_id
    found = []
    for row in rows:
        field = counter_field("features", row["bucket_s"], row["bucket_start_ms"] // 1000)
        for entry in unpack_counters(row["entity_type"], {field: bytes(row["entries"])}):
            found.append(
                {
                    "entity_type": row["entity_type"],
                    "entity_id": row["entity_id"],
                    "counter": _NAMES[row["entity_type"], entry.code],
                    "scope_id": scope_ids[entry.scope],
                    "bucket_start_ms": row["bucket_start_ms"],
                    "value": entry.value,
                }
            )
    return found
