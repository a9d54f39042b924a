"""Kafka: producers, transactional producers, consumers and administration, with the settings that matter set once.

The clients are confluent-kafka's own; this module chooses their settings and turns their errors into ours.
Defaults: producers are idempotent and wait for all in-sync replicas; consumers read committed records only and commit
nothing by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from connectors.endpoints import endpoints
from schemas.errors import ConnectorError, Fenced, Refused, TimedOut, Unavailable
from schemas.topics import Topic

Settings = Mapping[str, str | int | float | bool | Callable[..., object]]

TRANSACTION_TIMEOUT_MS = 60_000
REQUEST_TIMEOUT_S = 15.0
METADATA_TIMEOUT_S = 5.0

_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID,
}
_TIMED_OUT = {
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError.REQUEST_TIMED_OUT,
}
_REFUSED = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.TOPIC_ALREADY_EXISTS,
    KafkaError.POLICY_VIOLATION,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._INVALID_ARG,
}


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that reports this is of no use any more: none of its calls will ever do anything again.

    An error that `poll` or `consume` hands out says so by its code only. One of them is a static member of a group that
    was fenced by itself: a broker that stood still answered the first of two requests to join after the second.
    """
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def as_connector_error(error: KafkaError | KafkaException) -> ConnectorError:
    """Our error for one of the client's: Fenced, TimedOut, Refused, or else Unavailable (trying again may help).

    A client that is of no use any more is Refused too: its process must begin anew.
    """
    found = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(found, KafkaError):
        return Refused(str(error))
    code, text = found.code(), f"Kafka: {found.str()} ({found.name()})"
    if code in _FENCED:
        return Fenced(text)
    if code in _TIMED_OUT:
        return TimedOut(text)
    if code in _REFUSED or is_fatal(found):
        return Refused(text)
    return Unavailable(text)


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Raises our errors in place of the client's, for a block of calls to it."""
    try:
        yield
    except KafkaException as error:
        raise as_connector_error(error) from error


def _client(settings: Settings | None, **defaults: Any) -> dict[str, Any]:
    """The client's settings. Its own log lines go through stdlib logging, handed over at its calls to `poll`."""
    return {
        "bootstrap.servers": endpoints().kafka_bootstrap,
        "logger": logging.getLogger("kafka"),
        "reconnect.backoff.ms": 200,  # a broker that is away is asked a few times a second at first, then less
        "reconnect.backoff.max.ms": 3000,
        **defaults,
        **(settings or {}),
    }


def producer(client_id: str, settings: Settings | None = None) -> Producer:
    """An idempotent producer. Connects in the background; `produce` raises BufferError when its queue is full."""
    return Producer(
        _client(
            settings,
            **{
                "client.id": client_id,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",  # the Java clients' rule: the same key, the same partition
            },
        )
    )


