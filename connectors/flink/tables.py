"""Flink DDL, generated from a topic and its Avro schema: nobody writes a CREATE TABLE for a topic by hand.

Sources read committed records only, decode only the columns that are asked for, and skip what does not decode
(java/RowAvroFormat.java).
Sinks come in the two kinds of docs/architecture.md "Delivery": exactly once by Kafka transactions, and absolute values
at least once. Every sink is given the text of our own .avsc: without it Flink would register a schema of its own making
under our subject.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from connectors.flink.java_jar import ABSOLUTE_KAFKA, ADDITIVE_KAFKA, AVRO_KAFKA, ROW_AVRO
from schemas import campaign_metrics
from schemas.codec import schema_text
from schemas.topics import Topic

#: The source's column that holds the Kafka key.
KEY_COLUMN = "kafka_key"

#: The column of an additive table that is counted instead of written.
COUNTED_COLUMN = "event_type"

#: Nobody reads a transaction before it is committed, and a commit waits for nothing: few full batches.
_TRANSACTION_LINGER_MS = 100
#: What was collected goes out in one request per broker, not the first row by itself and the rest in pieces behind it.
_ABSOLUTE_LINGER_MS = 5
#: Each batch has buffers of 128 KB to be compressed in, however small it is; Kafka's default is 16 KB.
_BATCH_BYTES = 131_072

_PRIMITIVES = {
    "string": "STRING",
    "int": "INT",
    "long": "BIGINT",
    "boolean": "BOOLEAN",
    "bytes": "BYTES",
    "float": "FLOAT",
    "double": "DOUBLE",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a logical table: its name and its Flink type, nullability included."""

    name: str
    type: str

    @property
    def ddl(self) -> str:
        return f"`{self.name}` {self.type}"


@dataclass(frozen=True, slots=True)
class Packed:
    """Fields that a source gives, or a sink takes, as one value of bytes (java/PackedFields.java)."""

    texts: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


NOTHING_PACKED = Packed()
NO_TEXTS: Mapping[str, str] = {}
PACKED_DIMENSIONS = Packed(campaign_metrics.PACKED_TEXTS, campaign_metrics.PACKED_NUMBERS)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Addresses that a table's DDL holds."""

    kafka_bootstrap: str
    registry_url: str


@dataclass(frozen=True, slots=True)
class ExactlyOnce:
    """How a transactional sink names and bounds its transactions.

    `transactional_id_prefix` must be unique per job and sink in one Kafka cluster. With POOLING, a restarted sink
    lists the open transactions of its prefix and aborts those that its checkpoint does not know, at once.
    `transaction_timeout_ms` must be longer than checkpoint interval + restart, and within the broker's maximum.
    """

    transactional_id_prefix: str
    transaction_timeout_ms: int


def flink_type(avro_type: object) -> str:
    """The Flink type that reads and writes an Avro type, NOT NULL where Avro has no null.

    Errors: ValueError for enum and fixed, which Flink 2.3 does not write (FLINK-39053), and for records and unions
    of more than null and one type.

    Example:
    >>> flink_type("long"), flink_type(["null", "string"]), flink_type({"type": "map", "values": "string"})
    ('BIGINT NOT NULL', 'STRING', 'MAP<STRING NOT NULL, STRING NOT NULL> NOT NULL')
    """
    if isinstance(avro_type, list):
        others = [t for t in avro_type if t != "null"]
        if len(others) != 1 or len(avro_type) != 2:
            raise ValueError(f"no Flink type for union {avro_type}")
        return flink_type(others[0]).removesuffix(" NOT NULL")
    if isinstance(avro_type, str) and avro_type in _PRIMITIVES:
        return f"{_PRIMITIVES[avro_type]} NOT NULL"
    if isinstance(avro_type, dict):
        kind = avro_type.get("type")
        if kind == "map":
            return f"MAP<STRING NOT NULL, {flink_type(avro_type['values'])}> NOT NULL"
        if kind == "array":
            return f"ARRAY<{flink_type(avro_type['items'])}> NOT NULL"
        if kind in _PRIMITIVES:
            return flink_type(kind)
    raise ValueError(f"no Flink type for Avro type {avro_type!r}")


def columns(schema: str, wanted: Collection[str] | None = None) -> tuple[Column, ...]:
    """Columns of schemas/avro/<schema>.avsc, in its order; of all fields, or of those `wanted`."""
    fields = json.loads(schema_text(schema))["fields"]
    return tuple(Column(f["name"], flink_type(f["type"])) for f in fields if wanted is None or f["name"] in wanted)


