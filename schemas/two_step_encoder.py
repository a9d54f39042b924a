"""Avro records of which most is known before the rest: an ad's part is encoded once, an event adds its own fields.

Avro encodes a record as its fields one behind the other, without names or padding, so what is known early can be
encoded early. Same bytes as `codec.Encoder` (a property test compares them) at a small part of its cost for AdEvent.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from schemas.avro_source import PROBLEMS, Field, Writer, compiled_writer
from schemas.codec import header, schema_text
from schemas.errors import ContractError

#: The early part, encoded: one piece per run of neighbouring early fields; the first is the message's header.
EarlyPart = tuple[bytes, ...]


class TwoStepEncoder:
    """Encodes records of one schema whose `early` fields are given first, in the Confluent wire format.

    Errors of both steps: ContractError when a value does not fit, or is missing without a default.
    """

    def __init__(self, name: str, schema_id: int, early: Collection[str]) -> None:
        self._fields: list[Field] = json.loads(schema_text(name))["fields"]
        runs: list[list[Field]] = []
        steps: list[Field | int] = [0]  # the header
        in_run = False
        for field in self._fields:
            if field["name"] not in early:
                steps.append(field)
                in_run = False
            elif in_run:
                runs[-1].append(field)
            else:
                runs.append([field])
                steps.append(len(runs))
                in_run = True
        self._write_runs = [compiled_writer(run) for run in runs]
        self._write = compiled_writer(steps)
        self._header = (header(schema_id),)
        self._early = frozenset(early)

    def early_part(self, values: Mapping[str, Any]) -> EarlyPart:
        """The early fields, encoded: for any number of records."""
        try:
            return self._header + tuple([write(values, ()) for write in self._write_runs])
        except PROBLEMS as e:
            raise self._refusal(values, early=True) from e

    def __call__(self, early: EarlyPart, values: Mapping[str, Any]) -> bytes:
        """A whole record; of `values` only the other fields are read."""
        try:
            return self._write(values, early or self._header)
        except PROBLEMS as e:
            raise self._refusal(values, early=False) from e

    @cached_property
    def _single_writers(self) -> dict[str, Writer]:
        return {field["name"]: compiled_writer([field]) for field in self._fields}

    def _refusal(self, values: Mapping[str, Any], early: bool) -> ContractError:
        """What is wrong with values that do not fit: the fields are tried one by one."""
        fields = [field for field in self._fields if (field["name"] in self._early) == early]
        missing = [f["name"] for f in fields if "default" not in f and f["name"] not in values]
        if missing:
            return ContractError(f"missing: {', '.join(missing)}")
        for field in fields:
            try:
                self._single_writers[field["name"]](values, ())
            except PROBLEMS as e:
                return ContractError(f"{field['name']} does not fit: {e}")
        return ContractError("the early part is of another encoder")
