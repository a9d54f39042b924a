"""The Kafka connector against a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from connectors import kafka
from connectors.endpoints import Endpoints
from schemas.errors import Fenced, Refused, Unavailable
from schemas.topics import TOPICS, Topic
from tests.samples.ingest import wait_until

WAIT_S = 15.0


@pytest.fixture
def topic(local_services: Endpoints) -> Iterator[Topic]:
    made = Topic(f"test-{uuid.uuid4().hex}", "a test's own", "none", None, (), (), partitions=2)
    kafka.create_topics([made])
    yield made
    client = kafka.admin()
    for future in client.delete_topics([made.name]).values():
        future.result()


def read(reader: Consumer, count: int, patience_s: float = WAIT_S) -> list[Message]:
    found = []
    for _ in range(int(patience_s / 0.1)):
        message = kafka.value_of(reader.poll(0.1))
        if message is not None:
            found.append(message)
            if len(found) == count:
                break
    return found


def test_declared_topics_exist_with_their_configuration(local_services: Endpoints) -> None:
    existing = kafka.existing_topics()
    assert {t.name: t.partitions for t in TOPICS}.items() <= existing.items()
    for declared in TOPICS:
        assert declared.config.items() <= kafka.topic_config(declared.name).items()


def test_creating_again_changes_nothing(topic: Topic) -> None:
    assert kafka.create_topics([topic]) == []


def test_another_number_of_partitions_is_refused(topic: Topic) -> None:
    wider = Topic(topic.name, topic.what, topic.key, None, (), (), partitions=3)
    with pytest.raises(Refused, match="has 2 partitions and is declared with 3"):
        kafka.create_topics([wider])


def test_same_key_goes_to_the_partition_of_the_java_clients(topic: Topic) -> None:
    sender = kafka.producer("test")
    sender.produce(topic.name, b"v", key=b"ad-1")  # murmur2("ad-1") is odd: partition 1 of 2
    assert sender.flush(WAIT_S) == 0
    reader = kafka.consumer("test", "test-" + topic.name, [topic.name])
    (message,) = read(reader, 1)
    reader.close()
    assert message.partition() == _murmur2(b"ad-1") % 2


def test_open_and_aborted_transactions_are_invisible(topic: Topic) -> None:
    sender = kafka.transactional_producer("test", topic.name)
    sender.begin_transaction()
    sender.produce(topic.name, b"aborted", partition=0)
    sender.flush(WAIT_S)
    sender.abort_transaction()
    sender.begin_transaction()
    sender.produce(topic.name, b"committed", partition=0)
    sender.commit_transaction()
    committed_end = kafka.end_offsets(topic.name)[0]
    sender.begin_transaction()
    sender.produce(topic.name, b"open", partition=0)
    sender.flush(WAIT_S)

    assert kafka.end_offsets(topic.name) == {0: committed_end, 1: 0}  # an open transaction does not move the end
    reader = kafka.consumer("test", "test-" + topic.name, [topic.name])
    assert [m.value() for m in read(reader, 2, patience_s=3)] == [b"committed"]
    reader.close()
    sender.abort_transaction()


def test_a_later_producer_fences_the_earlier(topic: Topic) -> None:
    first = kafka.transactional_producer("first", topic.name)
    kafka.transactional_producer("second", topic.name)
    with pytest.raises(Fenced), kafka.kafka_errors():
        first.begin_transaction()
        first.produce(topic.name, b"v")
        first.commit_transaction(WAIT_S)


def three_records(topic: Topic) -> None:
    """In partition 1."""
    sender = kafka.producer("test")
    for _ in range(3):
        sender.produce(topic.name, b"v", partition=1)
    sender.flush(WAIT_S)


def test_lag_is_what_is_left_to_read(topic: Topic) -> None:
    three_records(topic)
    group = "test-" + topic.name
    assert kafka.lag(group, topic.name) == 3
    reader = kafka.consumer("test", group, [topic.name])
    messages = read(reader, 2)
    reader.commit(messages[1], asynchronous=False)
    reader.close()
    assert kafka.committed_offsets(group, topic.name) == {1: 2}
    assert kafka.lag(group, topic.name) == 1


def test_offsets_of_an_open_transaction_are_not_waited_for(topic: Topic) -> None:
    """A worker that was killed behind `send_offsets_to_transaction` leaves one open for as long as a minute."""
    three_records(topic)
    group = "test-" + topic.name
    reader = kafka.consumer("test", group, [topic.name])
    messages = read(reader, 2)
    reader.commit(messages[0], asynchronous=False)
    killed = kafka.transactional_producer("killed", topic.name)
    killed.begin_transaction()
    killed.produce(topic.name, b"v", partition=0)
    killed.send_offsets_to_transaction([TopicPartition(topic.name, 1, 2)], reader.consumer_group_metadata(), WAIT_S)
    assert kafka.committed_offsets(group, topic.name) == {1: 1}
    killed.commit_transaction(WAIT_S)
    assert kafka.committed_offsets(group, topic.name) == {1: 2}
    reader.close()


def test_a_partition_that_was_taken_away_while_it_was_paused_is_read_when_it_is_given_back(topic: Topic) -> None:
    three_records(topic)
    group = "test-" + topic.name
    first, second = kafka.consumer("first", group), kafka.consumer("second", group)
    first.subscribe([topic.name], on_assign=kafka.begin_assigned)
    assert len(read(first, 3)) == 3
    first.pause(first.assignment())
    second.subscribe([topic.name])
    wait_until("each has a partition", lambda: _assigned(first) == _assigned(second) == 1)
    sender = kafka.producer("test")
    for partition in range(topic.partitions):
        sender.produce(topic.name, b"after", partition=partition)
    assert sender.flush(WAIT_S) == 0
    wait_until("the first reads on", lambda: any(m.value() == b"after" for m in read(first, 1, 0.5)), WAIT_S)
    first.close()
    second.close()


def test_a_member_that_was_fenced_says_that_it_is_of_no_use_any_more(topic: Topic) -> None:
    """Whoever reads on with it waits for ever: after a broker stood still, a static member may fence itself."""
    settings = {"group.instance.id": "the-same"}
    first = kafka.consumer("first", "test-" + topic.name, [topic.name], settings)
    wait_until("it has its partitions", lambda: _assigned(first) == 2)
    second = kafka.consumer("second", "test-" + topic.name, [topic.name], settings)
    wait_until("the other one has them", lambda: _assigned(second) == 2)
    with pytest.raises(Refused, match="fenced"):
        read(first, 1)
    first.close()
    second.close()


def _assigned(reader: Consumer) -> int:
    """How many partitions a reader has, after some time of taking part in its group."""
    reader.poll(0.1)
    return len(reader.assignment())


def test_an_unknown_topic_is_refused(local_services: Endpoints) -> None:
    with pytest.raises(Refused):
        kafka.end_offsets("no-such-topic")


def test_no_broker_is_unavailable(local_services: Endpoints) -> None:
    nobody = kafka.admin({"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(Unavailable):
        kafka.existing_topics(nobody, timeout_s=1)


def test_a_message_over_the_limit_is_refused(topic: Topic) -> None:
    sender = kafka.producer("test")
    with pytest.raises((Refused, KafkaException)), kafka.kafka_errors():
        sender.produce(topic.name, b"x" * 3_000_000)


def _murmur2(data: bytes) -> int:
    """Kafka's murmur2, as its Java client has it: the reference for the partitioner's choice."""
    length, m, mask = len(data), 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ length) & mask
    for i in range(0, length - length % 4, 4):
        k = (int.from_bytes(data[i : i + 4], "little") * m) & mask
        k = ((k ^ (k >> 24)) * m) & mask
        h = ((h * m) & mask) ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * m) & mask
    h = ((h ^ (h >> 13)) * m) & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF
