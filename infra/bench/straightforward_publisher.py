"""The publisher as one would write it in an afternoon with stock clients: what ours is measured beside.

The same job on the same input: consume telemetry, open the token, look the ad up, enrich, produce to a topic of its
own. confluent-kafka's `AvroDeserializer` and `AvroSerializer`, one redis-py GET per event, one `produce` per event, an
idempotent producer, offsets committed after a flush every thousand events: at least once, not transactional, no
dead letters, no rules beyond those that the input needs. It writes what it has done so far to stdout, a number a line.
Run: `python -m infra.bench.straightforward_publisher GROUP OUT_TOPIC EVENTS`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import redis
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from connectors.endpoints import Endpoints, endpoints
from connectors.keys import KeyRing
from connectors.tokens import TokenOpener
from schemas.codec import schema_text
from schemas.events import BY_CODE
from schemas.ids import encode_id, event_id
from schemas.topics import AD_TELEMETRY

COMMIT_EVERY = 1_000
_NOT_IN_EVENTS = ("decision_time_ms", "impression_cost_micros", "click_cost_micros", "trackers")


class StraightforwardPublisher:
    """One consumer, one producer, one event at a time."""

    def __init__(self, where: Endpoints, group: str, out_topic: str) -> None:
        self._out_topic = out_topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": where.kafka_bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._consumer.subscribe([AD_TELEMETRY.name])
        self._producer = Producer({"bootstrap.servers": where.kafka_bootstrap, "enable.idempotence": True})
        registry = SchemaRegistryClient({"url": where.registry_url})
        self._deserialize = AvroDeserializer(registry, schema_text("ad_telemetry"))
        self._serialize = AvroSerializer(registry, schema_text("ad_event"))
        self._redis = redis.Redis.from_url(where.valkey_url)
        self._opener = TokenOpener(KeyRing.load(where.secrets))

    def run(self, events: int) -> None:
        """Publishes so many events, a multiple of `COMMIT_EVERY`. Errors: those of the clients."""
        done = 0
        while done < events:
            message = self._consumer.poll(1.0)
            if message is None:
                continue
            if error := message.error():
                raise RuntimeError(error.str())
            self._publish(message)
            done += 1
            if done % COMMIT_EVERY == 0:
                self._producer.flush()
                self._consumer.commit(asynchronous=False)
                print(done, flush=True)
        self._producer.flush()
        self._consumer.close()

    def _publish(self, message: Message) -> None:
        telemetry = self._deserialize(message.value(), SerializationContext(message.topic() or "", MessageField.VALUE))
        claims = self._opener.open(telemetry["token"])
        record_id = encode_id(claims.record_id)
        stored: Any = self._redis.get(f"r:{record_id}")
        event = self._enriched(telemetry, claims, json.loads(stored[1:]))  # the first byte is the record's version
        key = event.get("user_pseudonym") or record_id
        value = self._serialize(event, SerializationContext(self._out_topic, MessageField.VALUE))
        self._producer.produce(self._out_topic, value, key)
        self._producer.poll(0)

    @staticmethod
    def _enriched(telemetry: dict[str, Any], claims: Any, record: dict[str, Any]) -> dict[str, Any]:
        kind = BY_CODE[claims.event_code]
        received_ms = telemetry["received_time_ms"]
        cost = {"impression": "impression_cost_micros", "click": "click_cost_micros"}.get(kind.name, "")
        return {
            **{name: value for name, value in record.items() if name not in _NOT_IN_EVENTS},
            "event_id": event_id(claims.record_id, kind.code, claims.ordinal),
            "event_type": kind.name,
            "ordinal": claims.ordinal,
            "event_time_ms": min(telemetry["client_time_ms"] or received_ms, received_ms),
            "received_time_ms": received_ms,
            "published_time_ms": int(time.time() * 1000),
            "source": telemetry["source"],
            "cost_micros": record.get(cost, 0),
            "watch_percent": claims.ordinal if kind.name == "progress" else kind.quartile,
            "viewable": True if kind.name == "viewable" else None,
            "quality_reasons": ["token_expired"] if claims.expired(received_ms / 1000) else [],
            "attributes": telemetry["attributes"],
        }


if __name__ == "__main__":
    StraightforwardPublisher(endpoints(), sys.argv[1], sys.argv[2]).run(int(sys.argv[3]))
