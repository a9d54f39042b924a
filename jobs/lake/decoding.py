"""Kafka bytes → a bronze row, or a `Reject` with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import fastavro

from jobs.lake.tables import HOUR_COLUMN, BronzeTable, event_hour
from schemas.codec import decode, parsed_schema, schema_text, split_header
from schemas.errors import ContractError, Refused, Reject, RejectReason

#: The writer's schema (parsed JSON) of an id. Raises Refused for an id that does not exist, Unavailable when unsure.
SchemaSource = Callable[[int], Any]


class RowDecoder:
    """Decodes the records of one table. A schema id is resolved once; an older or newer writer is read as our contract.

    Errors: what `schema_source` raises, other than Refused: the registry can't be asked, so the record is not judged.
    """

    def __init__(self, table: BronzeTable, schema_source: SchemaSource) -> None:
        self._table = table
        self._schema_source = schema_source
        self._ours = parsed_schema(table.schema_name)
        self._our_form = fastavro.schema.to_parsing_canonical_form(json.loads(schema_text(table.schema_name)))
        self._writers: dict[int, tuple[Any, Any] | Reject] = {}

    def __call__(self, value: bytes | None) -> tuple[int | None, dict[str, Any] | Reject]:
        """(schema id, the row without its source columns but with its hour) or (schema id, why not)."""
        try:
            schema_id, payload = split_header(value or b"")
        except ContractError as e:
            return None, Reject(RejectReason.UNDECODABLE, str(e))
        writer = self._writers.get(schema_id) or self._resolve(schema_id)
        if isinstance(writer, Reject):
            return schema_id, writer
        try:
            row = decode(payload, *writer)
        except ContractError as e:
            return schema_id, Reject(RejectReason.UNDECODABLE, str(e))
        row[HOUR_COLUMN] = event_hour(row[self._table.time_column])
        if row[HOUR_COLUMN] is None:
            return schema_id, Reject(RejectReason.ABSURD_TIME, f"{self._table.time_column} is no time of ours")
        return schema_id, row

    def _resolve(self, schema_id: int) -> tuple[Any, Any] | Reject:
        try:
            source = self._schema_source(schema_id)
        except Refused as e:
            # Not remembered: an id that is unknown now may be registered later.
            return Reject(RejectReason.UNKNOWN_SCHEMA, str(e))
        try:
            writer = fastavro.parse_schema(source)
            same = fastavro.schema.to_parsing_canonical_form(source) == self._our_form
        except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, KeyError, TypeError) as e:
            return Reject(RejectReason.UNKNOWN_SCHEMA, f"schema {schema_id} is not Avro: {e}")
        self._writers[schema_id] = (writer, None if same else self._ours)
        return self._writers[schema_id]
