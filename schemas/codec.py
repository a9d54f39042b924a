"""Avro in the Confluent wire format: magic byte 0, schema id (4 bytes, big-endian), Avro binary.

Source: Avro 1.12 specification "Binary Encoding"; Confluent "Wire format".
"""

from __future__ import annotations

import io
import json
import struct
from functools import cache
from importlib import resources
from typing import Any

import fastavro

from schemas.errors import ContractError

_HEADER = struct.Struct(">bI")
HEADER_BYTES = _HEADER.size


@cache
def schema_text(name: str) -> str:
    """Text of schemas/avro/<name>.avsc, as registered. Errors: FileNotFoundError for an unknown name."""
    return resources.files("schemas").joinpath("avro", f"{name}.avsc").read_text()


@cache
def parsed_schema(name: str) -> Any:
    """fastavro's parsed schema of schemas/avro/<name>.avsc."""
    return fastavro.parse_schema(json.loads(schema_text(name)))


def header(schema_id: int) -> bytes:
    """What stands in front of the Avro binary: the Confluent wire format's magic byte and the schema's id."""
    return _HEADER.pack(0, schema_id)


def split_header(message: bytes) -> tuple[int, bytes]:
    """(schema id, Avro binary). Errors: ContractError when there is no such header."""
    if message is None or len(message) < HEADER_BYTES or message[0] != 0:
        raise ContractError("no Confluent wire-format header")
    return _HEADER.unpack_from(message)[1], message[HEADER_BYTES:]


class Encoder:
    """Encodes records of one schema. Errors: ContractError names the field that does not fit."""

    def __init__(self, name: str, schema_id: int) -> None:
        self.schema_id = schema_id
        self._schema = parsed_schema(name)
        self._integers = tuple(f["name"] for f in self._schema["fields"] if _is_integer(f["type"]))
        self._header = header(schema_id)

    def __call__(self, record: dict[str, Any]) -> bytes:
        for field in self._integers:  # fastavro would cut a float (money!) to an int without a word
            value = record.get(field)
            if value is not None and type(value) is not int:
                raise ContractError(f"does not fit {self._schema['name']}: {field} is {type(value).__name__}, not int")
        out = io.BytesIO()
        out.write(self._header)
        try:
            fastavro.schemaless_writer(out, self._schema, record, strict_allow_default=True)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, struct.error) as e:
            raise ContractError(f"does not fit {self._schema['name']}: {e}") from e
        return out.getvalue()


def _is_integer(kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return any(k in ("int", "long") for k in kinds if isinstance(k, str))


def decode(payload: bytes, writer_schema: Any, reader_schema: Any | None = None) -> dict[str, Any]:
    """One record from Avro binary. Errors: ContractError when the bytes are not exactly one such record."""
    stream = io.BytesIO(payload)
    try:
        record = fastavro.schemaless_reader(stream, writer_schema, reader_schema)
    except Exception as e:  # fastavro raises many kinds on hostile bytes: EOFError, IndexError, UnicodeDecodeError, ...
        raise ContractError(f"Avro bytes do not decode: {type(e).__name__}: {e}") from e
    if stream.read(1):
        raise ContractError("bytes left over after the Avro record")
    return record  # type: ignore[return-value]
