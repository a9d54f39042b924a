"""Delta tables by delta-rs: schemas derived from Avro, appends that carry their source's progress, SQL for readers.

Progress is kept in the Delta log itself as application transactions (`txn` actions): rows and the offsets they came
from are one atomic commit. A writer that lost a race gets `Fenced`, because its handle is of an older version.
Source: Delta protocol, "Transaction Identifiers".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from connectors.endpoints import endpoints
from schemas.codec import schema_text
from schemas.errors import Fenced, Refused, Unavailable

_PRIMITIVES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}


def arrow_schema(schema_name: str) -> pa.Schema:
    """The Arrow schema of schemas/avro/<schema_name>.avsc. Every column is nullable: a table outlives its contract.

    Example:
        >>> arrow_schema("ad_event").field("event_id").type
        DataType(binary)
    """
    record = json.loads(schema_text(schema_name))
    return pa.schema([pa.field(f["name"], _arrow_type(f["type"])) for f in record["fields"]])


def _arrow_type(avro: Any) -> pa.DataType:
    if isinstance(avro, list):
        (inner,) = [t for t in avro if t != "null"]
        return _arrow_type(inner)
    if isinstance(avro, str):
        return _PRIMITIVES[avro]
    match avro["type"]:
        case "array":
            return pa.list_(_arrow_type(avro["items"]))
        case "map":
            return pa.map_(pa.string(), _arrow_type(avro["values"]))
        case "record":
            return pa.struct([pa.field(f["name"], _arrow_type(f["type"])) for f in avro["fields"]])
        case primitive:
            return _PRIMITIVES[primitive]


def table_uri(name: str, lake_uri: str | None = None) -> str:
    """Where the table `name` ("bronze/ad_events") lies."""
    return f"{lake_uri or endpoints().lake_uri}/{name}"


def table(name: str, lake_uri: str | None = None, version: int | None = None) -> DeltaTable:
    """The table as of now, or of a version. Errors: Refused when there is no such table."""
    try:
        return DeltaTable(table_uri(name, lake_uri), version=version)
    except TableNotFoundError as e:
        raise Refused(f"there is no table {name} in the lake: {e}") from e


def sql(query: str, /, **tables: str | DeltaTable) -> pa.Table:
    """The answer to a DuckDB query over Delta tables, given as alias=name or alias=handle.

    Columns and filters are pushed down to the files. Not delta-rs' own QueryBuilder: its string views are beyond this
    Arrow. Deletion vectors and column mapping are refused, because Arrow's reader would answer wrongly.
    Errors: Refused for an unknown table, an unreadable one, or a query that fails.
    Example: `sql("SELECT count(*) AS n FROM events", events="bronze/ad_events")`.
    """
    import duckdb  # only readers pay for it

    with duckdb.connect(":memory:") as connection:
        for alias, source in tables.items():
            handle = table(source) if isinstance(source, str) else source
            if handle.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
                raise Refused(f"{alias}: column-mapped tables are read by Spark only")
            try:
                connection.register(alias, handle.to_pyarrow_dataset())
            except DeltaError as e:
                raise Refused(f"{alias}: {e}") from e
        try:
            return connection.sql(query).to_arrow_table()
        except duckdb.Error as e:
            raise Refused(f"query failed: {e}") from e


class ProgressTable:
    """A Delta table that is only appended to, each append together with its source's progress.

    `progress` numbers are the caller's: for Kafka, the next offset to read of each partition. One instance belongs to
    one thread. `append` blocks until the commit is durable in the log; after any error other than `Fenced` it may be
    called again with the same rows: a commit that did happen is recognised and not repeated.
    """

    def __init__(self, uri: str, schema: pa.Schema, partition_by: list[str], configuration: Mapping[str, str]) -> None:
        if "://" not in uri:
            Path(uri).mkdir(parents=True, exist_ok=True)
        self._uri = uri
        self._schema = schema
        try:
            DeltaTable.create(
                uri,
                schema=schema,
                mode="ignore",
                partition_by=partition_by,
                configuration=dict(configuration),
            )
            self._table = DeltaTable(uri)
        except (DeltaError, OSError) as e:
            raise Unavailable(f"Delta table {uri}: {e}") from e

    @property
    def version(self) -> int:
        return self._table.version()

    def progress(self, app_id: str) -> int | None:
        """The number last committed under `app_id`, as of this handle."""
        return self._table.transaction_version(app_id)

    def append(
        self,
        rows: pa.Table,
        expected: Mapping[str, int | None],
        progress: Mapping[str, int],
        lineage: Mapping[str, object],
    ) -> None:
        """Appends rows and moves the progress of each app id from `expected` to `progress` in one commit.

        `lineage` is kept as JSON in the commit's `userMetadata`, where Spark's Delta keeps it too. Never as keys of
        their own: one that Spark has a type for (`job`) makes the whole table unreadable for it.

        Errors: Fenced when another writer moved one of them; Unavailable when the storage failed: call again.
        """
        try:
            if self._moved_already(expected, progress):
                return
            write_deltalake(
                self._table,
                rows,
                mode="append",
                schema_mode="merge",
                commit_properties=CommitProperties(
                    custom_metadata={"userMetadata": json.dumps(lineage)},
                    app_transactions=[Transaction(app_id, n) for app_id, n in progress.items()],
                ),
            )
        except CommitFailedError as e:
            raise Fenced(f"another writer committed to {self._uri}: {e}") from e
        except (DeltaError, OSError) as e:
            self._reopen()
            raise Unavailable(f"append to {self._uri}: {e}") from e

    def _moved_already(self, expected: Mapping[str, int | None], progress: Mapping[str, int]) -> bool:
        now = {app_id: self.progress(app_id) for app_id in progress}
        if now == dict(progress):
            return True
        if now != dict(expected):
            raise Fenced(f"{self._uri} is at {now}, this writer expected {dict(expected)}")
        return False

    def _reopen(self) -> None:
        try:
            self._table = DeltaTable(self._uri)
        except (DeltaError, OSError) as e:
            raise Unavailable(f"Delta table {self._uri}: {e}") from e
