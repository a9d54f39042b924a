"""Refused records → dead-letter topics: everything needed to replay them.

At least once: a worker that dies between its dead letters and its Delta commit writes them again after a restart,
with the same source topic, partition and offset, by which a reader counts each once.
"""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaException, Message, Producer

from connectors.kafka import as_connector_error
from schemas import topics
from schemas.codec import Encoder
from schemas.errors import Reject, Unavailable

JOB = "lake"


class DeadLetters:
    """Writes refused records. `flush` before the offsets behind them are committed.

    `register` gives the schema id of a dead-letter topic; it is asked at a topic's first refusal.
    """

    def __init__(
        self,
        producer: Producer,
        register: Callable[[topics.Topic], int],
        code_version: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._producer = producer
        self._register = register
        self._code_version = code_version
        self._clock_ms = clock_ms
        self._encoders: dict[str, Encoder] = {}
        self._failures: list[str] = []

    def write(self, topic: str, message: Message, schema_id: int | None, reject: Reject) -> None:
        """Queues one dead letter. Errors: Unavailable when the registry or the broker is."""
        encoder = self._encoders.get(topic)
        if encoder is None:
            schema_name = topics.BY_NAME[topic].schema
            assert schema_name is not None
            encoder = self._encoders[topic] = Encoder(schema_name, self._register(topics.BY_NAME[topic]))
        letter = {
            "source_topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "schema_id": schema_id if schema_id is None or schema_id < 2**31 else None,
            "reason": str(reject.reason),
            "detail": reject.detail[:500],
            "job": JOB,
            "job_version": self._code_version,
            "refused_time_ms": self._clock_ms(),
            "key": message.key(),
            "raw": message.value() or b"",
        }
        try:
            self._producer.produce(topic, encoder(letter), message.key(), on_delivery=self._delivered)
        except BufferError as e:
            raise Unavailable("the dead-letter queue is full") from e
        except KafkaException as e:
            raise as_connector_error(e) from e

    def flush(self, timeout_s: float = 15.0) -> None:
        """Waits until every queued letter is stored. Errors: Unavailable when one is not: write them all again."""
        waiting = self._producer.flush(timeout_s)
        failures, self._failures = self._failures, []
        if waiting or failures:
            raise Unavailable(f"{waiting + len(failures)} dead letters are not stored: {failures[:1]}")

    def _delivered(self, error: object, _message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))
