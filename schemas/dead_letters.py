"""A refused record in the form of dead_letter.avsc, the same whoever refuses it."""

from __future__ import annotations

from typing import Any

from schemas.errors import Reject


def dead_letter(
    reject: Reject,
    source_topic: str,
    job: str,
    job_version: str,
    refused_time_ms: int,
    *,
    partition: int = -1,
    offset: int = -1,
    schema_id: int | None = None,
    origin: str | None = None,
    key: bytes | None = None,
    raw: bytes = b"",
) -> dict[str, Any]:
    """The dead letter of a record. Without partition and offset it was refused at the door and is in no topic.

    `raw` stays empty where the record holds what no topic may hold (user ids, addresses); `origin` then finds it.
    """
    return {
        "source_topic": source_topic,
        "partition": partition,
        "offset": offset,
        "schema_id": schema_id,
        "reason": str(reject.reason),
        "detail": reject.detail[:500],
        "job": job,
        "job_version": job_version,
        "refused_time_ms": refused_time_ms,
        "origin": origin,
        "key": key,
        "raw": raw,
    }
