"""The telemetry door: `POST /v1/telemetry`, a JSON array of `{token, event?, ts?, source?, ...}`.

For players that collect events and send them together, and for SSAI and display loggers. Other fields become
attributes. Tokens are opened by the publisher, so a forged one is accepted here and dead-lettered there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from schemas.errors import Reject, RejectReason
from schemas.events import SOURCES
from serving.collector.attributes import clean_attributes
from serving.collector.batches import long_field, text_field
from serving.collector.buffer import Record
from serving.collector.contracts import Contracts

PATH = "/v1/telemetry"
DOOR = "telemetry"
MAX_TOKEN = 512


def read_telemetry(
    contracts: Contracts, now_ms: Callable[[], int], quality_reasons: Sequence[str], item: dict[str, Any]
) -> Record | Reject:
    """One item as a telemetry record. `quality_reasons` are those of the request that brought it."""
    token = text_field(item, "token", MAX_TOKEN)
    event = text_field(item, "event", 64)
    client_time_ms = long_field(item, "ts")
    source = text_field(item, "source")
    for found in (token, event, client_time_ms, source):
        if isinstance(found, Reject):
            return found
    if token is None:
        return Reject(RejectReason.MISSING_FIELD, ".token")
    if source is not None and source not in SOURCES:
        return Reject(RejectReason.BAD_VALUE, f".source: none of {', '.join(SOURCES)}")
    attributes, _dropped = clean_attributes(item)
    return contracts.telemetry(
        {
            "token": token,
            "source": source or SOURCES[0],
            "client_event": event,
            "client_time_ms": client_time_ms,
            "received_time_ms": now_ms(),
            "attributes": attributes,
            "quality_reasons": quality_reasons,
        }
    )
