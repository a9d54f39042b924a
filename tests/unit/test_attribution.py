"""Attribution by the plain rule: whatever comes first, each order has one last credit, and the deltas add up to it."""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from importlib import resources
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.streaming import attribution
from jobs.streaming.job import IDS, id_text, packed_dimension
from jobs.streaming.settings import Settings
from jobs.transforms.attribution import attribution_deltas, attributions, eligible, is_touch, lookback_of, rank
from jobs.transforms.event_rules import Event
from schemas.campaign_metrics import PACKED_COLUMN
from schemas.catalog import Advertiser, Catalog
from schemas.ids import event_id
from tests.samples.stream_io import complete

DAY_MS = 86_400_000
LOOKBACK_S = lookback_of({"short": (3_600, 0)}, (7 * 86_400, 86_400))


@st.composite
def traffic(draw: st.DrawFn) -> list[Event]:
    """Events of two users and two advertisers, close enough that most conversions can choose between touches."""
    events = []
    for n in range(draw(st.integers(1, 12))):
        event_type = draw(st.sampled_from(("impression", "click", "conversion", "post_view_conversion")))
        raw = draw(st.integers(0, 4)).to_bytes(16)
        events.append(
            complete(
                {
                    "event_id": event_id(raw, n, n),
                    "record_id": f"ad-{raw[-1]}",
                    "event_type": event_type,
                    "event_time_ms": draw(st.integers(0, 8)) * DAY_MS // 2 + draw(st.integers(0, 1)),
                    "received_time_ms": 9 * DAY_MS,
                    "published_time_ms": 9 * DAY_MS,
                    "user_pseudonym": draw(st.sampled_from((None, "u1", "u2"))),
                    "advertiser_id": draw(st.sampled_from(("long", "short"))),
                    "campaign_id": f"campaign-{raw[-1]}",
                    "creative_id": "creative",
                    "quality_reasons": draw(st.sampled_from(([], ["token_expired"], ["ivt_data_center"]))),
                    "order_id": f"order-{n}" if event_type == "conversion" else None,
                    "conversion_value_micros": 1_000 + n if event_type == "conversion" else None,
                }
            )
        )
    return events


def last_credits(events: list[Event]) -> dict[str, dict[str, Any]]:
    """The last row of each order, without what tells when it was made."""
    rows = [row for row in attributions(events, LOOKBACK_S) if row["sign"] > 0]
    return {
        row["order_id"]: {name: row[name] for name in row if name not in ("revision", "decided_time_ms")}
        for row in rows
    }


def sums(rows: list[dict[str, Any]]) -> Tally[tuple[str, str]]:
    """Deltas added up by the ad's campaign and column."""
    total: Tally[tuple[str, str]] = Tally()
    for row in rows:
        for column, delta in attribution_deltas(row).items():
            total[row["campaign_id"], column] += delta
    return Tally({key: value for key, value in total.items() if value})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_order_of_arrival_changes_no_credit_and_no_sum(data: st.DataObject) -> None:
    events = data.draw(traffic())
    shuffled = data.draw(st.permutations(events))
    assert last_credits(shuffled) == last_credits(events)
    assert sums(attributions(shuffled, LOOKBACK_S)) == sums(attributions(events, LOOKBACK_S))


@settings(max_examples=60, deadline=None)
@given(traffic())
def test_one_last_row_per_order_and_the_deltas_are_those_of_the_last_rows(events: list[Event]) -> None:
    rows = attributions(events, LOOKBACK_S)
    orders = {event["order_id"] for event in events if event["event_type"] == "conversion"}
    for order in orders:
        revisions = [row["revision"] for row in rows if row["order_id"] == order and row["sign"] > 0]
        assert revisions == list(range(1, len(revisions) + 1)) and revisions
    assert {row["order_id"] for row in rows} == orders
    assert sums(rows) == sums(list(last_credits(events).values()))


@settings(max_examples=60, deadline=None)
@given(traffic())
def test_a_credit_is_the_best_eligible_touch(events: list[Event]) -> None:
    by_id = {event["event_id"]: event for event in events}
    for row in last_credits(events).values():
        conversion = by_id[row["conversion_event_id"]]
        able = [
            e
            for e in events
            if is_touch(e) and eligible(e, conversion, LOOKBACK_S(e["advertiser_id"], e["event_type"]))
        ]
        if row["outcome"] == "unattributed":
            assert not able and row["lookback_s"] == 0 and row["touch_event_id"] is None
            continue
        touch = by_id[row["touch_event_id"]]
        assert touch == max(able, key=rank)
        assert 0 <= row["conversion_time_ms"] - row["touch_time_ms"] <= row["lookback_s"] * 1000
        assert touch["event_type"] in ("impression", "click") and "ivt_data_center" not in touch["quality_reasons"]


def test_look_backs_of_the_catalogue_reach_the_query() -> None:
    advertisers = [Advertiser("usual", "Usual", "u.example"), Advertiser("own's", "Own", "o.example", "", 86_400, 0)]
    catalog = Catalog(1, "USD", advertisers, [], [], [], [], [])
    own = attribution.of_catalog(catalog, Settings())
    assert own == {"own's": (86_400, 0)}
    with_own = Settings(attribution_lookbacks_s=own)
    assert json.loads(attribution.lookbacks(with_own)) == {"": [604_800, 86_400], "own's": [86_400, 0]}
    queries = [view.query for view in attribution.build(with_own).views]
    assert any("\"own''s\": [86400, 0]" in query for query in queries), "a quote in an id does not end the SQL text"


def test_the_functions_know_the_columns_of_their_input() -> None:
    java = resources.files("jobs.streaming").joinpath("java", "AttributionTouch.java").read_text()
    constants = {name.lower(): int(at) for name, at in re.findall(r"int ([A-Z_]+) = (\d+);", java)}

    def columns(row: str) -> list[str]:
        begin = java.index(f"String {row} =")
        declared = "".join(re.findall(r'"([^"]*)"', java[begin : java.index(";", begin)]))
        return re.findall(r"(\w+) (?:STRING|INT|BIGINT|BYTES)", declared)

    touch, names = columns("ROW"), columns("MOMENT_ROW")
    assert touch[-1] == names[-1] == PACKED_COLUMN
    assert (len(touch), len(names)) == (constants["columns"], constants["moment_columns"])
    for name in ("kind", "event_id", "event_time_ms", "published_time_ms", "record_id"):
        assert touch[constants[name]] == name
        assert names[constants["kind" if name == "kind" else f"moment_{name}"]] == name
    assert touch[constants["dimensions"]] == names[constants["moment_dimensions"]] == PACKED_COLUMN
    for name in ("match_keys", "advertiser_id"):
        assert names[constants[name]] == name
    query = next(view.query for view in attribution.build(Settings()).views if view.name == "attribution_inputs")
    moment = query[query.index("ROW(") : query.index("AS moment")]
    given = re.sub(r"CASE.*? 0 WHEN.*? END", "kind", moment, count=1)
    given = re.sub(r"CASE.*?END", "match_keys", given, count=1).replace("conversion_value_micros", "value_micros")
    taken_out = {id_text(name): name for name in IDS}
    taken_out[packed_dimension("advertiser_id", PACKED_COLUMN).removesuffix(" AS `advertiser_id`")] = "advertiser_id"
    for expression, name in taken_out.items():
        given = given.replace(expression, name)
    places = [re.search(rf"\b{name}\b", given) for name in names]
    assert all(places) and [p.start() for p in places if p] == sorted(p.start() for p in places if p)
