"""Rows of one table between two commits, with the offsets that they take their partitions to."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from jobs.lake.tables import BronzeTable

_BATCH_ROWS = 1_000


class TableBuffer:
    """Collects rows and offsets. `done[p]` is the offset after the last record seen, refused ones included.

    Rows are packed into Arrow a thousand at a time: as Python objects they take ten times the memory.
    """

    def __init__(self, table: BronzeTable, schema: pa.Schema) -> None:
        self.table = table
        self.schema = schema
        self.begun: dict[int, int | None] = {}
        self.done: dict[int, int] = {}
        self.row_count = 0
        self.rejected = 0
        self.newest_kafka_time_ms = 0
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []

    def __bool__(self) -> bool:
        return bool(self.done)

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a row, complete with its source columns."""
        self._rows.append(row)
        self.row_count += 1
        self.newest_kafka_time_ms = max(self.newest_kafka_time_ms, row["kafka_time_ms"])
        if len(self._rows) >= _BATCH_ROWS:
            self._pack()

    def begin(self, partition: int, committed: int | None) -> None:
        """Notes the progress that a partition has in the log; before its first record."""
        self.begun[partition] = committed

    def advance(self, partition: int, offset: int) -> None:
        """Notes that a record was taken, or refused."""
        self.done[partition] = offset + 1

    def arrow(self) -> pa.Table:
        """All rows; may be called again."""
        self._pack()
        return pa.Table.from_batches(self._batches, schema=self.schema)

    def _pack(self) -> None:
        if self._rows:
            columns = [pa.array([row[f.name] for row in self._rows], f.type) for f in self.schema]
            self._batches.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
            self._rows = []

    def expected(self) -> dict[str, int | None]:
        """Progress that the log must have for this buffer to be its next commit."""
        return {self.table.app_id(p): n for p, n in self.begun.items()}

    def progress(self) -> dict[str, int]:
        return {self.table.app_id(p): n for p, n in self.done.items()}

    def lineage(self, code_version: str) -> dict[str, object]:
        """Where the commit's rows came from. `offsets`: partition to [progress before, next offset]."""
        return {
            "job": "lake",
            "code_version": code_version,
            "topic": self.table.topic.name,
            "rows": self.row_count,
            "rejected": self.rejected,
            "offsets": {p: [self.begun[p], n] for p, n in sorted(self.done.items())},
        }
