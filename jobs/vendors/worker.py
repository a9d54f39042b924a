"""Two loops of one process: events become calls in Kafka (a thread), and calls are made (an event loop)."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from confluent_kafka import Message

from connectors.kafka_transactions import TransactionalLoop, TransactionSettings
from connectors.patience import Patience
from connectors.records import RecordDecoder
from connectors.valkey import AsyncValkey
from jobs.vendors.caller import Caller
from jobs.vendors.dead_letters import DeadLetters
from jobs.vendors.expand import Expander, Expansion
from jobs.vendors.intake import Intake
from jobs.vendors.metrics import VendorMetrics
from jobs.vendors.partners import PartnerBook
from jobs.vendors.settings import VendorSettings
from jobs.vendors.wire import Wire
from schemas.topics import AD_EVENTS

logger = logging.getLogger(__name__)


class VendorsWorker:
    """One worker. `run` blocks until `stop`, and raises what can't be waited for: Fenced, Refused."""

    def __init__(
        self,
        settings: VendorSettings,
        book: PartnerBook,
        make_expander: Callable[[], Expander],
        make_dead_letters: Callable[[], DeadLetters],
        make_wire: Callable[[], Wire],
        decode: RecordDecoder,
        valkey_url: str,
        metrics: VendorMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._book = book
        self._make_expander = make_expander
        self._make_dead_letters = make_dead_letters
        self._make_wire = make_wire
        self._decode = decode
        self._valkey_url = valkey_url
        self._metrics = metrics
        self._now_ms = now_ms
        self._stopping = threading.Event()
        self._patience = Patience(
            self._stopping, settings.retry_s, lambda what, waiting: metrics.waiting.labels(what).set(waiting)
        )
        self._loop: TransactionalLoop[Expansion] | None = None
        self._caller: Caller | None = None
        self._intake: Intake | None = None
        self._errors: list[BaseException] = []
        self._events = 0

    def status(self) -> dict[str, Any]:
        """For `/status`; may be called by any thread."""
        loop, caller, intake = self._loop, self._caller, self._intake
        waiting = {self._patience.waiting_for, caller and caller.waiting_for, intake and intake.waiting_for} - {None}
        return {
            "ready": loop is not None and loop.ready and intake is not None and intake.ready,
            "worker": self._settings.worker,
            "waiting_for": ", ".join(sorted(str(what) for what in waiting)) or None,
            "events": self._events,
            "partners": intake.partners() if intake is not None else {},
        }

    def stop(self) -> None:
        """Ends `run` after what is in hand. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        expanding = threading.Thread(target=self._guarded, args=(self._expand,), name="expand")
        expanding.start()
        self._guarded(lambda: uvloop.run(self._call()))
        expanding.join()
        if self._errors:
            raise self._errors[0]

    def _guarded(self, part: Callable[[], None]) -> None:
        """Runs a part; when it fails, the other one ends too."""
        try:
            part()
        except BaseException as e:
            self._errors.append(e)
        finally:
            self._stopping.set()

    def _expand(self) -> None:
        settings = self._settings
        expander = self._patience.wait_for("registry", self._make_expander)
        if expander is None:
            return
        self._loop = TransactionalLoop(
            TransactionSettings(
                name=f"{settings.group}-{settings.worker}",
                group=settings.group,
                topics=(AD_EVENTS.name,),
                batch_records=settings.batch_records,
                batch_wait_s=settings.batch_wait_s,
                transaction_timeout_ms=settings.transaction_timeout_ms,
            ),
            expander,
            self._count,
            self._stopping,
            self._patience,
        )
        self._loop.run()

    def _count(self, messages: Sequence[Message], output: Expansion, _took_s: float) -> None:
        for outcome, count in output.events.items():
            self._metrics.events.labels(outcome).inc(count)
        for partner, count in output.calls.items():
            self._metrics.queued_calls.labels(partner).inc(count)
        self._metrics.refused_urls.inc(output.refused_urls)
        self._events += len(messages)

    async def _call(self) -> None:
        dead_letters = await asyncio.to_thread(self._patient_dead_letters)
        if dead_letters is None:
            return
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._unhandled(context, failed))
        valkey, wire = AsyncValkey(self._valkey_url), self._make_wire()
        await valkey.start()
        caller = self._caller = Caller(
            self._settings, self._book, wire, valkey, dead_letters, self._metrics, self._now_ms, random.Random()
        )
        intake = self._intake = Intake(
            self._settings, caller, self._decode, self._metrics, self._stopping, self._now_ms
        )
        try:
            await intake.run()
        finally:
            wire.close()
            await valkey.close()
        if failed.done():
            failed.result()

    def _patient_dead_letters(self) -> DeadLetters | None:
        patience = Patience(self._stopping, self._settings.retry_s, lambda _what, _waiting: None)
        return patience.wait_for("registry", self._make_dead_letters)

    def _unhandled(self, context: dict[str, Any], failed: asyncio.Future[None]) -> None:
        """An error in a callback ends the worker: what it was about may be stuck for ever."""
        error = context.get("exception")
        logger.error("unhandled", extra={"what": context.get("message")}, exc_info=error)
        if error is not None and not failed.done():
            failed.set_exception(error)
        self._stopping.set()
