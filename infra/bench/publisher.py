"""`headwater bench publisher`: events per CPU-second of one publisher process, beside a loop of stock clients.

Both read the same topic of the same broker, filled before: whole lives of ads that overlap as they do in traffic,
keyed as the collector keys them, every ad in the registry. What counts is the CPU time of the process itself, all of
its threads, from the first progress that it tells to the last: not its start, nor the broker's work. Ours is
transactional (exactly once), the other at least once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from connectors.endpoints import Endpoints
from connectors.kafka import create_topics, lag, producer
from connectors.keys import KeyRing
from connectors.records import encoder
from connectors.registry import SchemaRegistry
from connectors.tokens import TokenMinter
from connectors.valkey import Valkey
from connectors.valkey_wire import Command
from infra.bench.report import Row, cpu_seconds, interleaved
from infra.bench.services import services
from infra.bench.straightforward_publisher import COMMIT_EVERY
from schemas.codec import Encoder
from schemas.events import BY_NAME
from schemas.ids import encode_id
from schemas.redis_layout import registry_key
from schemas.registry_record import AdRecord
from schemas.topics import AD_TELEMETRY, Topic

EVENTS = 400_000
BESIDE_EVENTS = 40_000
USERS = 20_000
TOKEN_LIFE_S = 86_400
#: One ad's life as a player tells it: (event, ordinal, ms after the impression); some players tell progress too.
_LIFE = (
    *(("impression", 0, 0), ("start", 0, 60), ("viewable", 0, 2_000), ("first_quartile", 0, 7_500)),
    *(("midpoint", 0, 15_000), ("third_quartile", 0, 22_500), ("complete", 0, 30_000)),
)
_PROGRESS = tuple(("progress", percent, percent * 300) for percent in range(10, 101, 10))
_CLICK = (("click", 0, 11_000),)
_AD_EVERY_MS = 10
_OUT = "bench-straightforward-events-v1"
_ROOT = Path(__file__).resolve().parents[2]


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """One row, and what is in it."""
    events = int(EVENTS * scale)
    beside_events = max(1, int(BESIDE_EVENTS * scale) // COMMIT_EVERY) * COMMIT_EVERY
    with services(("contracts", "valkey")) as where:
        create_topics([Topic(_OUT, "what the other publisher writes", "user_pseudonym", None, ("bench",), ())])
        written = fill(where, events)
        rounds = iter(range(2 * pairs))
        samples = interleaved(
            lambda: ours(where, next(rounds), written),
            lambda: straightforward(next(rounds), beside_events),
            pairs,
            lambda: print(".", end="", flush=True, file=sys.stderr),
        )
    print(file=sys.stderr)
    notes = [
        f"input: {written:,} records of telemetry in {AD_TELEMETRY.partitions} partitions, all tokens genuine; "
        f"per round ours publishes all of them, the other {beside_events:,}",
        "ours: exactly once (a transaction per batch), rules, dead letters; the other: at least once, no rules",
    ]
    return [Row("telemetry to ad events, one process", "events/CPU-s", samples)], notes


def fill(where: Endpoints, events: int) -> int:
    """Writes at least so many events' telemetry, and the records of their ads; gives back how many."""
    ring = KeyRing.load(where.secrets)
    minter, encode = TokenMinter(ring), encoder(AD_TELEMETRY, SchemaRegistry(where.registry_url))
    now_ms = time.time_ns() // 1_000_000
    ids = [os.urandom(16) for _ in range(events // 10)]
    with Valkey(where.valkey_url) as valkey:
        for start in range(0, len(ids), 1_000):
            valkey.pipeline([_registry_entry(ring, raw, now_ms) for raw in ids[start : start + 1_000]])
    shots = sorted((at_ms, raw, event, ordinal) for raw, event, ordinal, at_ms in _lives(ids))
    span_ms = shots[-1][0]
    made = producer("bench-input", {"queue.buffering.max.messages": 1_000_000})
    for at_ms, raw, event, ordinal in shots:
        received_ms = now_ms - span_ms + at_ms
        token = minter.mint(raw, BY_NAME[event].code, ordinal, received_ms // 1000, TOKEN_LIFE_S)
        made.produce(AD_TELEMETRY.name, _telemetry(encode, token, received_ms), token.encode())
    if made.flush(120):
        raise RuntimeError("the broker did not take the input")
    return len(shots)


def _lives(ids: list[bytes]) -> Iterator[tuple[bytes, str, int, int]]:
    for number, raw in enumerate(ids):
        life = _LIFE + (_PROGRESS if number % 3 == 0 else ()) + (_CLICK if number % 8 == 0 else ())
        for event, ordinal, after_ms in life:
            yield raw, event, ordinal, number * _AD_EVERY_MS + after_ms


def _telemetry(encode: Encoder, token: str, received_ms: int) -> bytes:
    return encode(
        {"token": token, "source": "video_player", "client_time_ms": received_ms - 25, "received_time_ms": received_ms}
    )


def _registry_entry(ring: KeyRing, raw: bytes, now_ms: int) -> Command:
    """An ad as the ad server writes it."""
    n = raw[0]
    record = AdRecord(
        record_id=encode_id(raw),
        request_id=raw[::-1].hex(),
        imp_id="1",
        advertiser_id=f"adv-{n % 20}",
        campaign_id=f"camp-{n % 60}",
        creative_id=f"creative-{n}",
        decision_time_ms=now_ms,
        line_item_id=f"line-{n % 90}",
        placement_id=f"pl-{n % 12}-pre",
        publisher_id=f"pub-{n % 4}",
        user_pseudonym=ring.pseudonym(f"user-{int.from_bytes(raw[:4], 'big') % USERS}"),
        household_pseudonym=ring.household(f"10.{n}.0.1"),
        site_id=f"site-{n % 7}",
        content_id=f"content-{n}",
        content_category="IAB17",
        pricing="cpm",
        impression_cost_micros=2_500 + n,
        creative_format="video",
        creative_length_s=30,
        device_type="ctv",
        platform="tvos",
        country="US",
        region="US-CA",
        session_context=f"session-{raw[:6].hex()}",
        consent={"gpp": "DBAA", "us_privacy": "1YNN"},
        model_version="ctr-v1",
    )
    return ("SET", registry_key(record.record_id), record.to_bytes(), "EX", TOKEN_LIFE_S)


def ours(where: Endpoints, number: int, events: int) -> float:
    """Events per CPU-second of `python -m jobs.publisher` in a group of its own."""
    group = f"bench-{number}"
    environment = {**os.environ, "HEADWATER_PUBLISHER_GROUP": group}
    process = subprocess.Popen([sys.executable, "-m", "jobs.publisher"], cwd=_ROOT, env=environment)
    url = f"http://{where.host}:{where.port('publisher_metrics')}/status"

    def done() -> int:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(json.load(answer)["records"])
        except OSError:
            return 0

    try:
        rate = _rate(process.pid, done, events)
        if lag(group, AD_TELEMETRY.name):
            raise RuntimeError("the publisher has not committed all of its input")
        return rate
    finally:
        process.terminate()
        process.wait(60)


def straightforward(number: int, events: int) -> float:
    """Events per CPU-second of the other one."""
    arguments = ("-m", "infra.bench.straightforward_publisher", f"bench-{number}", _OUT, str(events))
    process = subprocess.Popen([sys.executable, *arguments], cwd=_ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = iter(process.stdout)
    try:
        return _rate(process.pid, lambda: int(next(lines)), events)
    finally:
        process.kill()
        process.wait()


def _rate(pid: int, done: Callable[[], int], events: int) -> float:
    """Events per CPU-second between the first progress that is seen and the last event. Errors: RuntimeError."""
    first: tuple[int, float] | None = None
    deadline_s = time.monotonic() + 600
    while time.monotonic() < deadline_s:
        count, used_s = done(), cpu_seconds([pid])
        if count and first is None:
            first = count, used_s
        if first is not None and count >= events:
            return (count - first[0]) / (used_s - first[1])
        time.sleep(0.02)
    raise RuntimeError("not done within 10 minutes")
