"""The calls themselves: sends what the lanes give, judges the answers, writes down which calls are over.

A call is over when that is written down in Valkey: after a kill, only a call whose answer came but was not yet written
down is made again, with the same idempotency key; they are at most a partner's `max_in_flight`. While Valkey is away
nothing is sent, because nothing could be written down.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urljoin

from connectors.addresses import PrivateAddress
from connectors.http_client import Answer
from connectors.valkey import AsyncValkey
from connectors.valkey_wire import Command
from jobs.vendors.dead_letters import DeadLetters, GivenUp
from jobs.vendors.device import device_of
from jobs.vendors.lane import Backoff, Call, Lane
from jobs.vendors.macros import expand
from jobs.vendors.metrics import VendorMetrics
from jobs.vendors.partners import BadUrl, PartnerBook
from jobs.vendors.progress import Progress
from jobs.vendors.retry import Verdict, retry_after_s, verdict
from jobs.vendors.settings import VendorSettings
from jobs.vendors.wire import LOCATION, RETRY_AFTER, Wire
from schemas.errors import ConnectorError, Reject, RejectReason, TimedOut, Unavailable
from schemas.redis_layout import ANSWERED_TTL_S, answered_key, registry_key

logger = logging.getLogger(__name__)
T = TypeVar("T")

_VALKEY_S = 2.0


@dataclass(eq=False, slots=True)
class Share:
    """One partition that this worker has: how far it is read, and its partners' lanes."""

    partition: int
    head: int
    lanes: dict[str, Lane] = field(default_factory=dict)
    held: bool = False
    ended: bool = False  # given back or lost: nothing more is sent
    committed: Progress | None = None
    written: dict[str, int] = field(default_factory=dict)  # partner -> last offset that Valkey holds as over

    @property
    def progress(self) -> Progress:
        places = {name: lane.cursor(self.head) for name, lane in self.lanes.items()}
        return Progress(self.head, {name: at for name, at in places.items() if at < self.head})


@dataclass(eq=False, slots=True)
class Turn:
    """A call and where it belongs."""

    share: Share
    lane: Lane
    call: Call
    reject: Reject | None = None
    redirects: int = 0


