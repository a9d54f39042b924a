"""Compiled readers and writers against fastavro: the same records, and nothing read that is no record."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro_source import PROBLEMS, compiled_reader, compiled_writer
from schemas.codec import parsed_schema, schema_text
from schemas.errors import ContractError
from tests.samples.avro import values_of

COMPILED = ("ad_telemetry", "ad_event", "ad_conversion", "attribution", "dead_letter")
READERS = {name: compiled_reader(json.loads(schema_text(name))["fields"]) for name in COMPILED}
WRITERS = {name: compiled_writer(json.loads(schema_text(name))["fields"]) for name in COMPILED}
RECORDS = {
    name: st.fixed_dictionaries({f["name"]: values_of(f["type"]) for f in parsed_schema(name)["fields"]})
    for name in COMPILED
}


def fastavro_bytes(name: str, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed_schema(name), record)
    return out.getvalue()


@given(data=st.data(), name=st.sampled_from(COMPILED), before=st.binary(max_size=6))
def test_reads_and_writes_what_fastavro_does(data: st.DataObject, name: str, before: bytes) -> None:
    record = data.draw(RECORDS[name])
    encoded = fastavro_bytes(name, record)
    assert WRITERS[name](record, ()) == encoded
    assert READERS[name](before + encoded, len(before)) == record


@given(data=st.data(), name=st.sampled_from(COMPILED))
def test_what_is_read_from_damaged_bytes_is_what_fastavro_reads(data: st.DataObject, name: str) -> None:
    encoded = bytearray(fastavro_bytes(name, data.draw(RECORDS[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(encoded[: data.draw(st.integers(0, len(encoded)))] + data.draw(st.binary(max_size=3)))
    try:
        found = READERS[name](damaged, 0)
    except PROBLEMS:
        return
    assert found == fastavro.schemaless_reader(io.BytesIO(damaged), parsed_schema(name), None)


@given(cut=st.integers(0, 200), extra=st.binary(min_size=1, max_size=3))
def test_bytes_missing_or_left_over_are_no_record(cut: int, extra: bytes) -> None:
    record = {"token": "t" * 76, "source": "ssai", "client_event": "start", "client_time_ms": 1_800_000_000_000}
    record |= {"received_time_ms": 1_800_000_000_001, "upstream_id": None, "user_pseudonym": None, "origin": "é" * 40}
    encoded = fastavro_bytes("ad_telemetry", record | {"household_pseudonym": None, "attributes": {"a": "b"}})
    for damaged in (encoded[: min(cut, len(encoded) - 1)], encoded + extra):
        with pytest.raises(PROBLEMS):
            READERS["ad_telemetry"](damaged, 0)


@pytest.mark.parametrize("block", [b"\x01\x06\x02a\x02b\x00", b"\x02\x02a\x02b\x00"])
def test_blocks_with_and_without_their_size(block: bytes) -> None:
    read = compiled_reader([{"name": "m", "type": {"type": "map", "values": "string"}}])
    assert read(block, 0) == {"m": {"a": "b"}}


@pytest.mark.parametrize(
    "encoded", [b"\xff" * 9 + b"\x7f", b"\x80" * 30, b"\x01", b"\x03a", b"\xfe\xff\xff\xff\x0fa", b"\x04\xff\xff"]
)
def test_hostile_lengths_and_texts(encoded: bytes) -> None:
    with pytest.raises(PROBLEMS):
        compiled_reader([{"name": "s", "type": "string"}])(encoded, 0)


@pytest.mark.parametrize("kind", ["float", ["null", "string", "int"], {"type": "array", "items": "long"}])
def test_an_unknown_type_is_said(kind: Any) -> None:
    for compiled in (compiled_reader, compiled_writer):
        with pytest.raises(ContractError, match="no compiled form"):
            compiled([{"name": "x", "type": kind}])
