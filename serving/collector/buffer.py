"""Records on their way to Kafka: a bounded buffer that outlives an outage of the broker.

The buffer is the producer's own queue (idempotent, acks=all). What is in it is lost only if this process is killed:
that is why batch doors wait for the broker's acknowledgement, and why beacons, whose players do not wait, are the one
door that answers from memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Producer

from connectors.kafka import producer
from serving.collector.metrics import CollectorMetrics
from serving.collector.settings import CollectorSettings

logger = logging.getLogger(__name__)

_POLL_S = 0.005
_FULL = "buffer_full"


@dataclass(frozen=True, slots=True)
class Record:
    """A record for a topic, encoded."""

    topic: str
    key: bytes
    value: bytes


class BufferFull(Exception):
    """The buffer can't take more now; the sender has to come again."""


class Buffer:
    """Takes records and sees to their delivery. All methods belong to the event loop's thread; none blocks."""

    def __init__(self, settings: CollectorSettings, metrics: CollectorMetrics) -> None:
        self._limit = settings.buffer_messages
        self._metrics = metrics
        self._producer: Producer = producer(
            "collector",
            {
                "queue.buffering.max.messages": settings.buffer_messages,
                "queue.buffering.max.kbytes": settings.buffer_kbytes,
                "message.timeout.ms": settings.delivery_timeout_s * 1_000,
                "reconnect.backoff.max.ms": 1_000,
            },
        )
        self._poller: asyncio.Task[None] | None = None
        self.last_failure = ""

    def start(self) -> None:
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    @property
    def waiting(self) -> int:
        """Records not acknowledged yet."""
        return len(self._producer)

    def put(self, record: Record) -> bool:
        """Takes one record; False when the buffer is full."""
        try:
            self._producer.produce(record.topic, record.value, record.key, on_delivery=self._delivered)
        except BufferError:
            return False
        return True

    async def put_all(self, records: Sequence[Record], wait_s: float) -> bool:
        """Takes all of a batch and waits for the broker: True when it has them, False when it has not by then.

        In the second case they stay in the buffer and are delivered later.
        Errors: BufferFull; some of the records may have been taken, so the batch has to be safe to send again.
        """
        if self.waiting + len(records) > self._limit:
            raise BufferFull
        if not records:
            return True
        batch = _Batch(len(records), asyncio.get_running_loop().create_future(), self._delivered)
        started_s = time.monotonic()
        try:
            for record in records:
                self._producer.produce(record.topic, record.value, record.key, on_delivery=batch.delivered)
        except BufferError as e:
            raise BufferFull from e
        try:
            await asyncio.wait_for(batch.done, wait_s)
        except TimeoutError:
            return False
        self._metrics.ack_s.observe(time.monotonic() - started_s)
        return True

    async def drain(self, timeout_s: float) -> int:
        """Sends what is buffered; gives back how many records were left at the end."""
        if self._poller is not None:
            self._poller.cancel()
        left = await asyncio.to_thread(self._producer.flush, timeout_s)
        if left:
            self._metrics.lost.labels("shutdown").inc(left)
            logger.error("records lost at shutdown", extra={"records": left})
        return left

    async def _poll(self) -> None:
        while True:
            self._producer.poll(0)
            await asyncio.sleep(_POLL_S)

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            self._metrics.acknowledged.inc()
            return
        self._metrics.lost.labels("not_delivered").inc()
        self.last_failure = error.name()
        logger.error("record not delivered", extra={"error": error.str()})


class _Batch:
    """Counts a batch's acknowledgements. A record that failed is never acknowledged, so the batch stays open."""

    __slots__ = ("_count", "_outstanding", "done")

    def __init__(
        self,
        outstanding: int,
        done: asyncio.Future[None],
        count: Callable[[KafkaError | None, Any], None],
    ) -> None:
        self._outstanding = outstanding
        self._count = count
        self.done = done

    def delivered(self, error: KafkaError | None, message: Any) -> None:
        self._count(error, message)
        if error is None:
            self._outstanding -= 1
            if self._outstanding == 0 and not self.done.done():
                self.done.set_result(None)
