"""Sessions, metrics, counters and spend through Flink, in many orders of arrival, repeats and gaps among them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from jobs.streaming.settings import Settings
from jobs.transforms.event_rules import Event, accepted
from jobs.transforms.rollups import campaign_metrics, counter_values, metrics_key
from jobs.transforms.sessions import sessions
from schemas.campaign_metrics import REACH_COLUMN
from schemas.counters import FEATURE_COUNTERS, FREQUENCY_COUNTERS
from schemas.ids import event_id
from tests.samples.additive import add_up, as_written
from tests.samples.bounded_run import rows_of
from tests.samples.counters import unpacked
from tests.samples.stream_io import complete

Row = dict[str, Any]

ORDERS_OF_ARRIVAL = 30
REPEATS = 8
T0_MS = 1_780_000_000_000
HOUR_MS = 3_600_000
#: Ids are forgotten before the last events come; few parts, so that lives meet in them.
SETTINGS = Settings(
    session_gap_s=15, deduplication_ttl_s=3_600, key_buckets=2, watermark_delay_ms=0, absolute_interval_ms=3
)
TYPES = (
    "impression",
    "start",
    "midpoint",
    "complete",
    "viewable",
    "click",
    "engage",
    "error",
    "progress",
    "conversion",
)


def scene(copy: int) -> list[Event]:
    """Events of a few ads, without the times at which they come; ids are those of a copy."""
    rng = random.Random(12)
    events = []
    for ad in range(6):
        own = {f"{name}_id": f"{copy}/{name}-{ad % 2}" for name in ("advertiser", "campaign", "creative", "placement")}
        for n, event_type in enumerate(rng.sample(TYPES, rng.randrange(3, len(TYPES) + 1))):
            events.append(
                {
                    **own,
                    "event_id": event_id(copy.to_bytes(8) + ad.to_bytes(8), n, 0),
                    "record_id": f"{copy}/ad-{ad}",
                    "user_pseudonym": f"{copy}/user-{ad % 3}",
                    "household_pseudonym": f"{copy}/home",
                    "content_category": f"{copy}/IAB1",
                    "publisher_id": "publisher",
                    "event_type": event_type,
                    "event_time_ms": T0_MS - rng.randrange(HOUR_MS),
                    "cost_micros": 2_500 if event_type == "impression" else 0,
                    "watch_percent": 70 if event_type == "progress" else None,
                    "creative_length_s": 30,
                    "order_id": f"{copy}/order-{ad}" if event_type == "conversion" else None,
                    "conversion_value_micros": 9_000_000 if event_type == "conversion" else None,
                }
            )
    return events


def arrived(copy: int) -> list[Event]:
    """The scene in an order of its own: some events twice, pauses that close sessions, the last ones hours later."""
    rng = random.Random(copy)
    events = scene(copy)
    rng.shuffle(events)
    last = [events.pop() for _ in range(5)]
    for event in rng.sample(events, REPEATS):
        events.insert(rng.randrange(len(events)), event)
    now_ms, found = T0_MS, []
    for event in [*events, None, *last]:
        if event is None:
            now_ms += 3 * HOUR_MS
            continue
        now_ms += rng.choice((100, 3_000, 14_000, 40_000))
        found.append(complete({**event, "received_time_ms": now_ms - 100, "published_time_ms": now_ms}))
    return found


ARRIVED = sorted(
    (event for copy in range(ORDERS_OF_ARRIVAL) for event in arrived(copy)), key=lambda e: e["published_time_ms"]
)
KEPT = list(accepted(ARRIVED))
OUTPUTS = ("ad_sessions", "session_metrics", "campaign_metrics", "frequency_counts", "streaming_features")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    return rows_of(ARRIVED, SETTINGS, tmp_path_factory.mktemp("arrivals") / "events.json", OUTPUTS)


def without_zeros(rows: Iterable[Row]) -> dict[Any, Row]:
    """Rows of campaign-metrics-v1 added up as a reader does, by minute and dimensions; columns that are 0 left out."""
    sums: dict[Any, Row] = {}
    for row in rows:
        add_up(sums, row)
    named = {metrics_key(row, row["minute_ms"]): row for row in sums.values()}
    numbers = {
        key: {name: value for name, value in row.items() if isinstance(value, int) and name != "minute_ms" and value}
        | {REACH_COLUMN: set(row[REACH_COLUMN])}
        for key, row in named.items()
    }
    for row in numbers.values():
        row.pop("creative_version", None)
    return {key: row for key, row in numbers.items() if any(row.values())}


def test_the_last_revision_of_a_session_is_that_of_the_rules(written: dict[str, list[Row]]) -> None:
    last: dict[str, Row] = {}
    for row in written["ad_sessions"]:
        before = last.get(row["record_id"])
        assert row["revision"] == (1 if before is None else before["revision"] + 1), "each revision once, in order"
        last[row["record_id"]] = row
    wanted = {row["record_id"]: row for row in sessions(KEPT, SETTINGS.session_gap_s * 1000)}
    assert {r: {name: row[name] for name in wanted[r]} for r, row in last.items()} == wanted
    assert max(row["revision"] for row in last.values()) > 3, "the orders of arrival had something to correct"


def test_deltas_add_up_to_the_rules(written: dict[str, list[Row]]) -> None:
    found = without_zeros(as_written(row) for row in (*written["campaign_metrics"], *written["session_metrics"]))
    wanted = campaign_metrics(KEPT)
    of_record = {event["record_id"]: event for event in KEPT}
    for session in sessions(KEPT, SETTINGS.session_gap_s * 1000):
        event = {**of_record[session["record_id"]], **session}
        row = wanted.setdefault(metrics_key(event, session["first_event_time_ms"]), {REACH_COLUMN: set()})
        for name, delta in (
            ("sessions", int(session["impressions"] > 0)),
            ("sessions_completed", int(session["state"] == "completed")),
            ("watch_time_ms", session["watch_time_ms"]),
        ):
            row[name] = row.get(name, 0) + delta
    assert found == {
        key: {name: value for name, value in row.items() if value or name == REACH_COLUMN}
        for key, row in wanted.items()
    }


@pytest.mark.parametrize(
    ("table", "counters"), [("frequency_counts", FREQUENCY_COUNTERS), ("streaming_features", FEATURE_COUNTERS)]
)
def test_counters_end_at_the_rules_values(written: dict[str, list[Row]], table: str, counters: Any) -> None:
    names = ("entity_type", "entity_id", "counter", "scope_id", "bucket_start_ms")
    last: dict[Any, int] = {}
    for row in unpacked(written[table], KEPT):
        key = tuple(row[name] for name in names)
        assert row["value"] >= last.get(key, 0), "an absolute value never falls"
        last[key] = row["value"]
    assert last == counter_values(KEPT, counters)


def test_a_twin_that_does_not_deduplicate_measures_the_share_of_duplicates(
    written: dict[str, list[Row]], tmp_path: Path
) -> None:
    twin = SETTINGS.model_copy(update={"deduplicate": False})
    repeated = rows_of(ARRIVED, twin, tmp_path / "events.json", ["campaign_metrics"])["campaign_metrics"]
    events, all_copies = (sum(row["events"] for row in rows) for rows in (written["campaign_metrics"], repeated))
    assert (events, all_copies - events) == (len(KEPT), ORDERS_OF_ARRIVAL * REPEATS)
