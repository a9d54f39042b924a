"""Reads and writes of the chain's tables, each write with its lineage in Delta's commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.delta import table, table_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HOUR_COLUMN = "event_hour"


@dataclass
class LakeTables:
    """The lake of one session. Every table read is pinned to the version it had then; versions go into lineage."""

    spark: SparkSession
    lake_uri: str
    code_version: str
    seed: int

    def __post_init__(self) -> None:
        self._versions: dict[str, int] = {}

    def read(self, name: str) -> DataFrame:
        """The table at its newest version. Errors: Refused when there is no such table."""
        self._versions[name] = table(name, self.lake_uri).version()
        reader = self.spark.read.format("delta").option("versionAsOf", self._versions[name])
        return reader.load(table_uri(name, self.lake_uri))

    def write(
        self,
        name: str,
        rows: DataFrame,
        inputs: Sequence[str],
        counts: Mapping[str, object],
        hours: Sequence[str] | None = None,
        by_hour: bool = False,
    ) -> int:
        """Replaces the table, or only some hours of one that is partitioned by hour; gives back the new version.

        The same rows written again give the same table. A table that is not there yet is made.
        """
        lineage = {
            "job": "batch",
            "code_version": self.code_version,
            "inputs": {i: self._versions[i] for i in inputs},
            "counts": dict(counts),
            "hours": list(hours) if hours else None,
            "seed": self.seed,
        }
        writer = rows.write.format("delta").mode("overwrite").option("userMetadata", json.dumps(lineage))
        if by_hour:
            writer = writer.partitionBy(HOUR_COLUMN)
        if hours:
            listed = ", ".join(f"'{hour}'" for hour in hours)
            writer = writer.option("replaceWhere", f"{HOUR_COLUMN} IN ({listed})")
        else:
            writer = writer.option("overwriteSchema", "true")
        writer.save(table_uri(name, self.lake_uri))
        version = self._versions[name] = table(name, self.lake_uri).version()
        return version