def campaign_metrics_columns(
    sums: Iterable[str] = campaign_metrics.SUMS,
    maxima: Iterable[str] = campaign_metrics.MAXIMA,
    *,
    counted: bool = True,
    packed: bool = False,
) -> tuple[Column, ...]:
    """Columns that a job's query gives the connector `additive-kafka`, from schemas/campaign_metrics.py.

    `counted`: the event's type, of which the connector makes the columns of `campaign_metrics.COUNTED`.
    `packed`: the dimensions as one column.
    """
    numbers = dict.fromkeys(campaign_metrics.PACKED_NUMBERS, "INT")
    unpacked = (Column(name, numbers.get(name, "STRING")) for name in campaign_metrics.DIMENSIONS)
    of_each_event = ((COUNTED_COLUMN, "STRING"), (campaign_metrics.REACH_COLUMN, "STRING")) if counted else ()
    return (
        Column(campaign_metrics.TIME_COLUMN, "BIGINT"),
        *((Column(campaign_metrics.PACKED_COLUMN, "BYTES"),) if packed else unpacked),
        *(Column(name, "BIGINT") for name in (*sums, *maxima)),
        *(Column(*column) for column in of_each_event),
    )


def source_ddl(
    table: str,
    topic: Topic,
    cluster: Cluster,
    *,
    group: str,
    wanted: Collection[str] | None = None,
    startup: str = "group-offsets",
    extra_columns: Iterable[str] = (),
    discovery_s: int = 60,
    bounded: bool = False,
    packed: Packed = NOTHING_PACKED,
    texts: Mapping[str, str] = NO_TEXTS,
) -> str:
    """CREATE TABLE of a topic to read from its committed offsets, or from its start when there are none.

    Only the columns `wanted` are declared, and so decoded (None: all). `extra_columns` are DDL fragments: metadata and
    computed columns, a watermark. `startup` is `group-offsets` or
    `earliest-offset`; either counts only for a job that is not restored from a checkpoint. `bounded`: to the end that
    the topic has when the job starts, and no further. `packed`: the fields in metadata column `value.packed`.
    `texts`: further metadata columns of the value, each an array's items (`field`) or a map's entry (`field.key`).
    """
    options = {
        **_kafka(topic, cluster),
        "key.format": "raw",
        "key.fields": KEY_COLUMN,
        "properties.group.id": group,
        "properties.isolation.level": "read_committed",
        "properties.auto.offset.reset": "earliest",
        # few large handovers from the thread that fetches: at 500 a tenth of the CPU went into waking threads up
        "properties.max.poll.records": "5000",
        "scan.startup.mode": startup,
        "scan.topic-partition-discovery.interval": f"{discovery_s} s",
        "value.format": ROW_AVRO,
        "value.fields-include": "EXCEPT_KEY",
        f"value.{ROW_AVRO}.url": cluster.registry_url,
        f"value.{ROW_AVRO}.schema": schema_text(_schema_of(topic)),
        f"value.{ROW_AVRO}.packed.texts": ",".join(packed.texts),
        f"value.{ROW_AVRO}.packed.numbers": ",".join(packed.numbers),
        f"value.{ROW_AVRO}.texts": ",".join(f"{name}={path}" for name, path in texts.items()),
        **({"scan.bounded.mode": "latest-offset"} if bounded else {}),
    }
    parts = [column.ddl for column in columns(_schema_of(topic), wanted)]
    return _create(table, [f"`{KEY_COLUMN}` BYTES", *parts, *extra_columns], options)


def avro_sink_ddl(table: str, topic: Topic, cluster: Cluster, how: ExactlyOnce | None, *, key: str) -> str:
    """CREATE TABLE of an Avro topic, keyed by one of its string columns.

    Written in transactions; without `how` at least once, rows being sent as they are made.
    """
    at_least_once = {"sink.delivery-guarantee": "at-least-once", "properties.linger.ms": "0"}
    options = {
        **_kafka(topic, cluster),
        **(_transactions(how) if how else at_least_once),
        "connector": AVRO_KAFKA,
        **_own(AVRO_KAFKA, {"key": key, **_registered(topic, cluster)}),
    }
    return _create(table, [column.ddl for column in columns(_schema_of(topic))], options)


