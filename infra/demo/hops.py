"""What each hop holds, campaign by campaign: Kafka, Druid, Valkey and the lake, each read through its own door."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from connectors import delta
from connectors.druid import DruidClient
from connectors.endpoints import Endpoints
from connectors.valkey import Valkey
from infra.demo.tally import KafkaTally, Measures, Offsets
from schemas import campaign_metrics
from schemas.counters import COUNTER_BY_NAME
from schemas.errors import Refused
from schemas.redis_layout import TOTAL_SPEND, entity_key, spend_key, unpack_counters

#: What is compared, in the order of the table.
MEASURES = ("impressions", "clicks", "completes", "sessions_completed", "spend_micros")

KAFKA, SESSIONS, DRUID, VALKEY, LAKE = "ad-events", "ad-sessions", "Druid", "Valkey", "lake"
#: Which measures a hop holds.
HELD: dict[str, tuple[str, ...]] = {
    KAFKA: ("impressions", "clicks", "completes", "spend_micros"),
    SESSIONS: ("impressions", "clicks", "sessions_completed", "spend_micros"),
    DRUID: MEASURES,
    VALKEY: ("impressions", "clicks", "completes", "spend_micros"),
    LAKE: MEASURES,
}

ByCampaign = dict[str, Measures]

_VALKEY_COUNTERS = {
    COUNTER_BY_NAME["campaign_impressions_hour"].code: "impressions",
    COUNTER_BY_NAME["campaign_clicks_hour"].code: "clicks",
    COUNTER_BY_NAME["campaign_completes_hour"].code: "completes",
}
_SCAN_COUNT = 1_000

_LAKE_MEASURES = {"impression": "impressions", "click": "clicks", "complete": "completes"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the stores held at a time, and where the topics ended: the zero that a run is counted from.

    `told` has what third parties had been told, by partner.
    """

    offsets: Offsets = field(default_factory=dict)
    event_ids: frozenset[bytes] = field(default=frozenset(), repr=False)
    stores: dict[str, ByCampaign] = field(default_factory=dict)
    told: ByCampaign = field(default_factory=dict)


def take_snapshot(ends: Endpoints) -> Snapshot:
    """The present state of a quiet stack. Errors: ConnectorError."""
    with KafkaTally(ends) as tally:
        tally.read_to_end()
        stores = {DRUID: druid_counts(ends), VALKEY: valkey_counts(ends), LAKE: lake_counts(ends)}
        return Snapshot(tally.offsets, tally.event_ids, stores)


def druid_counts(ends: Endpoints) -> ByCampaign:
    """Sums of the datasource. Errors: ConnectorError."""
    sums = ", ".join(f"SUM({m}) AS {m}" for m in MEASURES)
    with DruidClient.of(ends) as druid:
        rows = druid.sql(f"SELECT campaign_id, {sums} FROM {campaign_metrics.DATASOURCE} GROUP BY campaign_id")
    return {str(r["campaign_id"]): {m: int(r[m] or 0) for m in MEASURES} for r in rows}


def valkey_counts(ends: Endpoints) -> ByCampaign:
    """Sums of the campaigns' counters and of their committed spend. Errors: ConnectorError."""
    counts: ByCampaign = {}
    with Valkey(ends.valkey_url) as valkey:
        prefix, suffix = spend_key("\0").decode().split("\0")
        for key in _scan(valkey, f"{prefix}*{suffix}"):
            campaign = key.decode().removeprefix(prefix).removesuffix(suffix)
            flat = valkey.call("HGETALL", key)
            days = dict(zip(flat[::2], flat[1::2], strict=True))
            counts.setdefault(campaign, {})["spend_micros"] = sum(int(v) for d, v in days.items() if d != TOTAL_SPEND)
        entity_prefix = entity_key("campaign", "").decode()
        for key in _scan(valkey, f"{entity_prefix}*"):
            measures = counts.setdefault(key.decode().removeprefix(entity_prefix), {})
            flat = valkey.call("HGETALL", key)
            for entry in unpack_counters("campaign", dict(zip(flat[::2], flat[1::2], strict=True))):
                name = _VALKEY_COUNTERS.get(entry.code)
                if name is not None:
                    measures[name] = measures.get(name, 0) + entry.value
    return counts


def _scan(valkey: Valkey, pattern: str) -> list[bytes]:
    keys, cursor = set(), b"0"
    while True:
        cursor, found = valkey.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
        keys.update(found)
        if cursor == b"0":
            return sorted(keys)


def lake_counts(ends: Endpoints) -> ByCampaign:
    """Sums over distinct events of bronze, and its sessions; {} while there are no tables. Errors: ConnectorError."""
    counts: ByCampaign = {}

    def add(campaign: str, measure: str, value: int) -> None:
        measures = counts.setdefault(campaign, {})
        measures[measure] = measures.get(measure, 0) + value

    seen: set[bytes] = set()
    columns = ("event_id", "campaign_id", "event_type", "cost_micros")
    for event_id, campaign, event_type, cost_micros in _bronze_rows("bronze/ad_events", columns, ends):
        if event_id in seen:
            continue
        seen.add(event_id)
        add(campaign, "spend_micros", cost_micros)
        if (measure := _LAKE_MEASURES.get(event_type)) is not None:
            add(campaign, measure, 1)
    last: dict[str, tuple[int, str, str]] = {}
    for record, *row in _bronze_rows("bronze/ad_sessions", ("record_id", "revision", "campaign_id", "state"), ends):
        last[record] = max(last.get(record, (0, "", "")), tuple(row))
    for _revision, campaign, state in last.values():
        add(campaign, "sessions_completed", int(state == "completed"))
    return counts


def _bronze_rows(name: str, columns: tuple[str, ...], ends: Endpoints) -> Iterator[tuple[Any, ...]]:
    """Columns of a bronze table, which is only ever appended to, row by row; nothing of a table that is not there."""
    try:
        table = delta.table(name, ends.lake_uri)
    except Refused:
        return
    for batch in table.to_pyarrow_dataset().to_batches(columns=list(columns)):
        yield from zip(*(batch.column(c).to_pylist() for c in columns), strict=True)


def kafka_counts(tally: KafkaTally) -> dict[str, ByCampaign]:
    """The two topics' counts out of a tally."""
    return {
        KAFKA: {c: dict(m) for c, m in tally.by_campaign.items()},
        SESSIONS: {c: dict(m) for c, m in tally.sessions_by_campaign.items()},
    }


def minus(now: ByCampaign, before: ByCampaign) -> ByCampaign:
    """What was added since `before`; campaigns without a change are left out.

    Example:
    >>> minus({"a": {"clicks": 3}, "b": {"clicks": 1}}, {"b": {"clicks": 1}})
    {'a': {'clicks': 3}}
    """
    changed = {}
    for campaign, measures in now.items():
        old = before.get(campaign, {})
        difference = {m: value - old.get(m, 0) for m, value in measures.items()}
        if any(difference.values()):
            changed[campaign] = difference
    return changed
