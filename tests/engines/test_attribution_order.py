"""Attribution through Flink, in many orders of arrival: the same last credits, and deltas that add up to them."""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from connectors.flink.session import streaming_session
from connectors.flink.tables import columns
from jobs.streaming import attribution
from jobs.streaming.job import IDS, IDS_COLUMN
from jobs.streaming.own_java import own_java
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, select_statement
from jobs.streaming.views import SOURCE
from jobs.transforms.attribution import attribution_deltas, attributions
from jobs.transforms.event_rules import Event
from schemas.campaign_metrics import PACKED_COLUMN
from schemas.ids import event_id
from tests.samples.bounded_source import json_line, source_row
from tests.samples.stream_io import complete
from tests.samples.stream_rules import lookback_under

HOUR_MS = 3_600_000
ORDERS_OF_ARRIVAL = 40
SETTINGS = Settings(attribution_lookbacks_s={"short": (2 * 3_600, 0)})
LOOKBACK_S = lookback_under(SETTINGS)


def scene(copy: int) -> list[Event]:
    """Touches and conversions of two users, one of them opted out, with two advertisers; ids are those of a copy."""
    rng = random.Random(8)
    events = []
    for n in range(32):
        event_type = ("impression", "click", "impression", "conversion")[n % 4]
        ad, user = rng.randrange(5), rng.choice(("u1", "u1", "u1", "u2", None))
        events.append(
            complete(
                {
                    "event_id": event_id(copy.to_bytes(16), n, 0),
                    "record_id": f"{copy}/ad-{ad}",
                    "event_type": event_type,
                    "event_time_ms": (1 + rng.randrange(20) + (10 if event_type == "conversion" else 0)) * HOUR_MS,
                    "received_time_ms": 40 * HOUR_MS,
                    "published_time_ms": 40 * HOUR_MS,
                    "user_pseudonym": user and f"{copy}/{user}",
                    "advertiser_id": rng.choice(("long", "long", "long", "short")),
                    "campaign_id": f"{copy}/campaign-{ad}",
                    "creative_id": "creative",
                    "quality_reasons": ["ivt_data_center"] if n == 5 else [],
                    "order_id": f"{copy}/order-{n}" if event_type == "conversion" else None,
                    "conversion_value_micros": 1_000 + n if event_type == "conversion" else None,
                }
            )
        )
    return events


def credit(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("outcome", "touch_type", "touch_record_id", "touch_time_ms", "lookback_s", "campaign_id", "value_micros")
    return tuple(row[name] for name in names)


def campaign_sums(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Attribution deltas by campaign, without what is 0."""
    sums: dict[str, Tally[str]] = defaultdict(Tally)
    for row in rows:
        for name in ("click_through_conversions", "view_through_conversions", "attributed_value_micros"):
            sums[row["campaign_id"]][name] += row[name]
    kept = {campaign: {name: n for name, n in tally.items() if n} for campaign, tally in sums.items()}
    return {campaign: tally for campaign, tally in kept.items() if tally}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Rows of both outputs over all copies of the scene, each in an order of its own."""
    rng = random.Random(9)
    arrived = [rng.sample(events, len(events)) for events in map(scene, range(ORDERS_OF_ARRIVAL))]
    source = tmp_path_factory.mktemp("arrivals") / "events.json"
    rows = (source_row(event) for events in zip(*arrived, strict=True) for event in events)
    source.write_text("".join(map(json_line, rows)))
    # RocksDB, because it writes and reads every state, where the heap would hand back the same objects
    flink = {"parallelism.default": "1", "state.backend.type": "rocksdb"}
    session = streaming_session(flink, own_java())
    session.execute_sql(_source_ddl(source))
    more = f"packed_texts({', '.join(IDS)}) AS {IDS_COLUMN}, reasons LIKE 'ivt_%' AS marked_invalid"
    session.execute_sql(f"CREATE TEMPORARY VIEW deduplicated_events AS SELECT *, {more} FROM {SOURCE}")
    job = attribution.build(SETTINGS)
    for view in job.views:
        session.execute_sql(f"CREATE TEMPORARY VIEW `{view.name}` AS {view.query}")
    found = {}
    for output in job.outputs:
        names = [column.name for column in SINKS[output.table].columns]
        with session.execute_sql(select_statement(output)).collect() as rows:
            found[output.table] = [dict(zip(names, values, strict=True)) for values in rows]
    return found


def _source_ddl(path: Path) -> str:
    parts = ", ".join([*(column.ddl for column in columns("ad_event")), f"`{PACKED_COLUMN}` BYTES", "`reasons` STRING"])
    where = f"'connector' = 'filesystem', 'path' = '{path.as_uri()}', 'format' = 'json'"
    return f"CREATE TEMPORARY TABLE `{SOURCE}` ({parts}) WITH ({where})"


def test_the_last_revision_is_the_same_in_every_order_of_arrival(written: dict[str, list[dict[str, Any]]]) -> None:
    last: dict[str, dict[str, Any]] = {}
    revisions: dict[str, list[int]] = defaultdict(list)
    for row in written["attributions"]:
        revisions[row["order_id"]].append(row["revision"])
        if row["order_id"] not in last or row["revision"] > last[row["order_id"]]["revision"]:
            last[row["order_id"]] = row
    wanted = {
        row["order_id"]: credit(row)
        for copy in range(ORDERS_OF_ARRIVAL)
        for row in attributions(scene(copy), LOOKBACK_S)
        if row["sign"] > 0
    }
    assert {order: credit(row) for order, row in last.items()} == wanted
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in revisions.values()), "each revision once"
    assert max(map(max, revisions.values())) > 2, "the orders of arrival had something to correct"


def test_deltas_add_up_to_the_last_revisions(written: dict[str, list[dict[str, Any]]]) -> None:
    wanted = [
        row | attribution_deltas(row)
        for copy in range(ORDERS_OF_ARRIVAL)
        for row in attributions(scene(copy), LOOKBACK_S)
    ]
    assert campaign_sums(written["attribution_metrics"]) == campaign_sums(wanted)
    assert any(row["click_through_conversions"] < 0 for row in written["attribution_metrics"])
