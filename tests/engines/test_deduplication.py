"""First copies of events, in Flink: with sessions (ad_lives) and without (first_copies); the table of ids by itself."""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from connectors.flink.session import streaming_session
from jobs.streaming.application import JOBS
from jobs.streaming.own_java import own_java
from jobs.streaming.settings import Settings
from jobs.streaming.views import views
from schemas.ids import event_id
from tests.samples.bounded_source import json_line, source_ddl, source_row
from tests.samples.flink_java import FlinkJava
from tests.samples.stream_io import complete

TTL_S = 3_600
T0_MS = 1_780_000_000_000
#: Few parts, so that each has many ids and grows.
SETTINGS = Settings(deduplication_ttl_s=TTL_S, id_buckets=2, key_buckets=2, watermark_delay_ms=0)
ADS, TYPES = 60, ("impression", "viewable", "click", "opt_out")


def line(ad: int, kind: int, published_ms: int) -> str:
    event = complete(
        {
            "event_id": event_id(ad.to_bytes(16), kind, 0),
            "record_id": f"ad-{ad}",
            "event_type": TYPES[kind],
            "event_time_ms": T0_MS,
            "received_time_ms": T0_MS,
            "published_time_ms": published_ms,
            "advertiser_id": "advertiser",
            "campaign_id": "campaign",
            "creative_id": "creative",
        }
    )
    return json_line(source_row(event))


def first_copies(jobs: Sequence[str], path: Path, lines: Sequence[str]) -> Tally[bytes]:
    """How often each event comes through. In a process of its own, with a JVM of its own."""
    path.write_text("".join(lines))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_first_copies, jobs, path).result()


def _first_copies(jobs: Sequence[str], path: Path) -> Tally[bytes]:
    # RocksDB hands back what was written, never the same object
    built = [JOBS[name](SETTINGS) for name in jobs]
    session = streaming_session({"parallelism.default": "1", "state.backend.type": "rocksdb"}, own_java())
    session.execute_sql(source_ddl(path, SETTINGS))
    for view in views(built, SETTINGS):
        # without the clock, whose watermark holds that of the events back for as long as it takes to end
        query = "SELECT * FROM events" if view.name == "timed_events" else view.query
        session.execute_sql(f"CREATE TEMPORARY VIEW `{view.name}` AS {query}")
    with session.execute_sql("SELECT event_id FROM deduplicated_events").collect() as rows:
        return Tally(bytes(row[0]) for row in rows)


@pytest.mark.parametrize("jobs", [["campaign_metrics"], list(JOBS)], ids=["alone", "with sessions"])
def test_an_event_comes_through_once_within_its_time(jobs: list[str], tmp_path: Path) -> None:
    rng = random.Random(3)
    copies = [(ad, kind) for ad in range(ADS) for kind in range(len(TYPES)) for _ in range(rng.randrange(1, 4))]
    rng.shuffle(copies)
    lines = [line(ad, kind, T0_MS + number) for number, (ad, kind) in enumerate(copies)]
    found = first_copies(jobs, tmp_path / "events.json", lines)
    assert found == Tally(event_id(ad.to_bytes(16), kind, 0) for ad in range(ADS) for kind in range(len(TYPES)))


@pytest.mark.parametrize("jobs", [["campaign_metrics"], list(JOBS)], ids=["alone", "with sessions"])
def test_an_event_counts_again_when_it_is_forgotten(jobs: list[str], tmp_path: Path) -> None:
    again_ms = T0_MS + TTL_S * 1000
    lines = [
        line(1, 0, T0_MS),
        line(2, 0, T0_MS + 1_000),
        line(2, 0, again_ms - 1_000),  # in time
        line(3, 0, again_ms + 500),  # the watermark passes what is remembered of the first ad
        *(line(1, 0, again_ms + 600 + n) for n in range(3)),
    ]
    found = first_copies(jobs, tmp_path / "events.json", lines)
    assert found == {event_id((1).to_bytes(16), 0, 0): 2, **{event_id(n.to_bytes(16), 0, 0): 1 for n in (2, 3)}}


def test_the_table_of_ids_remembers_what_a_dict_would() -> None:
    """Ids that meet in one place, growth, and places of forgotten ids that are used again."""
    flink = FlinkJava()
    rng = random.Random(5)
    ids = [rng.getrandbits(63) for _ in range(40)] + [rng.getrandbits(20) << 32 for _ in range(40)]
    kept: bytes | None = None
    remembered: dict[int, int] = {}
    largest, now_ms = 0, 0
    for step in range(1_500):
        now_ms += rng.randrange(2_000)
        chosen, forget_ms = rng.choice(ids), now_ms + rng.randrange(1, 40) * 1_000
        is_new = remembered.get(chosen, 0) <= now_ms
        after = flink.call("SeenIds", "add", None, kept, chosen, forget_ms, now_ms)
        assert (after is not None) == is_new, f"step {step}"
        if after is not None:
            kept = bytes(after)
            remembered[chosen] = -(-forget_ms // 1_000) * 1_000
            largest = max(largest, len(kept))
    assert kept is not None
    assert 8 * 12 < largest < 5 + 12 * 2 * len(ids), "it has grown, and not by what is forgotten"
