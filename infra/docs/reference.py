"""docs/reference.md: the tables of topics, event types, counters, features, metrics, keys and settings.

Run: `python -m infra.docs.reference` rewrites the file; a test fails when it is out of date.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic_settings import BaseSettings

from connectors.endpoints import PORT_OFFSETS
from schemas import campaign_metrics, counters, events, features, redis_layout, topics
from schemas.decisions import Degraded, Outcome
from schemas.errors import RejectReason

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"

#: Every settings class, by module.
SETTINGS: tuple[tuple[str, str], ...] = (
    ("connectors.endpoints", "Endpoints"),
    ("serving.adserver.settings", "Settings"),
    ("serving.collector.settings", "CollectorSettings"),
    ("serving.reporting.settings", "ReportingSettings"),
    ("jobs.publisher.settings", "PublisherSettings"),
    ("jobs.streaming.settings", "Settings"),
    ("jobs.materializer.settings", "MaterializerSettings"),
    ("jobs.vendors.settings", "VendorSettings"),
    ("jobs.lake.settings", "LakeSettings"),
    ("jobs.batch.settings", "BatchSettings"),
    ("jobs.models.settings", "ModelSettings"),
)


def render() -> str:
    """The whole document."""
    sections = [
        "# Reference\nMade from the code by `make docs`; do not edit.",
        "## Topics\n" + _topics(),
        "## Event types\n" + _event_types(),
        "## Counters\n" + _counters(),
        "## Features\n" + _features(),
        "## Columns of campaign-metrics-v1 (and of Druid's `" + campaign_metrics.DATASOURCE + "`)\n" + _columns(),
        "## Keys in Valkey\n" + _keys(),
        "## Reasons of dead letters\n" + ", ".join(f"`{reason}`" for reason in RejectReason) + ".",
        "## Numbered reasons of the ad server\n" + _numbered(),
        "## Ports\nOffset from `HEADWATER_PORT_BASE`.\n\n" + _table(("part", "offset"), PORT_OFFSETS.items()),
        "## Settings\nEnvironment variables; a value that does not fit ends the process with code 2.\n\n" + _settings(),
    ]
    return "\n\n".join(sections) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


def _days(retention_ms: int | None) -> str:
    return "compacted" if retention_ms is None else f"{retention_ms // topics.DAY_MS} d"


def _topics() -> str:
    return _table(
        ("topic", "what", "key", "schema", "partitions", "kept", "written by", "read by", "dead letters"),
        (
            (
                f"`{t.name}`",
                t.what,
                t.key,
                f"{t.schema}.avsc" if t.schema else "JSON",
                t.partitions,
                _days(t.retention_ms),
                ", ".join(t.producers),
                ", ".join(t.consumers),
                f"`{t.dead_letter}`" if t.dead_letter else "",
            )
            for t in topics.TOPICS
        ),
    )


def _event_types() -> str:
    return _table(
        ("type", "code", "VAST event", "quartile, %"),
        (
            (f"`{t.name}`", t.code, t.vast_event or "", "" if t.quartile is None else t.quartile)
            for t in events.EVENT_TYPES
        ),
    )


def _counters() -> str:
    return _table(
        ("counter", "code", "entity", "scope", "of events", "measure", "bucket, s", "kept, s"),
        (
            (
                f"`{c.name}`",
                c.code,
                c.entity,
                c.scope,
                ", ".join(c.event_types),
                c.measure,
                "lifetime" if c.bucket_s == counters.LIFETIME_S else c.bucket_s,
                c.retention_s,
            )
            for c in counters.COUNTERS
        ),
    )


def _features() -> str:
    return _table(
        ("feature", "entity", "numerator", "denominator", "window, s", "default", "shrunk to", "owner"),
        (
            (f"`{f.name}`", f.entity, f.numerator, f.denominator or "", f.window_s, f.default, f.parent or "", f.owner)
            for f in features.FEATURES
        ),
    )


def _columns() -> str:
    rows = [(f"`{campaign_metrics.TIME_COLUMN}`", "time", "start of the event's minute, epoch ms UTC")]
    rows += [(f"`{name}`", "dimension", "") for name in campaign_metrics.DIMENSIONS]
    counted = {column: event for event, column in campaign_metrics.COUNTED.items()}
    rows += [
        (f"`{name}`", "sum", f"events of type {counted[name]}" if name in counted else "")
        for name in campaign_metrics.SUMS
    ]
    rows += [(f"`{name}`", "greatest", "freshness") for name in campaign_metrics.MAXIMA]
    rows.append((f"`{campaign_metrics.REACH_COLUMN}`", "sketches", "distinct users of the impressions"))
    return _table(("column", "kind", "what"), rows)


def _keys() -> str:
    """The table is written by hand in schemas/redis_layout.py, next to the code that packs."""
    lines = (redis_layout.__doc__ or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def _numbered() -> str:
    rows = [(int(reason), f"`{reason.name}`", kind) for kind in (Outcome, Degraded) for reason in kind]
    return _table(("number", "name", "kind"), ((n, name, kind.__name__.lower()) for n, name, kind in rows))


def _settings() -> str:
    rows = []
    for module, name in SETTINGS:
        settings: type[BaseSettings] = getattr(importlib.import_module(module), name)
        prefix = settings.model_config.get("env_prefix", "")
        for field_name, field in settings.model_fields.items():
            default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
            rows.append((f"`{prefix}{field_name.upper()}`", default, field.description or "", module))
    return _table(("variable", "default", "what", "read by"), rows)


if __name__ == "__main__":
    REFERENCE.write_text(render())
    print(f"wrote {REFERENCE}")
