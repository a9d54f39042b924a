"""Events in a file, as the bounded table that Flink reads in the place of ad-events-v1."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.flink.tables import KEY_COLUMN, columns
from jobs.streaming.settings import Settings
from jobs.streaming.views import METADATA_COLUMNS, SOURCE, SOURCE_TIME_COLUMNS, watermark
from schemas.campaign_metrics import PACKED_COLUMN
from schemas.events import OPT_OUT
from tests.samples.additive import packed


def source_ddl(path: Path, settings: Settings) -> str:
    """DDL of the source table, with its key, metadata and row time, over lines of `json_line`."""
    parts = [
        f"`{KEY_COLUMN}` BYTES",
        *(column.ddl for column in columns("ad_event")),
        *(f"`{name}` {ddl.split()[0]}" for name, ddl in METADATA_COLUMNS.items()),
        *SOURCE_TIME_COLUMNS,
        watermark(settings),
    ]
    return (
        f"CREATE TEMPORARY TABLE `{SOURCE}` ({', '.join(parts)}) "
        f"WITH ('connector' = 'filesystem', 'path' = '{path.as_uri()}', 'format' = 'json')"
    )


def source_row(event: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    """A complete event with all columns of the source; those that nobody looks at are empty unless given."""
    return {
        **event,
        PACKED_COLUMN: packed(event),
        "reasons": ",".join(event["quality_reasons"]),
        "opt_out_flag": event["consent"].get(OPT_OUT),
        KEY_COLUMN: b"",
        "raw": b"",
        **metadata,
    }


def json_line(row: Mapping[str, Any]) -> str:
    """A row as Flink's JSON format reads it: bytes in base64."""
    texts = {name: base64.b64encode(v).decode() if isinstance(v, bytes) else v for name, v in row.items()}
    return json.dumps(texts) + "\n"
