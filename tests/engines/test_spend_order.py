"""Campaign spend through Flink, with one topic read ahead of the other: the same wins, the same of them confirmed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from connectors.flink.session import streaming_session
from jobs.streaming import campaign_spend
from jobs.streaming.own_java import own_java
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, select_statement
from jobs.transforms import rollups
from schemas.money import impression_cost_micros

Row = dict[str, Any]

SETTINGS = Settings(win_open_s=900)
OPEN_MS = SETTINGS.win_open_s * 1000
MINUTE_MS = 60_000
T0_MS = 1_780_000_000_000
PRICE_CPM_MICROS = 2_500_000
#: Of what the rows of spend_changes.sql have.
COLUMNS = (
    "campaign_id STRING NOT NULL, record_id STRING NOT NULL, decided BOOLEAN NOT NULL, time_ms BIGINT NOT NULL, "
    "shown BOOLEAN NOT NULL, cost_micros BIGINT NOT NULL, currency STRING NOT NULL, updated_ms BIGINT NOT NULL"
)


def scene(campaign: str) -> tuple[list[Row], list[Row]]:
    """Decisions and impressions of eight hours, in the order of their topics: most wins are shown, some too late."""
    rng = random.Random(4)
    decisions, events = [], []
    for n in range(160):
        record, decided_ms = f"{campaign}/{n}", T0_MS + n * 3 * MINUTE_MS
        decisions.append(
            {
                "record_id": record,
                "winner_campaign_id": campaign,
                "decision_time_ms": decided_ms,
                "price_cpm_micros": PRICE_CPM_MICROS,
            }
        )
        after_ms = rng.choice((1_000, 40_000, OPEN_MS - 1, OPEN_MS, 3 * OPEN_MS, None))
        if after_ms is not None:
            events.append(
                {
                    "campaign_id": campaign,
                    "record_id": record,
                    "event_type": "impression",
                    "event_time_ms": decided_ms + after_ms - 500,
                    "published_time_ms": decided_ms + after_ms,
                    "cost_micros": impression_cost_micros(PRICE_CPM_MICROS),
                }
            )
    return decisions, sorted(events, key=lambda e: e["published_time_ms"])


def decision_change(row: Row) -> Row:
    return {
        "campaign_id": row["winner_campaign_id"],
        "record_id": row["record_id"],
        "decided": True,
        "time_ms": row["decision_time_ms"],
        "shown": False,
        "cost_micros": impression_cost_micros(row["price_cpm_micros"]),
        "currency": "USD",
        "updated_ms": row["decision_time_ms"],
    }


def event_change(row: Row) -> Row:
    return {
        "campaign_id": row["campaign_id"],
        "record_id": row["record_id"],
        "decided": False,
        "time_ms": row["event_time_ms"],
        "shown": True,
        "cost_micros": row["cost_micros"],
        "currency": "USD",
        "updated_ms": row["published_time_ms"],
    }


def by_time(decisions: list[Row], events: list[Row]) -> list[Row]:
    return sorted([*decisions, *events], key=lambda change: change["updated_ms"])


def by_chance(decisions: list[Row], events: list[Row]) -> list[Row]:
    """Each topic in its order, one or the other far ahead."""
    rng = random.Random(6)
    left, merged = [list(reversed(decisions)), list(reversed(events))], []
    while left[0] or left[1]:
        some = rng.choice([changes for changes in left if changes])
        merged += [some.pop() for _ in range(min(len(some), rng.randrange(1, 60)))]
    return merged


ORDERS: dict[str, Callable[[list[Row], list[Row]], list[Row]]] = {
    "by time": by_time,
    "decisions first": lambda decisions, events: decisions + events,
    "events first": lambda decisions, events: events + decisions,
    "by chance": by_chance,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Rows of campaign-spend-v1 over a campaign for each order."""
    arrived = [
        change
        for name, order in ORDERS.items()
        for decisions, events in [scene(name)]
        for change in order([decision_change(d) for d in decisions], [event_change(e) for e in events])
    ]
    path = tmp_path_factory.mktemp("spend") / "changes.json"
    path.write_text("".join(json.dumps(change) + "\n" for change in arrived))
    # RocksDB, because it writes and reads every state, where the heap would hand back the same objects
    flink = {"parallelism.default": "1", "state.backend.type": "rocksdb"}
    session = streaming_session(flink, own_java())
    session.execute_sql(
        f"CREATE TEMPORARY TABLE spend_changes ({COLUMNS}) "
        f"WITH ('connector' = 'filesystem', 'path' = '{path.as_uri()}', 'format' = 'json')"
    )
    (output,) = campaign_spend.build(SETTINGS).outputs
    names = [column.name for column in SINKS[output.table].columns]
    with session.execute_sql(select_statement(output)).collect() as rows:
        return [dict(zip(names, values, strict=True)) for values in rows]


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_confirmed_does_not_depend_on_which_topic_is_ahead(written: list[Row], order: str) -> None:
    last = {row["decision_minute_ms"]: row for row in written if row["campaign_id"] == order and row["day"] == "open"}
    decisions, events = scene(order)
    wanted = {minute_ms: sums for (_, minute_ms), sums in rollups.open_wins(decisions, events, OPEN_MS).items()}
    assert {minute: {name: row[name] for name in wanted[minute]} for minute, row in last.items()} == wanted
    assert 0 < sum(sums["confirmed_wins"] for sums in wanted.values()) < len(events), "some come too late"


@pytest.mark.parametrize("order", ORDERS)
def test_spend_does_not_depend_on_decisions(written: list[Row], order: str) -> None:
    last = {row["day"]: row for row in written if row["campaign_id"] == order and row["day"] != "open"}
    wanted = {day: sums for (_, day), sums in rollups.campaign_spend(scene(order)[1]).items()}
    assert {day: {name: row[name] for name in wanted[day]} for day, row in last.items()} == wanted
