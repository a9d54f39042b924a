"""How the collector writes its records: encoders of its topics, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.records import encoder
from connectors.registry import SchemaRegistry
from schemas.codec import Encoder
from schemas.topics import AD_CONVERSIONS, AD_TELEMETRY, AD_TELEMETRY_DLQ
from schemas.two_step_encoder import TwoStepEncoder
from serving.collector.buffer import Record


@dataclass(frozen=True, slots=True)
class Contracts:
    """Encoders under the ids that the schema registry has for our schemas."""

    telemetry_encoder: TwoStepEncoder
    conversion_encoder: Encoder
    dead_letter_encoder: Encoder

    @classmethod
    def load(cls, registry: SchemaRegistry, remembered_in: Path) -> Contracts:
        """Errors: Unavailable or TimedOut when the registry does not answer and was never asked before."""
        telemetry, conversion, dead_letter = (
            encoder(topic, registry, remembered_in) for topic in (AD_TELEMETRY, AD_CONVERSIONS, AD_TELEMETRY_DLQ)
        )
        return cls(telemetry_of(telemetry.schema_id), conversion, dead_letter)

    def telemetry(self, record: dict[str, Any]) -> Record:
        key = record["token"] or record.get("upstream_id") or ""
        return Record(AD_TELEMETRY.name, key.encode(), self.telemetry_encoder((), record))

    def conversion(self, record: dict[str, Any]) -> Record:
        key = record["user_pseudonym"] or record["order_id"]
        return Record(AD_CONVERSIONS.name, key.encode(), self.conversion_encoder(record))

    def dead_letter(self, letter: dict[str, Any]) -> Record:
        return Record(AD_TELEMETRY_DLQ.name, (letter["origin"] or "").encode(), self.dead_letter_encoder(letter))


def telemetry_of(schema_id: int) -> TwoStepEncoder:
    """The encoder of telemetry: the quick one, because every beacon passes through it."""
    return TwoStepEncoder("ad_telemetry", schema_id, early=())
