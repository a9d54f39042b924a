"""The batch chain in one Spark session: silver is exact, counters equal plain Python, training sees no future.

Bronze is written by delta-rs as the lake worker writes it, so both engines meet on the same tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from connectors.delta import sql, table_uri
from jobs.batch import chain as steps
from jobs.batch.chain import Chain
from jobs.batch.gates import SILVER, GateFailed, Gates, preload
from jobs.batch.lake_tables import LakeTables
from jobs.batch.settings import BatchSettings
from jobs.lake.tables import BRONZE, BronzeTable, event_hour
from jobs.models.dataset import load
from jobs.transforms.event_rules import accepted
from jobs.transforms.rollups import campaign_metrics, counter_values
from jobs.transforms.sessions import sessions
from schemas.campaign_metrics import DIMENSIONS
from schemas.codec import parsed_schema
from schemas.counters import COUNTER_BY_NAME, COUNTERS, id_of, window_buckets
from schemas.errors import RejectReason
from schemas.features import FEATURES, feature_value
from tests.samples.ad_traffic import Traffic, ad_event, traffic

EVENTS, DECISIONS = BRONZE[0], BRONZE[1]
HOUR_MS = 3_600_000


def bronze_rows(table: BronzeTable, records: list[dict[str, Any]]) -> pa.Table:
    """Rows as the lake worker makes them, offsets in the order given."""
    fields = parsed_schema(table.schema_name)["fields"]
    rows = []
    for offset, record in enumerate(records):
        row = {f["name"]: record.get(f["name"], f.get("default")) for f in fields}
        row |= {"kafka_partition": 0, "kafka_offset": offset, "kafka_time_ms": 1, "ingest_time_ms": 2}
        row["event_hour"] = event_hour(max(0, row[table.time_column]))
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=table.arrow_schema())


def bad_events(good: dict[str, Any]) -> list[dict[str, Any]]:
    """One event per rule that it breaks; the last one shares its id with a valid event."""
    return [
        good | {"event_id": b"1" * 16, "campaign_id": ""},
        good | {"event_id": b"2" * 16, "received_time_ms": good["event_time_ms"] + 8 * 24 * HOUR_MS},
        good | {"cost_micros": -1, "published_time_ms": good["published_time_ms"] - 50},
    ]


def planted_future(made: Traffic) -> tuple[str, int]:
    """A click on the creative of a decision, published one millisecond after it; (that record, its decision time)."""
    decision = made.decisions[len(made.decisions) // 2]
    target_ms = decision["decision_time_ms"]
    other = next(
        e
        for e in made.events
        if e["event_type"] == "impression"
        and e["creative_id"] == decision["winner_creative_id"]
        and e["published_time_ms"] < target_ms
        and e["record_id"] not in made.clicked
    )
    record = {**other, "record_hex": "ab" * 16, "cost_micros": 0}
    for name in (
        "event_id",
        "event_type",
        "ordinal",
        "event_time_ms",
        "received_time_ms",
        "published_time_ms",
    ):
        record.pop(name)
    click = ad_event(record, "click", target_ms - 200, received_time_ms=target_ms, published_time_ms=target_ms + 1)
    made.events.append(click)
    made.clicked.add(other["record_id"])
    return decision["record_id"], target_ms


@pytest.fixture(scope="module")
def made() -> Traffic:
    return traffic(seed=11, ads=320, base_rate=0.15)


@pytest.fixture(scope="module")
def future(made: Traffic) -> tuple[str, int]:
    return planted_future(made)


@pytest.fixture(scope="module")
def events(made: Traffic, future: tuple[str, int]) -> list[dict[str, Any]]:
    """Everything in the order in which it was published, refused rows included, as AdEvents with all their fields."""
    fields = parsed_schema("ad_event")["fields"]
    ordered = sorted([*made.events, *bad_events(made.events[0])], key=lambda e: e["published_time_ms"])
    known = [e["record_id"] for e in made.events if e["user_pseudonym"] is not None]
    opted_out = {"consent": {"opt_out": "1"}}  # of one ad, whose sender told the user all the same
    return [
        {f["name"]: e.get(f["name"], f.get("default")) for f in fields}
        | {"creative_length_s": 20}
        | (opted_out if e["record_id"] == known[-1] else {})
        for e in ordered
    ]


@pytest.fixture(scope="module")
def lake_uri(tmp_path_factory: pytest.TempPathFactory, made: Traffic, events: list[dict[str, Any]]) -> str:
    uri = str(tmp_path_factory.mktemp("lake"))
    logged = [d | {"features": {"creative_ctr_24h": 0.01, "hour_of_day": 1.0}} for d in made.decisions]
    for table, records in ((EVENTS, events), (DECISIONS, logged)):
        write_deltalake(table_uri(table.path, uri), bronze_rows(table, records), partition_by=["event_hour"])
    return uri


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from connectors.spark import session

    made = session("headwater-tests")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def gates(spark: Any) -> Gates:
    return Gates(preload())


@pytest.fixture(scope="module")
def report(spark: Any, gates: Gates, lake_uri: str) -> dict[str, Any]:
    lines: list[str] = []
    tables = LakeTables(spark, lake_uri, "test", 20)
    found = Chain(tables, gates, BatchSettings(), lines.append).run()
    assert len(lines) == 4
    return found


def read(lake_uri: str, name: str, columns: str = "*") -> list[dict[str, Any]]:
    return sql(f"SELECT {columns} FROM t", t=DeltaTable(table_uri(name, lake_uri))).to_pylist()


def test_silver_is_the_first_valid_copy_of_every_event(
    report: dict[str, Any], lake_uri: str, events: list[dict[str, Any]], made: Traffic
) -> None:
    names = ("published_time_ms", "user_pseudonym", "household_pseudonym")
    expected = {e["event_id"]: [e[name] for name in names] for e in accepted(events)}
    found = read(lake_uri, steps.SILVER_EVENTS, f"event_id, {', '.join(names)}")
    assert {row["event_id"]: [row[name] for name in names] for row in found} == expected
    assert any(e["consent"] and e["user_pseudonym"] for e in events), "somebody opted out"
    assert len(found) == len(expected)
    counts = report["silver"]
    assert counts["duplicates"] == made.duplicates
    assert counts["bronze"] == len(events) == counts["silver"] + counts["duplicates"] + counts["quarantine"]


def test_quarantine_says_why(report: dict[str, Any], lake_uri: str) -> None:
    found = read(lake_uri, steps.SILVER_QUARANTINE, "reject_reason")
    wanted = {RejectReason.MISSING_FIELD, RejectReason.ABSURD_TIME, RejectReason.BAD_VALUE}
    assert {row["reject_reason"] for row in found} == {str(r) for r in wanted}
    assert len(found) == 3


def test_campaign_hourly_equals_the_reference(
    report: dict[str, Any], lake_uri: str, events: list[dict[str, Any]]
) -> None:
    expected: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (minute_ms, *dimensions), row in campaign_metrics(accepted(events)).items():
        total = expected.setdefault((event_hour(minute_ms), *dimensions), {"reach_users": set()})
        for name, value in row.items():
            if name == "reach_users":
                total[name] |= value
            elif name.startswith("last_"):
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    found = {tuple(r[c] for c in ("event_hour", *DIMENSIONS)): r for r in read(lake_uri, steps.CAMPAIGN_HOURLY)}
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key]["reach"] == len(row.pop("reach_users"))
        assert {name: found[key][name] for name in row} == row
    shown = {e["record_id"] for e in accepted(events) if e["event_type"] == "impression"}
    completed = {e["record_id"] for e in accepted(events) if e["event_type"] == "complete"}
    assert sum(r["sessions"] for r in found.values()) == len(shown)
    assert sum(r["sessions_completed"] for r in found.values()) == len(completed)
    watched_ms = sum(row["watch_time_ms"] for row in sessions(accepted(events), gap_ms=0))
    assert sum(r["watch_time_ms"] for r in found.values()) == watched_ms > 0


def test_counters_equal_plain_python(report: dict[str, Any], lake_uri: str, events: list[dict[str, Any]]) -> None:
    expected = counter_values(accepted(events), COUNTERS)
    found = {
        (r["entity_type"], r["entity_id"], r["counter"], r["scope_id"], r["bucket_start_ms"]): r["value"]
        for r in read(lake_uri, steps.COUNTER_VALUES)
    }
    assert found == expected


def test_click_rates_of_30_days(report: dict[str, Any], lake_uri: str, events: list[dict[str, Any]]) -> None:
    shown = [e for e in accepted(events) if e["event_type"] == "impression" and e["creative_id"] == "cr-3"]
    clicked = [e for e in accepted(events) if e["event_type"] == "click" and e["creative_id"] == "cr-3"]
    rows = [r for r in read(lake_uri, steps.CTR_FEATURES) if r["entity_id"] == "cr-3"]
    last = max(rows, key=lambda r: r["day"])
    assert (last["impressions_30d"], last["clicks_30d"]) == (len(shown), len(clicked))
    assert last["ctr_30d"] == pytest.approx((len(clicked) + 1) / (len(shown) + 100))


def known_features(events: list[dict[str, Any]], shown: dict[str, Any], decided_ms: int) -> dict[str, float]:
    """What a reader of counters sees at a moment: the reference, straight from schemas/features.py."""
    known = [e for e in events if e["published_time_ms"] < decided_ms]
    found = {}
    for feature in FEATURES:
        sums: list[int | None] = []
        for name in (feature.numerator, feature.denominator):
            if name is None:
                sums.append(None)
                continue
            counter = COUNTER_BY_NAME[name]
            first_s, last_s = window_buckets(decided_ms // 1000, feature.window_s, counter.bucket_s)
            kinds = [counter.entity, *([counter.scope] if counter.scope else [])]
            ids = [id_of(kind, shown) for kind in kinds]
            total = 0
            for e in known:
                bucket_s = e["event_time_ms"] // 1000 // counter.bucket_s * counter.bucket_s
                inside = e["event_type"] in counter.event_types and first_s <= bucket_s <= last_s
                if inside and None not in ids and ids == [id_of(kind, e) for kind in kinds]:
                    total += 1 if counter.measure == "events" else e["cost_micros"]
            sums.append(total or None)
        parent = found[feature.parent] if feature.parent else None
        found[feature.name] = feature_value(feature, sums[0], sums[1], parent)
    return found


def test_training_rows_hold_what_was_known_at_the_decision(
    report: dict[str, Any], lake_uri: str, events: list[dict[str, Any]], made: Traffic
) -> None:
    valid = list(accepted(events))
    decided = {d["record_id"]: d["decision_time_ms"] for d in made.decisions}
    impressions = {e["record_id"]: e for e in valid if e["event_type"] == "impression"}
    rows = read(lake_uri, steps.TRAINING_SET)
    assert {r["record_id"] for r in rows} == impressions.keys()
    assert {r["record_id"] for r in rows if r["clicked"]} == made.clicked
    for row in rows[::7]:
        expected = known_features(valid, impressions[row["record_id"]], decided[row["record_id"]])
        assert {name: row[name] for name in expected} == pytest.approx(expected), row["record_id"]
        assert row["hour_of_day"] == decided[row["record_id"]] // HOUR_MS % 24


def test_a_click_published_after_the_decision_is_not_seen_by_it(
    report: dict[str, Any], lake_uri: str, events: list[dict[str, Any]], future: tuple[str, int]
) -> None:
    record_id, decided_ms = future
    valid = list(accepted(events))
    shown = next(e for e in valid if e["record_id"] == record_id and e["event_type"] == "impression")
    (row,) = [r for r in read(lake_uri, steps.TRAINING_SET) if r["record_id"] == record_id]
    assert row["decision_time_ms"] == decided_ms
    honest = known_features(valid, shown, decided_ms)["creative_ctr_1h"]
    leaking = known_features(valid, shown, decided_ms + 2)["creative_ctr_1h"]
    assert honest < leaking, "the planted click must make a difference, or this test shows nothing"
    assert row["creative_ctr_1h"] == pytest.approx(honest)


def test_parity_with_served_features_is_reported(report: dict[str, Any], lake_uri: str) -> None:
    parity = report["training_set"]["parity"]["creative_ctr_24h"]
    rows = read(lake_uri, steps.TRAINING_SET, "creative_ctr_24h")
    assert parity["compared"] == len(rows)
    assert parity["equal"] == pytest.approx(sum(r["creative_ctr_24h"] == 0.01 for r in rows) / len(rows), abs=1e-3)
    assert report["training_set"]["parity"]["placement_ctr_24h"]["compared"] == 0


def test_every_write_says_what_it_was_made_of(report: dict[str, Any], lake_uri: str) -> None:
    lineage = json.loads(DeltaTable(table_uri(steps.TRAINING_SET, lake_uri)).history(1)[0]["userMetadata"])
    assert lineage["code_version"] == "test"
    assert lineage["seed"] == 20
    assert lineage["inputs"] == {steps.SILVER_EVENTS: 0, steps.BRONZE_DECISIONS: 0}
    assert lineage["counts"]["rows"] == report["training_set"]["rows"]


def test_no_table_needs_a_feature_that_delta_rs_lacks(report: dict[str, Any], lake_uri: str) -> None:
    for name in (steps.SILVER_EVENTS, steps.CAMPAIGN_HOURLY, steps.CTR_FEATURES, steps.TRAINING_SET):
        protocol = DeltaTable(table_uri(name, lake_uri)).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2), name


def test_the_training_set_loads_in_decision_order(report: dict[str, Any], lake_uri: str) -> None:
    data, version = load(lake_uri)
    assert version == 0
    assert len(data) == report["training_set"]["rows"]
    assert (data.decision_time_ms[1:] >= data.decision_time_ms[:-1]).all()


def test_a_second_run_of_one_hour_gives_the_same_tables(
    report: dict[str, Any], spark: Any, gates: Gates, lake_uri: str
) -> None:
    names = (steps.SILVER_EVENTS, steps.SILVER_QUARANTINE, steps.CAMPAIGN_HOURLY, steps.TRAINING_SET)

    def content() -> dict[str, list[str]]:
        return {name: sorted(repr(sorted(r.items())) for r in read(lake_uri, name)) for name in names}

    before = content()
    hour = max(r["event_hour"] for r in read(lake_uri, steps.SILVER_EVENTS, "event_hour"))
    Chain(LakeTables(spark, lake_uri, "test", 20), gates, BatchSettings(), lambda _: None).run([hour])
    assert content() == before


def test_a_failed_gate_stops_the_run_and_names_what_failed(
    report: dict[str, Any], spark: Any, gates: Gates, lake_uri: str
) -> None:
    silver = spark.read.format("delta").load(table_uri(steps.SILVER_EVENTS, lake_uri))
    with pytest.raises(GateFailed, match=r"expect_column_values_to_be_unique.*event_id"):
        gates.check("silver", silver.unionByName(silver.limit(1)), SILVER)
    with pytest.raises(GateFailed, match=r"3 of \d+ rows are refused.*missing_field"):
        tables = LakeTables(spark, lake_uri, "test", 20)
        Chain(tables, gates, BatchSettings(max_quarantine_share=0.0001), lambda _: None).run()
    assert DeltaTable(table_uri(steps.SILVER_EVENTS, lake_uri)).version() == 1, "a refused batch was written"
