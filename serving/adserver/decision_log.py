"""The decision log: every imp's auction to Kafka, without ever making a request wait.

Decisions queue in the producer's memory; when the queue is full, the brokers are away or the schema is not registered
yet, the ad is still served, and the loss is counted and says its reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.kafka import producer
from connectors.registry import SchemaRegistry
from schemas.codec import schema_text
from schemas.decision_encoder import DecisionEncoder
from schemas.decisions import Degraded
from schemas.errors import ConnectorError, ContractError
from schemas.topics import AD_DECISIONS
from serving.adserver import metrics
from serving.adserver.decision import Decision, log_candidates, log_record
from serving.adserver.openrtb.context import RequestContext

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_RETRY_S = 2.0
#: How long a decision waits for others: each batch wakes the producer's thread, is compressed and acknowledged.
_LINGER_MS = 100
_DELIVERY_MS = 60_000


def keep(log: DecisionLog, decision: Decision, context: RequestContext, currency: str, latency_ms: float) -> None:
    """Logs a decision and counts its reasons, of which an unavailable log is one."""
    if not log.available:
        decision.reasons.add(Degraded.DECISION_LOG_UNAVAILABLE)
    try:
        written = log.write(log_record(decision, context, currency, latency_ms), log_candidates(decision))
    except ContractError as e:  # of a candidate; those of the record are the log's own matter
        metrics.NOT_LOGGED.labels("contract").inc()
        logger.error("decision not logged", extra={"detail": str(e)[:500]})
        written = False
    if not written:
        decision.reasons.add(Degraded.DECISION_LOG_UNAVAILABLE)
    for reason in decision.reasons:
        metrics.DEGRADED.labels(reason.name.lower()).inc()


class DecisionLog:
    """Writes AdDecision records. `start` finds the schema's id in the background."""

    def __init__(self, queue_messages: int) -> None:
        self._producer: Producer = producer(
            "adserver",
            {
                "queue.buffering.max.messages": queue_messages,
                "message.timeout.ms": _DELIVERY_MS,
                "linger.ms": _LINGER_MS,
                "error_cb": self._on_error,
            },
        )
        self._encoder: DecisionEncoder | None = None
        self._brokers_down = False
        self._problem = ""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def available(self) -> bool:
        """Whether what is written now is likely to arrive."""
        return self._encoder is not None and not self._brokers_down

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._find_schema()), loop.create_task(self._poll())]

    def write(self, decision: dict[str, Any], candidates: Sequence[bytes]) -> bool:
        """Queues one decision (`decision.log_record`, `log_candidates`); False when it could not be. Never blocks."""
        if self._encoder is None:
            metrics.NOT_LOGGED.labels("no_schema").inc()
            return False
        try:
            value = self._encoder(decision, candidates)
            self._producer.produce(AD_DECISIONS.name, value, decision["request_id"], on_delivery=self._delivered)
        except BufferError:
            metrics.NOT_LOGGED.labels("queue_full").inc()
            return False
        except KafkaException as e:
            metrics.NOT_LOGGED.labels("refused").inc()
            self._say_once(str(e))
            return False
        except ContractError as e:
            metrics.NOT_LOGGED.labels("contract").inc()
            self._say_once(str(e))
            return False
        return True

    def _say_once(self, problem: str) -> None:
        """A problem that every decision has is one line in the log, not one per decision."""
        if problem != self._problem:
            self._problem = problem
            logger.error("decision not logged", extra={"detail": problem[:500]})

    async def close(self, timeout_s: float) -> None:
        """Waits for what is queued to be delivered."""
        for task in self._tasks:
            task.cancel()
        left = await asyncio.to_thread(self._producer.flush, timeout_s)
        if left:
            logger.warning("decisions left behind", extra={"count": left})

    async def _find_schema(self) -> None:
        registry = SchemaRegistry()
        text = schema_text(AD_DECISIONS.schema or "")
        while self._encoder is None:
            try:
                schema_id = await asyncio.to_thread(registry.register, AD_DECISIONS.subject, text)
                self._encoder = DecisionEncoder(schema_id)
            except ConnectorError as e:
                logger.warning("decision schema not registered", extra={"detail": str(e)})
                await asyncio.sleep(_RETRY_S)
            except ContractError as e:
                logger.error("decision schema refused: decisions are not logged", extra={"detail": str(e)})
                return
        registry.close()

    async def _poll(self) -> None:
        while True:
            self._producer.poll(0)
            await asyncio.sleep(_POLL_S)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._brokers_down = False
            metrics.LOGGED.inc()
        else:
            metrics.NOT_LOGGED.labels("not_delivered").inc()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._brokers_down:
            self._brokers_down = True
            logger.warning("all brokers are down")
