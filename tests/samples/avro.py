"""Hypothesis strategies for records of our Avro schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TEXT = st.text(max_size=40)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=90),
    "string": TEXT,
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an Avro type, as parsed from a schema."""
    if isinstance(kind, list):
        return st.none() | values_of(kind[1])
    if isinstance(kind, dict):
        of = values_of(kind.get("items") or kind.get("values"))
        return st.lists(of, max_size=3) if kind["type"] == "array" else st.dictionaries(TEXT, of, max_size=3)
    return _VALUES[kind]