class Caller:
    """Makes calls. Lives in one event loop; nothing here blocks it."""

    def __init__(
        self,
        settings: VendorSettings,
        book: PartnerBook,
        wire: Wire,
        valkey: AsyncValkey,
        dead_letters: DeadLetters,
        metrics: VendorMetrics,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._book = book
        self._wire = wire
        self._valkey = valkey
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._now_ms = now_ms
        self._rng = rng
        self._backoff = Backoff(settings.first_pause_s, settings.longest_pause_s)
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Lane, asyncio.TimerHandle] = {}
        self._over: list[Turn] = []
        self._writing: asyncio.Task[None] | None = None
        self.waiting_for: str | None = None

    def lane(self, partner: str) -> Lane:
        """A new lane."""
        return Lane(self._book.by_id(partner), self._backoff, self._rng)

    async def admit(self, turns: Sequence[Turn]) -> None:
        """Puts held calls into their lanes, less those that were answered before. Waits for Valkey."""
        fresh = [turn for turn in turns if turn.reject is None]
        for turn in turns:
            if turn.reject is not None:
                self._end(turn)
        if not fresh:
            return
        by_lane: dict[Lane, list[Turn]] = defaultdict(list)
        for turn in fresh:
            by_lane[turn.lane].append(turn)
        record_ids = list({turn.call.record["record_id"] for turn in fresh})
        commands: list[Command] = [("MGET", *map(registry_key, record_ids))]
        for lane, of_lane in by_lane.items():
            key = answered_key(of_lane[0].share.partition, lane.partner.id)
            commands.append(("ZMSCORE", key, *(turn.call.key for turn in of_lane)))
        records, *scores = await self._until_done("valkey", lambda: self._ask_valkey(commands))
        devices = {i: device_of(record) for i, record in zip(record_ids, records, strict=True)}
        for (lane, of_lane), found in zip(by_lane.items(), scores, strict=True):
            for turn, score in zip(of_lane, found, strict=True):
                if score is not None:
                    self._release(turn)
                    continue
                turn.call.device = devices[turn.call.record["record_id"]]
                lane.put(turn.call)
            self._pump(of_lane[0].share, lane)

    async def settle(self, shares: Iterable[Share], timeout_s: float) -> None:
        """Waits until calls on the wire are answered and that is written down, or until the time is over."""
        deadline_s = self._loop.time() + timeout_s
        lanes = [lane for share in shares for lane in share.lanes.values()]
        while self._loop.time() < deadline_s:
            if not any(lane.in_flight for lane in lanes) and self._writing is None:
                return
            await asyncio.sleep(0.01)
        logger.warning("not settled in time", extra={"in_flight": sum(lane.in_flight for lane in lanes)})

    async def clear(self, share: Share, committed: Progress) -> None:
        """Forgets answers that the committed progress knows of as well. What is not forgotten now expires.

        What was committed counts, not where the lanes are by now: a restart begins there.
        """
        commands: list[Command] = []
        for partner, last in list(share.written.items()):
            below = committed.behind.get(partner, committed.head)
            if last < below:
                del share.written[partner]
            commands.append(("ZREMRANGEBYSCORE", answered_key(share.partition, partner), "-inf", f"({below}"))
        try:
            await self._ask_valkey(commands)
        except ConnectorError as e:
            logger.info("answers not cleared", extra={"error": str(e)})

    def _pump(self, share: Share, lane: Lane) -> None:
        """Sends what is due, and comes back when more will be."""
        if (timer := self._timers.pop(lane, None)) is not None:
            timer.cancel()
        if share.ended:
            return
        now_s = self._loop.time()
        if self.waiting_for is not None:
            at_s: float | None = now_s + self._settings.retry_s
        else:
            while (call := lane.take(now_s)) is not None:
                self._begin(Turn(share, lane, call))
            at_s = lane.due_s(now_s)
        if at_s is not None:
            self._timers[lane] = self._loop.call_at(max(at_s, now_s + 0.001), self._pump, share, lane)

    def _begin(self, turn: Turn) -> None:
        call = turn.call
        if self._now_ms() - call.queued_ms > self._settings.max_age_s * 1000:
            turn.reject = Reject(RejectReason.PARTNER_EXHAUSTED, f"not taken in {self._settings.max_age_s:g} s")
            self._end(turn)
            return
        self._send(turn, expand(call.record["url"], call.record, call.device))

    def _send(self, turn: Turn, url: str) -> None:
        try:
            answer = self._wire.send(turn.lane.partner, turn.call, url)
        except BadUrl as e:
            turn.lane.answered()
            turn.reject = Reject(RejectReason.UNSAFE_URL, str(e))
            self._end(turn)
            return
        answer.add_done_callback(partial(self._on_answer, turn, url))

    def _on_answer(self, turn: Turn, url: str, future: asyncio.Future[Answer]) -> None:
        lane, error = turn.lane, future.exception()
        if isinstance(error, PrivateAddress):
            lane.answered()
            turn.reject = Reject(RejectReason.UNSAFE_URL, str(error))
            self._end(turn)
        elif error is not None:
            self._retry(turn, None)
        else:
            self._judge(turn, url, future.result())
        self._pump(turn.share, lane)

    def _judge(self, turn: Turn, url: str, answer: Answer) -> None:
        lane, headers = turn.lane, answer.headers or {}
        found, location = verdict(answer.status), headers.get(LOCATION)
        self._metrics.latency_s.labels(lane.partner.id).observe(answer.latency_s)
        if found is Verdict.LATER:
            now_s = self._now_ms() / 1000
            self._retry(turn, retry_after_s(headers.get(RETRY_AFTER), now_s, self._settings.longest_wait_s))
            return
        if found is Verdict.REDIRECTED and location is not None:
            turn.redirects += 1
            if turn.redirects <= self._settings.max_redirects:
                self._send(turn, urljoin(url, location.decode("latin-1")))
                return
            found = Verdict.REFUSED
        lane.answered()
        if found is Verdict.REFUSED:
            turn.reject = Reject(RejectReason.PARTNER_REFUSED, f"status {answer.status}")
        else:
            self._metrics.attempts.labels(lane.partner.id, "delivered").inc()
            self._metrics.delay_s.labels(lane.partner.id).observe((self._now_ms() - turn.call.queued_ms) / 1000)
        self._end(turn)

    def _retry(self, turn: Turn, wait_s: float | None) -> None:
        self._metrics.attempts.labels(turn.lane.partner.id, "retried").inc()
        turn.lane.failed(turn.call, self._loop.time(), wait_s)

    def _end(self, turn: Turn) -> None:
        """A call is over, delivered or given up, once that is written down."""
        if turn.reject is not None:
            self._metrics.attempts.labels(turn.lane.partner.id, "dead").inc()
        self._over.append(turn)
        if self._writing is None:
            self._start_writing()

    def _start_writing(self) -> None:
        self._writing = self._loop.create_task(self._write_down())
        self._writing.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if self._over and not task.cancelled():
            self._start_writing()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # to the loop's exception handler, which ends the worker

    async def _write_down(self) -> None:
        while self._over:
            turns, self._over = self._over, []
            letters = [
                GivenUp(turn.share.partition, turn.lane.partner.id, turn.call, turn.reject)
                for turn in turns
                if turn.reject is not None
            ]
            if letters:
                await self._until_done("kafka", lambda: asyncio.to_thread(self._dead_letters.write, letters))  # noqa: B023
                for letter in letters:
                    self._metrics.dead.labels(letter.partner, str(letter.reject.reason)).inc()
            arguments: dict[tuple[int, str], list[int | str]] = defaultdict(list)
            for turn in turns:
                if turn.call.key:
                    arguments[turn.share.partition, turn.lane.partner.id] += (turn.call.offset, turn.call.key)
            commands: list[Command] = []
            for place, pairs in arguments.items():
                key = answered_key(*place)
                commands += [("ZADD", key, *pairs), ("EXPIRE", key, ANSWERED_TTL_S)]
            await self._until_done("valkey", lambda: self._ask_valkey(commands))  # noqa: B023
            for turn in turns:
                self._release(turn)
            for lane, share in {turn.lane: turn.share for turn in turns}.items():
                self._pump(share, lane)

    def _release(self, turn: Turn) -> None:
        """A call is over, and that is written down."""
        written, partner = turn.share.written, turn.lane.partner.id
        written[partner] = max(written.get(partner, 0), turn.call.offset)
        turn.lane.over(turn.call)

    async def _ask_valkey(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._valkey.pipeline(commands, _VALKEY_S)
        for reply in replies:
            if isinstance(reply, ConnectorError):
                raise reply
        return replies

    async def _until_done(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result, once there is one: meanwhile nothing is sent."""
        while True:
            try:
                result = await call()
            except (Unavailable, TimedOut) as e:
                if self.waiting_for is None:
                    logger.warning("waiting", extra={"what": what, "error": str(e)})
                    self.waiting_for = what
                    self._metrics.waiting.labels(what).set(1)
                await asyncio.sleep(self._settings.retry_s)
            else:
                if self.waiting_for == what:
                    logger.info("going on", extra={"what": what})
                    self.waiting_for = None
                    self._metrics.waiting.labels(what).set(0)
                return result