@dataclass(frozen=True, slots=True)
class Additive:
    """Which columns of an additive table are added up, of which the greatest counts, whose texts are collected, and
    which column's texts are counted (`counts`: text to the column that is written).

    All others are the key. Rows of equal keys become one until the next checkpoint. `packed_column` has the fields
    `packed` of the key in one.
    """

    sums: tuple[str, ...]
    maxima: tuple[str, ...] = ()
    unions: tuple[str, ...] = ()
    counted: str = ""
    counts: Mapping[str, str] = field(default_factory=dict)
    packed_column: str = ""
    packed: Packed = NOTHING_PACKED


def additive_sink_ddl(
    table: str, topic: Topic, cluster: Cluster, how: ExactlyOnce, additive: Additive, row: Iterable[Column]
) -> str:
    """CREATE TABLE of a JSON topic of additive rows, added up and written in transactions. Null fields are left out."""
    options = {
        **_kafka(topic, cluster),
        **_transactions(how),
        "connector": ADDITIVE_KAFKA,
        "additive.sum": ",".join(additive.sums),
        "additive.max": ",".join(additive.maxima),
        "additive.union": ",".join(additive.unions),
        "additive.count.column": additive.counted,
        "additive.count": ",".join(f"{text}:{column}" for text, column in additive.counts.items()),
        "additive.packed": additive.packed_column,
        "additive.packed.texts": ",".join(additive.packed.texts),
        "additive.packed.numbers": ",".join(additive.packed.numbers),
        "additive.absent": campaign_metrics.ABSENT,
    }
    return _create(table, [column.ddl for column in row], options)


def raw_sink_ddl(table: str, topic: Topic, cluster: Cluster, how: ExactlyOnce, *, key: str) -> str:
    """CREATE TABLE (`key` STRING, `raw` BYTES) of a topic that is written in transactions, byte for byte."""
    options = {
        **_kafka(topic, cluster),
        **_transactions(how),
        "key.format": "raw",
        "key.fields": key,
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    return _create(table, [f"`{key}` STRING", "`raw` BYTES"], options)


def absolute_sink_ddl(
    table: str,
    topic: Topic,
    cluster: Cluster,
    row: Iterable[Column],
    *,
    interval_ms: int,
    connector: str = ABSOLUTE_KAFKA,
    own: Mapping[str, str],
) -> str:
    """CREATE TABLE of a compacted topic of absolute values: at least once, the last of each key every `interval_ms`.

    `connector` is one of ours, whose options, `own` among them, begin with its name; it says which columns it takes.
    """
    options = {
        **_kafka(topic, cluster),
        "connector": connector,
        "sink.delivery-guarantee": "at-least-once",
        "properties.linger.ms": str(_ABSOLUTE_LINGER_MS),
        "properties.batch.size": str(_BATCH_BYTES),
        "properties.compression.type": "lz4",
        **_own(connector, {**own, "interval.ms": str(interval_ms), **_registered(topic, cluster)}),
    }
    return _create(table, [column.ddl for column in row], options)


def _kafka(topic: Topic, cluster: Cluster) -> dict[str, str]:
    return {
        "connector": "kafka",
        "topic": topic.name,
        "properties.bootstrap.servers": cluster.kafka_bootstrap,
    }


def _transactions(how: ExactlyOnce) -> dict[str, str]:
    return {
        "sink.delivery-guarantee": "exactly-once",
        "sink.transactional-id-prefix": how.transactional_id_prefix,
        "sink.transaction-naming-strategy": "POOLING",
        "properties.transaction.timeout.ms": str(how.transaction_timeout_ms),
        "properties.linger.ms": str(_TRANSACTION_LINGER_MS),
        "properties.batch.size": str(_BATCH_BYTES),
        "properties.compression.type": "lz4",
    }


def _registered(topic: Topic, cluster: Cluster) -> dict[str, str]:
    """Where the registry has the schema of the values that our connectors write."""
    return {"url": cluster.registry_url, "subject": topic.subject, "schema": schema_text(_schema_of(topic))}


def _own(connector: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options of one of our connectors: they begin with its name."""
    return {f"{connector.removesuffix('-kafka')}.{name}": value for name, value in options.items()}


def _schema_of(topic: Topic) -> str:
    if topic.schema is None:
        raise ValueError(f"topic {topic.name} has no Avro schema")
    return topic.schema


def _create(table: str, parts: Iterable[str], options: Mapping[str, str]) -> str:
    body = ",\n  ".join(parts)
    settings = ",\n  ".join(f"'{key}' = '{_quoted(value)}'" for key, value in options.items())
    return f"CREATE TEMPORARY TABLE `{table}` (\n  {body}\n) WITH (\n  {settings}\n)"


def _quoted(text: str) -> str:
    return text.replace("'", "''")
