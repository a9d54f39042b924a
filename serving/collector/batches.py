"""What the batch doors share: reading a JSON array, telling what became of each item, waiting for the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from connectors.http_messages import Request, Response, refusal
from schemas.errors import Reject, RejectReason
from serving.collector.buffer import Buffer, BufferFull, Record
from serving.collector.metrics import CollectorMetrics
from serving.collector.settings import CollectorSettings

_ITEMS_PER_TURN = 200
_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

#: An item as a record for Kafka, or why not.
ReadItem = Callable[[dict[str, Any]], Record | Reject]


@dataclass(frozen=True, slots=True)
class BatchDoor:
    """A door for JSON arrays. 200: the broker has every accepted item. 202: they wait in this process for the broker,
    and are delivered when it is back; sending them again does no harm, because ids are derived. 503: send again.
    """

    name: str
    buffer: Buffer
    metrics: CollectorMetrics
    settings: CollectorSettings

    async def take(self, request: Request, read: ReadItem) -> Response:
        try:
            raw_items = _raw_items(request.body)
        except msgspec.MsgspecError as e:
            return refusal(400, "bad_json", path="$", detail=str(e))
        if len(raw_items) > self.settings.batch_items:
            return refusal(413, RejectReason.TOO_LARGE, limit_items=self.settings.batch_items)
        records: list[Record] = []
        results: list[dict[str, str]] = []
        for index, raw in enumerate(raw_items):
            if index % _ITEMS_PER_TURN == _ITEMS_PER_TURN - 1:
                await asyncio.sleep(0)  # beacons do not wait for a batch
            found = _read(raw, read)
            if isinstance(found, Reject):
                self.metrics.refused.labels(self.name, str(found.reason)).inc()
                path = f"$[{index}]"
                results.append({"status": "refused", "reason": str(found.reason), "path": path, "detail": found.detail})
            else:
                records.append(found)
                results.append({"status": "accepted"})
        return await self.deliver(
            records, {"accepted": len(records), "refused": len(results) - len(records), "results": results}
        )

    async def deliver(self, records: list[Record], answer: dict[str, Any]) -> Response:
        """Buffers the records, waits for the broker, and answers."""
        try:
            durable = await self.buffer.put_all(records, self.settings.ack_wait_s)
        except BufferFull:
            self.metrics.refused.labels(self.name, "buffer_full").inc(len(records))
            busy = refusal(503, "buffer_full", detail="send the same batch again")
            busy.headers = (("Retry-After", str(self.settings.retry_after_s)),)
            return busy
        self.metrics.accepted.labels(self.name).inc(len(records))
        return Response(200 if durable else 202, _encode({"durable": durable, **answer}))


def _read(raw: msgspec.Raw, read: ReadItem) -> Record | Reject:
    item = msgspec.json.decode(raw)
    if not isinstance(item, dict):
        return Reject(RejectReason.BAD_VALUE, "not an object")
    return read(item)


def text_field(item: dict[str, Any], name: str, max_length: int = 256) -> str | Reject | None:
    """Takes a text out of an item; None when it is absent or null."""
    value = item.pop(name, None)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        return Reject(RejectReason.BAD_VALUE, f".{name}: expected a text")
    if len(value) > max_length:
        return Reject(RejectReason.BAD_VALUE, f".{name}: longer than {max_length} characters")
    return value


def long_field(item: dict[str, Any], name: str) -> int | Reject | None:
    """Takes a 64-bit whole number out of an item; None when it is absent or null."""
    value = item.pop(name, None)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        return Reject(RejectReason.BAD_VALUE, f".{name}: expected a whole number of 64 bits")
    return value
