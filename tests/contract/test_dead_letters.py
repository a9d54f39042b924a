"""Dead letters on real services: listed, shown, replayed after a fix, and never twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from connectors import kafka
from connectors.endpoints import Endpoints
from connectors.records import encoder
from connectors.registry import NotRegistered, SchemaRegistry
from infra.cli.app import app
from infra.dead_letters import REPLAYED_FROM, replay
from jobs.streaming.progress import unread
from schemas.codec import schema_text
from schemas.dead_letters import dead_letter
from schemas.errors import Reject, RejectReason
from schemas.ids import encode_id
from schemas.topics import AD_CONVERSIONS, AD_CONVERSIONS_DLQ, AD_EVENTS, AD_TELEMETRY
from tests.samples.ingest import ROOT, Ads, now_ms, service, wait_until

RUN = CliRunner()
#: A reason per test, so that each sees its own letters alone.
KILLED, ONCE, GONE = RejectReason.TOKEN_UNKNOWN_KEY, RejectReason.TOO_LARGE, RejectReason.BAD_VALUE


@pytest.fixture(scope="module")
def registry(local_services: Endpoints) -> SchemaRegistry:
    return SchemaRegistry(local_services.registry_url)


@pytest.fixture
def conversions_since(local_services: Endpoints) -> dict[int, int]:
    return kafka.end_offsets(AD_CONVERSIONS.name)


def dlq(*arguments: str) -> Result:
    return RUN.invoke(app, ["dlq", *arguments], env={"COLUMNS": "200"})


def write_letters(registry: SchemaRegistry, reason: RejectReason, raws: list[bytes], **place: int) -> None:
    """Dead letters of conversions, as a job writes them; without a place each has the next offset of partition 0."""
    encode, made = encoder(AD_CONVERSIONS_DLQ, registry), kafka.producer("test-letters")
    for number, raw in enumerate(raws):
        where = place or {"partition": 0, "offset": 1_000_000 + number}
        letter = dead_letter(
            Reject(reason, "of a test"), AD_CONVERSIONS.name, "test", "1", now_ms(), key=b"k", raw=raw, **where
        )
        made.produce(AD_CONVERSIONS_DLQ.name, encode(letter), b"k")
    assert made.flush(60) == 0


def conversions(registry: SchemaRegistry, count: int) -> list[bytes]:
    encode, now = encoder(AD_CONVERSIONS, registry), now_ms()
    times = {"event_time_ms": now, "received_time_ms": now}
    made = [
        {"order_id": os.urandom(8).hex(), "advertiser_id": "adv-1", "currency": "USD", **times} for _ in range(count)
    ]
    return [encode({"user_pseudonym": None, "conversion_type": "purchase", **conversion}) for conversion in made]


def replayed(since: dict[int, int]) -> Iterator[tuple[bytes, str]]:
    """(value, the letter it comes from) of what was replayed into the conversions."""
    for message in kafka.read_topic(AD_CONVERSIONS.name, since):
        for name, place in message.headers() or []:
            if name == REPLAYED_FROM:
                assert message.key() == b"k"
                yield message.value() or b"", bytes(place).decode()


def test_a_record_of_an_unknown_schema_is_published_after_its_schema_is_registered(
    local_services: Endpoints, registry: SchemaRegistry
) -> None:
    """A writer was rolled out before its schema: one more field at the end, under an id that nobody knows yet."""
    ads = Ads(local_services)
    (known,) = ads.make(1)
    later = next_schema_id(registry)
    value = ads.telemetry(ads.token(known))
    newer = value[:1] + later.to_bytes(4, "big") + value[5:] + b"\x00"
    ads.send([newer], key=b"of-a-newer-writer")
    port = local_services.port("publisher_metrics")
    of_it = ("--topic", AD_TELEMETRY.name, "--reason", "unknown_schema")
    with service("jobs.publisher", port):
        wait_until("the publisher has read it", publisher_is_done)
    before = json.loads(dlq("list", *of_it, "--json").output)[-1]
    assert before["job"] == "publisher" and before["waiting"] > 0
    shown = json.loads(dlq("show", *of_it).output)
    assert (shown["schema_id"], shown["decoded"], shown["raw"]) == (later, None, newer.hex())
    assert bytes.fromhex(shown["key"]) == b"of-a-newer-writer"

    schema = json.loads(schema_text("ad_telemetry"))
    schema["fields"].append({"name": f"of_release_{later}", "type": ["null", "string"], "default": None})
    assert registry.register("ad-telemetry-of-the-next-release-value", json.dumps(schema)) == later
    assert json.loads(dlq("show", *of_it).output)["decoded"]["source"] == "video_player"
    assert "would be replayed" in dlq("replay", *of_it, "--dry-run").output
    assert json.loads(dlq("list", *of_it, "--json").output)[-1]["waiting"] == before["waiting"], "dry"
    done = dlq("replay", *of_it)
    assert done.exit_code == 0, done.output
    assert json.loads(dlq("list", *of_it, "--json").output)[-1]["waiting"] == 0
    assert "nothing to replay" in dlq("replay", *of_it).output

    def published() -> list[dict[str, Any]]:
        return [e for e in ads.read_all(AD_EVENTS) if e["record_id"] == encode_id(known)]

    with service("jobs.publisher", port):  # not its lag: the replay's commit marker keeps that above 0
        wait_until("the publisher has read it", published)
    (event,) = published()
    assert event["event_type"] == "impression"


def publisher_is_done() -> bool:
    return unread("publisher", AD_TELEMETRY) == 0


def next_schema_id(registry: SchemaRegistry) -> int:
    """The id that the registry gives to the next schema: it counts."""
    probe = {"type": "record", "name": f"Probe{os.urandom(4).hex()}", "fields": []}
    later = registry.register("probe-value", json.dumps(probe)) + 1
    with pytest.raises(NotRegistered):
        registry.schema(later)
    return later


def test_no_letter_is_replayed_twice_though_the_replay_is_killed(
    registry: SchemaRegistry, conversions_since: dict[int, int]
) -> None:
    raws = conversions(registry, 3_000)
    write_letters(registry, KILLED, raws)
    kills = 0
    while True:
        reached = sum(kafka.end_offsets(AD_CONVERSIONS.name).values())
        running = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "infra.cli.app",
                "dlq",
                "replay",
                "--topic",
                AD_CONVERSIONS.name,
                "--reason",
                KILLED,
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        while running.poll() is None and kills < 2:
            if sum(kafka.end_offsets(AD_CONVERSIONS.name).values()) > reached:  # it is at work
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        if running.wait(120) != -signal.SIGKILL:
            break
        kills += 1
    assert (running.returncode, kills) == (0, 2)
    found = list(replayed(conversions_since))
    assert Counter(value for value, _ in found) == Counter(raws)
    assert len({place for _, place in found}) == len(raws)


def test_a_record_whose_letter_was_written_twice_is_replayed_once(
    registry: SchemaRegistry, conversions_since: dict[int, int]
) -> None:
    (raw,) = conversions(registry, 1)
    write_letters(registry, ONCE, [raw], partition=1, offset=77)
    assert replay(AD_CONVERSIONS, registry, ONCE).replayed == {ONCE: 1}
    write_letters(registry, ONCE, [raw], partition=1, offset=77)
    assert not replay(AD_CONVERSIONS, registry, ONCE).replayed
    write_letters(registry, ONCE, [raw] * 2, partition=1, offset=78)
    assert replay(AD_CONVERSIONS, registry, ONCE).replayed == {ONCE: 1}
    assert [value for value, _ in replayed(conversions_since)] == [raw, raw]


def test_a_letter_without_its_bytes_is_replayed_from_the_source_topic(
    registry: SchemaRegistry, conversions_since: dict[int, int]
) -> None:
    (raw,) = conversions(registry, 1)
    made = kafka.producer("test")
    made.produce(AD_CONVERSIONS.name, raw, b"k", partition=2)
    assert made.flush(30) == 0
    offset = kafka.end_offsets(AD_CONVERSIONS.name)[2] - 1
    write_letters(registry, GONE, [b""], partition=2, offset=offset)
    write_letters(registry, GONE, [b""], partition=2, offset=offset + 1_000_000)
    write_letters(registry, GONE, [b""], partition=-1, offset=-1)
    shown = json.loads(dlq("show", "--topic", AD_CONVERSIONS_DLQ.name, "--offset", str(last_letter() - 2)).output)
    assert (shown["raw"], shown["offset"]) == (raw.hex(), offset)
    result = dlq("replay", "--reason", GONE)
    assert result.exit_code == 1, "some letters have no record to replay, and it says so"
    assert "no longer keeps" in result.output and "at the door" in result.output
    assert [value for value, _ in replayed(conversions_since)] == [raw]


def last_letter() -> int:
    return max(int(message.offset() or 0) for message in kafka.read_topic(AD_CONVERSIONS_DLQ.name))


@pytest.mark.parametrize(
    "arguments", [["list", "--topic", "no-topic"], ["list", "--since", "now"], ["show", "--offset", "1"]]
)
def test_misuse_is_told(local_services: Endpoints, arguments: list[str]) -> None:
    assert dlq(*arguments).exit_code == 2
