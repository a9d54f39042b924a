"""The door for upstream logs: `POST /v1/logs/{format}`, lines of text, with an API key of purpose `upstream`.

Headers: `X-Origin` (the file's name), `X-First-Line` (number of the first line, 1 if absent) or `X-Lines` (the number
of each line, for lines that are no neighbours in their file), `X-Rebase` (`first_original_ms,start_ms,speed_up`, to
replay an old log as if it happened now). Formats: schemas/upstream_formats.py.
User ids and addresses become pseudonyms here. A line that does not parse is a dead letter with file and line; its
text is not kept, because it holds what no topic may hold.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from connectors.http_messages import Request, Response, refusal
from connectors.keys import KeyRing
from schemas.dead_letters import dead_letter
from schemas.errors import Reject, RejectReason
from schemas.ids import encode_id, upstream_record_id
from schemas.topics import AD_TELEMETRY
from schemas.upstream import ORIGINAL_TIME, Rebase, UpstreamEvent
from schemas.upstream_formats import FORMATS, parse_line
from serving.collector.attributes import clean_attributes
from serving.collector.batches import BatchDoor
from serving.collector.buffer import Record
from serving.collector.contracts import Contracts

PATH = "/v1/logs/"
DOOR = "upstream"
_ORIGIN = re.compile(r"[\w.@+-]{1,200}")
_LINES_PER_TURN = 100
_SHOWN_REFUSALS = 100


class UpstreamDoor:
    """Takes a stretch of a log. The same stretch sent again makes the same events."""

    def __init__(
        self, contracts: Contracts, ring: KeyRing, door: BatchDoor, version: str, now_ms: Callable[[], int]
    ) -> None:
        self._contracts = contracts
        self._ring = ring
        self._door = door
        self._version = version
        self._now_ms = now_ms

    async def __call__(self, request: Request) -> Response:
        source_format = request.path[len(PATH) :]
        if source_format not in FORMATS:
            return refusal(404, "unknown_format", formats=sorted(FORMATS))
        origin = request.header(b"x-origin")
        if not _ORIGIN.fullmatch(origin):
            return refusal(400, RejectReason.MISSING_FIELD, path="X-Origin", detail="the log's file name, no folders")
        try:
            first_line = int(request.header(b"x-first-line", "1"))
            numbers = [int(n) for n in request.header(b"x-lines").split(",") if n]
            rebase_text = request.header(b"x-rebase")
            rebase = Rebase.parse(rebase_text) if rebase_text else None
        except ValueError:
            return refusal(400, RejectReason.BAD_VALUE, path="X-First-Line, X-Lines or X-Rebase")
        lines = request.body.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        if len(lines) > self._door.settings.batch_lines:
            return refusal(413, RejectReason.TOO_LARGE, limit_lines=self._door.settings.batch_lines)
        if not numbers:
            numbers = list(range(first_line, first_line + len(lines)))
        if len(numbers) != len(lines):
            return refusal(400, RejectReason.BAD_VALUE, path="X-Lines", detail=f"{len(numbers)} for {len(lines)} lines")
        return await self._take(source_format, lines, origin, numbers, rebase)

    async def _take(
        self, source_format: str, lines: list[bytes], origin: str, numbers: list[int], rebase: Rebase | None
    ) -> Response:
        records: list[Record] = []
        refused: list[dict[str, Any]] = []
        accepted = 0
        for i, (number, raw) in enumerate(zip(numbers, lines, strict=True), 1):
            if i % _LINES_PER_TURN == 0:
                await asyncio.sleep(0)  # beacons do not wait for a log
            place = f"{origin}:{number}"
            events = _parse(source_format, raw, place)
            if isinstance(events, Reject):
                refused.append({"line": number, "reason": str(events.reason), "detail": events.detail})
                self._door.metrics.refused.labels(DOOR, str(events.reason)).inc()
                records.append(self._refused(events, place))
            elif events:
                accepted += 1
                records += [self._record(event, place, rebase) for event in events]
        return await self._door.deliver(
            records,
            {
                "lines": len(lines),
                "accepted": accepted,
                "events": len(records) - len(refused),
                "refused": len(refused),
                "refusals": refused[:_SHOWN_REFUSALS],
            },
        )

    def _refused(self, reject: Reject, place: str) -> Record:
        return self._contracts.dead_letter(
            dead_letter(reject, AD_TELEMETRY.name, "collector", self._version, self._now_ms(), origin=place)
        )

    def _record(self, event: UpstreamEvent, place: str, rebase: Rebase | None) -> Record:
        time_ms = rebase.at(event.original_time_ms) if rebase else event.original_time_ms
        if event.token is not None:
            kept, _dropped = clean_attributes(event.attributes)
            return self._contracts.telemetry(
                {
                    "token": event.token,
                    "source": event.source,
                    "client_event": event.event_type,
                    "client_time_ms": time_ms,
                    "received_time_ms": self._now_ms(),
                    "origin": place,
                    "attributes": kept,
                }
            )
        assert event.upstream_id is not None
        attributes = {**event.attributes, ORIGINAL_TIME: str(event.original_time_ms)}
        user = self._ring.pseudonym(event.user) if event.user else None
        if event.order_id is not None:
            return self._contracts.conversion(
                {
                    "order_id": event.order_id,
                    "advertiser_id": attributes["advertiser_id"],
                    "user_pseudonym": user,
                    "record_id": encode_id(upstream_record_id(event.source_format, event.upstream_id)),
                    "conversion_type": "install",
                    "currency": attributes["currency"],
                    "event_time_ms": time_ms,
                    "received_time_ms": self._now_ms(),
                    "origin": place,
                    "attributes": attributes,
                }
            )
        return self._contracts.telemetry(
            {
                "token": None,
                "source": event.source,
                "client_event": event.event_type,
                "client_time_ms": time_ms,
                "received_time_ms": self._now_ms(),
                "upstream_id": event.upstream_id,
                "user_pseudonym": user,
                "household_pseudonym": self._ring.household(event.ip) if event.ip else None,
                "origin": place,
                "attributes": attributes,
            }
        )


def _parse(source_format: str, raw: bytes, place: str) -> list[UpstreamEvent] | Reject:
    try:
        line = raw.rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        return Reject(RejectReason.MALFORMED_LINE, "not UTF-8")
    return parse_line(source_format, line, place)
