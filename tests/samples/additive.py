"""Rows of campaign-metrics-v1 as their readers see them: whatever has the same minute and dimensions is added up."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from fastavro.io.binary_decoder import BinaryDecoder
from fastavro.io.binary_encoder import BinaryEncoder

from connectors.flink.tables import COUNTED_COLUMN
from schemas.campaign_metrics import (
    ABSENT,
    COUNTED,
    DIMENSIONS,
    MAXIMA,
    PACKED_COLUMN,
    PACKED_NUMBERS,
    PACKED_TEXTS,
    REACH_COLUMN,
    SUMS,
    TIME_COLUMN,
)


def add_up(rows: dict[Any, dict[str, Any]], row: dict[str, Any]) -> None:
    """Adds a row to those that are there, by its key. A row leaves out what its job does not count."""
    row = {**dict.fromkeys((*SUMS, *MAXIMA), 0), **row}
    key = (row[TIME_COLUMN], *(row[name] for name in DIMENSIONS))
    users = set(row.get(REACH_COLUMN) or ())
    if key not in rows:
        rows[key] = {**row, REACH_COLUMN: sorted(users)}
        return
    sums = rows[key]
    for name in SUMS:
        sums[name] += row[name]
    for name in MAXIMA:
        sums[name] = max(sums[name], row[name])
    sums[REACH_COLUMN] = sorted(users | set(sums[REACH_COLUMN]))


def as_written(row: dict[str, Any]) -> dict[str, Any]:
    """What the connector `additive-kafka` writes for a query's row: the reference of its options."""
    if PACKED_COLUMN in row:
        row = row | unpacked(row[PACKED_COLUMN])
    written = {name: 0 if value is None and name in SUMS else value for name, value in row.items()}
    written.pop(PACKED_COLUMN, None)
    written |= {name: ABSENT for name in DIMENSIONS if written[name] is None}
    if COUNTED_COLUMN in written:
        column = COUNTED.get(written.pop(COUNTED_COLUMN))
        written |= {column: 1} if column else {}
        written[REACH_COLUMN] = [user for user in (written[REACH_COLUMN],) if user is not None]
    return written


def packed(event: Mapping[str, Any]) -> bytes:
    """An event's dimensions as connectors/flink/java/PackedFields.java has them."""
    out = io.BytesIO(packed_texts(event[name] for name in PACKED_TEXTS))
    out.seek(0, io.SEEK_END)
    to = BinaryEncoder(out)
    for name in PACKED_NUMBERS:
        to.write_long(event[name])
    return out.getvalue()


def packed_texts(texts: Iterable[str | None]) -> bytes:
    """Texts as the function of that name packs them."""
    out = io.BytesIO()
    to = BinaryEncoder(out)
    for text in texts:
        to.write_long(0 if text is None else len(text.encode()) + 1)
        out.write((text or "").encode())
    return out.getvalue()


def unpacked(value: bytes) -> dict[str, Any]:
    """The dimensions that `packed` has packed."""
    data = io.BytesIO(value)
    numbers = BinaryDecoder(data)
    found: dict[str, Any] = {}
    for name in PACKED_TEXTS:
        length = numbers.read_long() - 1
        found[name] = None if length < 0 else data.read(length).decode()
    found |= {name: numbers.read_long() for name in PACKED_NUMBERS}
    assert data.tell() == len(value)
    return found
