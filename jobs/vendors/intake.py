"""From Kafka into the lanes, and back: reads on for all partners, reads again for those behind, commits progress.

In memory is a bounded part of each partner's calls. A partner whose part is full falls behind: its records are passed
over, and read again when it has room, until it is level with the others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Message

from connectors.records import RecordDecoder
from jobs.vendors.caller import Caller, Share, Turn
from jobs.vendors.lane import Call, Lane
from jobs.vendors.metrics import VendorMetrics
from jobs.vendors.progress import Progress
from jobs.vendors.queue import CallQueue
from jobs.vendors.settings import VendorSettings
from schemas.errors import Reject, TimedOut, Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")
#: (partition, partner, call, why it is none).
_Read = tuple[int, str, Call, Reject | None]

_READ_RECORDS = 500
_READ_S = 0.1
_SHORT_READ_S = 0.01  # while a partner that is behind waits for its turn


class Intake:
    """This worker's partitions. `run` is one task; Kafka's client, which blocks, has a thread of its own."""

    def __init__(
        self,
        settings: VendorSettings,
        caller: Caller,
        decode: RecordDecoder,
        metrics: VendorMetrics,
        stopping: threading.Event,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._caller = caller
        self._decode = decode
        self._metrics = metrics
        self._stopping = stopping
        self._now_ms = now_ms
        self._shares: dict[int, Share] = {}
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "kafka")
        self._turns = 0
        self.waiting_for: str | None = None
        self.ready = False

    def partners(self) -> dict[str, dict[str, Any]]:
        """How each partner that has calls is doing. May be called by any thread."""
        return {
            name: {
                "in_memory": len(lane.outstanding),
                "in_flight": lane.in_flight,
                "behind": lane.behind_from is not None,
                "down": lane.probing,
            }
            for share in list(self._shares.values())
            for name, lane in list(share.lanes.items())
        }

    async def run(self) -> None:
        """Blocks until `stopping` is set. Errors: Fenced, Refused."""
        settings = self._settings
        name = f"{settings.group}-calls-{settings.worker}"
        self._queue = await self._in_thread(
            lambda: CallQueue(name, f"{settings.group}-calls", self._on_assigned, self._on_revoked)
        )
        commit_s = 0.0
        try:
            while not self._stopping.is_set():
                try:
                    await self._turn()
                    if self._loop.time() >= commit_s:
                        await self._commit()
                        commit_s = self._loop.time() + settings.commit_s
                except (Unavailable, TimedOut) as e:
                    logger.warning("kafka does not answer", extra={"error": str(e)})
                    await asyncio.sleep(settings.retry_s)
        finally:
            self.ready = False
            await self._in_thread(self._queue.close)  # which gives the partitions back
            self._thread.shutdown()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, call)

    async def _turn(self) -> None:
        """Takes in what is new, and for one of those behind what it has missed."""
        free = self._free()
        behind = [
            (share, name, lane)
            for share in self._shares.values()
            for name, lane in share.lanes.items()
            if lane.behind_from is not None
            and 2 * len(lane.outstanding) <= self._settings.lane_calls
            and self._room(lane, free) > 0
        ]
        wait_s = _SHORT_READ_S if behind else _READ_S

        def read() -> tuple[list[_Read], dict[int, int]]:
            messages, ends = self._queue.read(_READ_RECORDS, wait_s)
            calls = self._decoded(messages)
            return calls, ends if len(calls) == len(messages) else {}

        calls, ends = await self._in_thread(read)
        turns = self._held(calls)
        for partition, end in ends.items():  # only markers lie between the last record and the end
            if (share := self._shares.get(partition)) is not None:
                share.head = max(share.head, end)
        await self._admit(turns)
        if behind:
            self._turns += 1
            await self._catch_up(*behind[self._turns % len(behind)])

    def _held(self, calls: Sequence[_Read]) -> list[Turn]:
        """Gives each new call to its lane, or lets the lane fall behind."""
        held: list[Turn] = []
        free = self._free()
        for partition, partner, call, reject in calls:
            share = self._shares.get(partition)
            if share is None or call.offset < share.head:
                continue
            share.head = call.offset + 1
            lane = share.lanes.get(partner)
            if lane is None:
                lane = share.lanes[partner] = self._caller.lane(partner)
            if lane.behind_from is not None:
                continue
            if self._room(lane, free - len(held)) <= 0:
                lane.behind_from = call.offset
                continue
            lane.hold(call)
            held.append(Turn(share, lane, call, reject))
        return held

    async def _catch_up(self, share: Share, partner: str, lane: Lane) -> None:
        if lane.behind_from is None or share.ended:
            return
        since, head, most = lane.behind_from, share.head, self._room(lane, self._free())

        def read() -> tuple[list[_Read], int | None]:
            messages, at = self._queue.read_again(share.partition, partner, since, head, most)
            calls = self._decoded(messages)
            return calls, at if len(calls) == len(messages) else since

        calls, at = await self._in_thread(read)
        lane.behind_from = at
        turns = [Turn(share, lane, call, reject) for _, _, call, reject in calls]
        for turn in turns:
            lane.hold(turn.call)
        await self._admit(turns)

    def _free(self) -> int:
        """How many more calls may be in memory."""
        used = sum(len(lane.outstanding) for share in self._shares.values() for lane in share.lanes.values())
        return self._settings.memory_calls - used

    def _room(self, lane: Lane, free: int) -> int:
        """How many more calls a lane may hold; an empty one always one, so that every partner gets on."""
        own = len(lane.outstanding)
        left = min(self._settings.lane_calls - own, free)
        return left if own else max(1, left)

    async def _admit(self, turns: Sequence[Turn]) -> None:
        """Hands held calls over. While that waits, the worker stays a member of its group."""
        if not turns:
            return
        admitting = self._loop.create_task(self._caller.admit(turns))
        done, _ = await asyncio.wait({admitting}, timeout=1.0)
        if not done:
            while not done:
                await self._in_thread(self._queue.keep_alive)
                if self._stopping.is_set():
                    admitting.cancel()
                    return
                done, _ = await asyncio.wait({admitting}, timeout=1.0)
            await self._in_thread(self._queue.go_on)
        admitting.result()

    async def _commit(self) -> None:
        self.ready = True
        due: dict[int, Progress] = {}
        for share in self._shares.values():
            progress = share.progress
            if share.held == progress.fits:  # as many partners are behind as can be written down, or no more
                share.held = not progress.fits
                await self._in_thread(partial(self._queue.hold, share.partition, share.held))
            if progress.fits and progress != share.committed:
                due[share.partition] = progress
            self._show(share)
        await self._in_thread(lambda: self._queue.commit(due))
        for partition, progress in due.items():
            if (mine := self._shares.get(partition)) is not None:
                mine.committed = progress
                await self._caller.clear(mine, progress)
                for name in [n for n, lane in mine.lanes.items() if lane.idle]:
                    del mine.lanes[name]

    def _show(self, share: Share) -> None:
        metrics, now_ms = self._metrics, self._now_ms()
        for name, lane in share.lanes.items():
            oldest = next(iter(lane.outstanding.values()), None)
            metrics.depth.labels(name).set(len(lane.outstanding))
            metrics.in_flight.labels(name).set(lane.in_flight)
            metrics.lag.labels(name).set(share.head - lane.cursor(share.head))
            metrics.oldest_s.labels(name).set(0 if oldest is None else max(0, now_ms - oldest.queued_ms) / 1000)
            metrics.probing.labels(name).set(lane.probing)

    async def _begin_shares(self, progress: Mapping[int, Progress]) -> None:
        for partition, found in progress.items():
            share = self._shares[partition] = Share(partition, found.head, committed=found)
            for partner, since in found.behind.items():
                lane = share.lanes[partner] = self._caller.lane(partner)
                lane.behind_from = since

    async def _end_shares(self, partitions: Sequence[int], lost: bool) -> dict[int, Progress]:
        """Ends shares; gives back what to commit of them, which is nothing when they are another's already."""
        ended = [share for p in partitions if (share := self._shares.pop(p, None)) is not None]
        for share in ended:
            share.ended = True
        await self._caller.settle(ended, self._settings.drain_s)
        return {} if lost else {share.partition: p for share in ended if (p := share.progress).fits}

    # in Kafka's thread

    def _decoded(self, messages: Sequence[Message]) -> list[_Read]:
        """What messages hold. Waits for the schema registry; gives nothing when it was time to stop first."""
        found: list[_Read] = []
        for message in messages:
            raw = message.value() or b""
            record = self._record(raw)
            if record is None:
                return []
            reject = record if isinstance(record, Reject) else None
            data = {} if isinstance(record, Reject) else record
            key = (message.key() or b"").decode("latin-1")
            queued_ms = message.timestamp()[1]
            call = Call(message.offset() or 0, data.get("idempotency_key", ""), data, raw, queued_ms)
            found.append((message.partition() or 0, key, call, reject))
        return found

    def _record(self, raw: bytes) -> dict[str, Any] | Reject | None:
        """A call's record; None when it was time to stop first."""
        while True:
            try:
                found = self._decode(raw)[1]
                self.waiting_for = None
                return found
            except (Unavailable, TimedOut):
                self.waiting_for = "registry"
                self._queue.keep_alive()
                if self._stopping.wait(self._settings.retry_s):
                    return None
                self._queue.go_on()

    def _on_assigned(self, progress: Mapping[int, Progress]) -> None:
        asyncio.run_coroutine_threadsafe(self._begin_shares(progress), self._loop).result()

    def _on_revoked(self, partitions: Sequence[int], lost: bool) -> Mapping[int, Progress]:
        return asyncio.run_coroutine_threadsafe(self._end_shares(partitions, lost), self._loop).result()
