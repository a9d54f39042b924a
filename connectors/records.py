"""Records of a topic: decoded with the writer's schema, read as our contract; and encoded with the registered id.

A record that does not decode is a `Reject`; a registry that does not answer is an exception, because it says nothing
about the record.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import fastavro

from connectors.registry import NotRegistered, SchemaRegistry
from schemas.avro_source import PROBLEMS, Reader, compiled_reader
from schemas.codec import HEADER_BYTES, Encoder, decode, parsed_schema, schema_text, split_header
from schemas.errors import ContractError, Reject, RejectReason, TimedOut, Unavailable
from schemas.topics import Topic

#: An unknown schema id is asked for again after this, so that hostile ids don't cost a call each.
UNKNOWN_ID_S = 30.0
_UNKNOWN_IDS = 10_000


class RecordDecoder:
    """Decodes the values of one topic.

    Errors of a call: Unavailable or TimedOut when a schema id has to be looked up and the registry does not answer.
    """

    def __init__(self, topic: Topic, registry: SchemaRegistry) -> None:
        assert topic.schema is not None
        self._ours = parsed_schema(topic.schema)
        self._our_form = fastavro.schema.to_parsing_canonical_form(self._ours)
        self._registry = registry
        self._known: dict[bytes, tuple[int, Reader]] = {}  # by header: schemas that were seen before
        self._unknown_until_s: dict[int, float] = {}

    def __call__(self, value: bytes | None) -> tuple[int | None, dict[str, Any] | Reject]:
        """(schema id if there is a header, the record or why not)."""
        message = value or b""
        known = self._known.get(message[:HEADER_BYTES])
        if known is None:
            try:
                schema_id, _payload = split_header(message)
            except ContractError as e:
                return None, Reject(RejectReason.UNDECODABLE, str(e))
            read = self._find(schema_id)
            if read is None:
                return schema_id, Reject(RejectReason.UNKNOWN_SCHEMA, f"schema id {schema_id}")
            self._known[message[:HEADER_BYTES]] = schema_id, read
        else:
            schema_id, read = known
        try:
            return schema_id, read(message, HEADER_BYTES)
        except (ContractError, *PROBLEMS) as e:
            return schema_id, Reject(RejectReason.UNDECODABLE, str(e))

    def _find(self, schema_id: int) -> Reader | None:
        """The reader of a schema; None for an id that the registry does not know."""
        if self._unknown_until_s.get(schema_id, 0.0) > time.monotonic():
            return None
        try:
            writer = fastavro.parse_schema(self._registry.schema(schema_id))
        except NotRegistered:
            if len(self._unknown_until_s) >= _UNKNOWN_IDS:
                self._unknown_until_s.clear()
            self._unknown_until_s[schema_id] = time.monotonic() + UNKNOWN_ID_S
            return None
        return self._reader(writer)

    def _reader(self, writer: Any) -> Reader:
        """Our schema has a compiled reader if all its types have one; fastavro reads another schema as ours."""
        if fastavro.schema.to_parsing_canonical_form(writer) != self._our_form:
            return lambda message, at: decode(message[at:], writer, self._ours)
        try:
            return compiled_reader(writer["fields"])
        except ContractError:
            return lambda message, at: decode(message[at:], writer)


def encoder(topic: Topic, registry: SchemaRegistry, remembered_in: Path | None = None) -> Encoder:
    """An encoder of our schema under the id that the registry has for it (registered if it is new).

    Not the subject's latest version: a newer one may be registered already, and it is not what we write.
    With `remembered_in` (a folder) the id is written down there, and used when the registry does not answer: ids
    never change their meaning, so a service can restart during an outage of the registry.
    Errors: IncompatibleSchema; Unavailable or TimedOut when nothing is remembered either.
    """
    assert topic.schema is not None
    text = schema_text(topic.schema)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    note = remembered_in / f"{topic.subject}.{digest}.id" if remembered_in else None
    try:
        schema_id = registry.register(topic.subject, text)
    except (Unavailable, TimedOut):
        if note is None or not note.is_file():
            raise
        return Encoder(topic.schema, int(note.read_text()))
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_text(str(schema_id))
        draft.replace(note)
    return Encoder(topic.schema, schema_id)
