"""The function ad_lives: its parts by themselves, many lives in one second, and a life whose ids are forgotten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from jobs.streaming.settings import Settings
from jobs.transforms.event_rules import Event
from jobs.transforms.sessions import sessions
from schemas.events import EVENT_TYPES, OLDEST_MS, SOURCES
from schemas.ids import event_id
from tests.samples.bounded_run import rows_of
from tests.samples.flink_java import FlinkJava
from tests.samples.stream_io import complete

T0_MS = 1_780_000_000_000
HOUR_MS = 3_600_000
#: Few parts, so that many lives meet in one.
SETTINGS = Settings(session_gap_s=15, deduplication_ttl_s=3_600, key_buckets=2, watermark_delay_ms=0)
TABLES = ("ad_sessions", "session_metrics")


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava()


def test_a_known_text_is_found_and_nothing_else(flink: FlinkJava) -> None:
    known = [*(kind.name for kind in EVENT_TYPES), *SOURCES, "ß", "a", "aa"]
    found = flink.new("KnownTexts", flink.array(flink.jvm.String, known))
    rng = random.Random(7)
    others = {"", "impressions", "Click", "clicks", "cück"}
    for text in known:  # one character more, less, or another: the same length and ends among them
        at = rng.randrange(len(text))
        others |= {text[:at] + text[at + 1 :], text[:at] + "x" + text[at + 1 :], text + text[-1]}
    for text in [*known, *sorted(others - set(known))]:
        binary = flink.jvm.org.apache.flink.table.data.binary.BinaryStringData.fromString(text)
        number = flink.call("KnownTexts", "number", found, binary)
        assert number == (known.index(text) if text in known else -1), text


def event(ad: str, event_type: str, published_ms: int) -> Event:
    return complete(
        {
            "event_id": event_id(f"{ad:>16}".encode(), [kind.name for kind in EVENT_TYPES].index(event_type), 0),
            "record_id": ad,
            "event_type": event_type,
            "event_time_ms": T0_MS,
            "received_time_ms": T0_MS,
            "published_time_ms": published_ms,
            "advertiser_id": "advertiser",
            "campaign_id": "campaign",
            "creative_id": "creative",
            "creative_length_s": 30,
        }
    )


def test_thousands_of_starts_in_one_second_are_as_many_sessions(tmp_path: Path) -> None:
    ads = [f"ad-{n}" for n in range(5_000)]
    played = [event(ad, event_type, T0_MS) for event_type in ("impression", "start") for ad in ads]
    later = [event(f"later-{n}", "start", T0_MS + n * 20_000) for n in (1, 2)]  # time goes on while they are closed
    found = rows_of([*played, *later, *played[::100]], SETTINGS, tmp_path / "events.json", TABLES)
    wanted = sessions([*played, *later], SETTINGS.session_gap_s * 1000)
    rows = {row["record_id"]: row for row in found["ad_sessions"]}
    assert len(found["ad_sessions"]) == len(rows), "a revision too many"
    assert {r: {name: row[name] for name in wanted[0]} for r, row in rows.items()} == {
        row["record_id"]: row for row in wanted
    }
    assert sum(row["sessions"] for row in found["session_metrics"]) == len(ads)


def hourly(events: dict[str, int]) -> list[Event]:
    """Events of one ad in these hours, and before each of them one of another ad, by which time goes on."""
    found = []
    for n, (event_type, hour) in enumerate(events.items()):
        at_ms = T0_MS + hour * HOUR_MS
        found += [event(f"clock-{n}", "start", at_ms - 60_000), event("ad", event_type.split("-")[0], at_ms)]
    return found


def test_a_life_goes_on_when_its_ids_are_forgotten_and_ends_when_nothing_can_come(tmp_path: Path) -> None:
    """Ids are forgotten an hour after the last event, the rest a week after it."""
    ended = 26 + OLDEST_MS // HOUR_MS + 2
    events = hourly({"impression": 0, "midpoint": 2, "complete": 26, "click": ended})
    found = rows_of(events, SETTINGS, tmp_path / "events.json", TABLES)
    columns = ("revision", "events", "furthest_quartile", "impressions", "watch_time_ms")
    rows = [tuple(row[name] for name in columns) for row in found["ad_sessions"] if row["record_id"] == "ad"]
    assert rows == [
        (1, 1, 0, 1, 0),
        (2, 2, 50, 1, 15_000),
        (3, 3, 100, 1, 30_000),
        (1, 1, 0, 0, 0),  # a life of its own: an event as old as the first would be refused
    ]
    names = ("sessions", "sessions_completed", "watch_time_ms")
    assert [tuple(row[name] for name in names) for row in found["session_metrics"]] == [
        (1, 0, 0),
        (0, 0, 15_000),
        (0, 1, 15_000),
    ]


def test_a_copy_of_an_event_whose_id_is_forgotten_counts_again_in_the_same_life(tmp_path: Path) -> None:
    events = hourly({"impression": 0, "impression-again": 2})
    found = rows_of(events, SETTINGS, tmp_path / "events.json", TABLES)
    rows = [(row["revision"], row["impressions"]) for row in found["ad_sessions"] if row["record_id"] == "ad"]
    assert rows == [(1, 1), (2, 2)]
    assert sum(row["sessions"] for row in found["session_metrics"]) == 1