def transactional_producer(
    client_id: str,
    transactional_id: str,
    settings: Settings | None = None,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> Producer:
    """A producer ready for `begin_transaction`; it fences every earlier one with the same transactional id.

    Blocks until the coordinator answers: what the earlier one left open is aborted by then.
    Errors: Unavailable or TimedOut when no broker answers, Fenced when a later instance has started.
    """
    made = producer(
        client_id,
        {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            **(settings or {}),
        },
    )
    with kafka_errors():
        made.init_transactions(timeout_s)
    return made


def consumer(client_id: str, group_id: str, topics: Iterable[str] = (), settings: Settings | None = None) -> Consumer:
    """A consumer of committed records, from the earliest where its group has no offset; the caller commits.

    With `topics` it is subscribed to them; without, the caller subscribes or assigns.
    """
    made = Consumer(
        _client(
            settings,
            **{
                "client.id": client_id,
                "group.id": group_id,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "partition.assignment.strategy": "range",
                "fetch.wait.max.ms": 100,
            },
        )
    )
    names = list(topics)
    if names:
        with kafka_errors():
            made.subscribe(names)
    return made


def begin_assigned(reader: Consumer, partitions: list[TopicPartition]) -> None:
    """The `on_assign` of a subscription whose partitions are paused at times, or the last step of one.

    librdkafka remembers a pause after the partition was taken away: it would be given back paused, and nobody would
    ever read it. Places in `partitions` count, as with `assign`.
    """
    reader.assign(partitions)
    reader.resume(partitions)


def value_of(message: Message | None) -> Message | None:
    """The message if it is a record, None for a quiet poll. Errors: ConnectorError for an error event."""
    if message is None:
        return None
    error = message.error()
    if error is None:
        return message
    if error.code() == KafkaError._PARTITION_EOF:
        return None
    raise as_connector_error(error)


def admin(settings: Settings | None = None) -> AdminClient:
    """An administration client."""
    return AdminClient(_client(settings, log_level=0))  # its calls fail with the reason; lines beside it add nothing


def existing_topics(client: AdminClient | None = None, timeout_s: float = METADATA_TIMEOUT_S) -> dict[str, int]:
    """Partitions by topic, internal topics left out. Errors: Unavailable."""
    with kafka_errors():
        metadata = (admin() if client is None else client).list_topics(timeout=timeout_s)
    return {n: len(t.partitions) for n, t in sorted(metadata.topics.items()) if not n.startswith("__")}


def create_topics(topics: Iterable[Topic], client: AdminClient | None = None, replication: int = 1) -> list[str]:
    """Creates those of the declared topics that do not exist; gives back their names. Idempotent.

    A topic with fewer partitions than declared is not widened: keys would move to other partitions.
    Errors: Refused when it exists with another number of partitions; Unavailable.
    """
    client = admin() if client is None else client  # not `or`: a client has a length, which is 0
    wanted = list(topics)
    existing = existing_topics(client)
    for topic in wanted:
        found = existing.get(topic.name)
        if found is not None and found != topic.partitions:
            raise Refused(
                f"topic {topic.name} has {found} partitions and is declared with {topic.partitions}: "
                "keys would move; make a new version of the topic instead"
            )
    missing = [topic for topic in wanted if topic.name not in existing]
    if not missing:
        return []
    new = [NewTopic(t.name, t.partitions, replication, config=t.config) for t in missing]
    created = []
    for name, future in client.create_topics(new, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise as_connector_error(error) from error
    return created


def topic_config(name: str, client: AdminClient | None = None) -> dict[str, str]:
    """A topic's settings as the broker has them. Errors: Refused for an unknown topic; Unavailable."""
    client = admin() if client is None else client  # must live until its answer is there
    resource = ConfigResource(ResourceType.TOPIC, name)
    with kafka_errors():
        entries = client.describe_configs([resource])[resource].result(REQUEST_TIMEOUT_S)
    return {key: entry.value for key, entry in entries.items()}


def _watermarks(topic: str, isolation: str) -> dict[int, tuple[int, int]]:
    reader = consumer("offsets", "offsets", settings={"isolation.level": isolation})
    try:
        with kafka_errors():
            metadata = reader.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
            if metadata.error is not None:
                raise as_connector_error(metadata.error)
            return {
                p: reader.get_watermark_offsets(TopicPartition(topic, p), timeout=REQUEST_TIMEOUT_S)
                for p in sorted(metadata.partitions)
            }
    finally:
        reader.close()


def end_offsets(topic: str) -> dict[int, int]:
    """The offset after the last committed record, by partition: where a reader of committed records is caught up.

    Errors: Refused for an unknown topic; Unavailable.
    """
    return {partition: high for partition, (_, high) in _watermarks(topic, "read_committed").items()}


def beginning_offsets(topic: str) -> dict[int, int]:
    """The first offset still kept, by partition. Errors: as `end_offsets`."""
    return {partition: low for partition, (low, _) in _watermarks(topic, "read_committed").items()}


def committed_offsets(group_id: str, topic: str) -> dict[int, int]:
    """What a consumer group has committed, by partition; partitions without a commit are left out.

    Offsets of a transaction that is still open are not among them, and are not waited for: asked for committed records
    only, the client would wait until a killed producer's transaction has ended (KIP-447). Errors: as `end_offsets`.
    """
    reader = consumer("offsets", group_id, settings={"isolation.level": "read_uncommitted"})
    try:
        with kafka_errors():
            partitions = reader.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic].partitions
            asked = [TopicPartition(topic, p) for p in sorted(partitions)]
            found = reader.committed(asked, timeout=REQUEST_TIMEOUT_S)
        return {p.partition: p.offset for p in found if p.offset >= 0}
    finally:
        reader.close()


def lag(group_id: str, topic: str) -> int:
    """Records and transaction markers that a group has still to read, in all partitions. Errors: as `end_offsets`."""
    done, first = committed_offsets(group_id, topic), beginning_offsets(topic)
    return sum(max(0, end - done.get(p, first[p])) for p, end in end_offsets(topic).items())


def read_topic(topic: str, since: Mapping[int, int] | None = None) -> Iterator[Message]:
    """Committed records of a topic, from its beginning or from the given offsets, up to where it ends at the call.

    Each partition's records come in its order; a partition that `since` leaves out is not read. Blocks for as long
    as the broker takes. Errors: as `end_offsets`.
    """
    ends = end_offsets(topic)
    starts = beginning_offsets(topic) if since is None else since
    behind = {p: end for p, end in ends.items() if p in starts and starts[p] < end}
    reader = consumer("read-topic", "read-topic", settings={"enable.partition.eof": True})
    try:
        reader.assign([TopicPartition(topic, p, starts[p]) for p in behind])
        while behind:
            for found in reader.consume(1_000, 0.2):
                partition = int(found.partition() or 0)
                message = value_of(found)
                if message is None or int(message.offset() or 0) >= ends[partition]:  # its end, or written since
                    behind.pop(partition, None)
                elif partition in behind:
                    yield message
    finally:
        reader.close()
