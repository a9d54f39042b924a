"""Ads, their tokens and telemetry, and the processes of ingestion, for tests against real services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from connectors.endpoints import Endpoints
from connectors.kafka import end_offsets, producer, read_topic
from connectors.keys import KeyRing
from connectors.records import RecordDecoder, encoder
from connectors.registry import SchemaRegistry
from connectors.tokens import TokenMinter
from connectors.valkey import Valkey
from schemas.events import BY_NAME
from schemas.ids import encode_id, event_id
from schemas.redis_layout import registry_key
from schemas.registry_record import AdRecord
from schemas.topics import AD_TELEMETRY, TOPICS, Topic

ROOT = Path(__file__).resolve().parents[2]
#: One ad's life as its player tells it: (event, ordinal).
LIFE = (
    ("impression", 0),
    ("start", 0),
    ("progress", 10),
    ("first_quartile", 0),
    ("midpoint", 0),
    ("complete", 0),
)


#: Longer than a broker is away in any test.
WRITTEN_WITHIN_S = 240


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_until(what: str, condition: Callable[[], Any], timeout_s: float = 90.0) -> Any:
    """What the condition gives once it is true."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Service:
    """A process of ours, as the supervisor would start it."""

    def __init__(self, module: str, port: int, *arguments: str, **environment: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = {**os.environ, **environment}
        self.url = f"http://127.0.0.1:{port}"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stderr=subprocess.DEVNULL)

    def status(self) -> dict[str, Any] | None:
        """What `/status` says when it says 200."""
        try:
            with urllib.request.urlopen(f"{self.url}/status", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, urllib.error.HTTPError):
            return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()

    def stop(self, timeout_s: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def service(module: str, port: int, *arguments: str, **environment: str) -> Iterator[Service]:
    """A process that is ready; killed at the end if it still runs."""
    made = Service(module, port, *arguments, **environment)
    try:
        wait_until(f"{module} is ready", made.status)
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()


@dataclass
class Ads:
    """Makes ads whose tokens and registry records are real, and telemetry of them."""

    where: Endpoints
    ring: KeyRing = field(init=False)
    registry: SchemaRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.ring = KeyRing.load(self.where.secrets)
        self.registry = SchemaRegistry(self.where.registry_url)
        self._minter = TokenMinter(self.ring)
        self._encode = encoder(AD_TELEMETRY, self.registry)
        self._since = {topic.name: end_offsets(topic.name) for topic in TOPICS}

    def make(self, count: int, user: str | None = None, **fields: Any) -> list[bytes]:
        """Record ids of new ads, written to the Ads Metadata Registry."""
        ids = [os.urandom(16) for _ in range(count)]
        self.write(ids, user, **fields)
        return ids

    def write(self, ids: list[bytes], user: str | None = None, **fields: Any) -> None:
        """Writes the registry records of some ads, of one user or of many; `fields` are the same in all."""
        commands = []
        for raw in ids:
            values = {
                "record_id": encode_id(raw),
                "request_id": f"req-{raw.hex()[:8]}",
                "imp_id": "1",
                "advertiser_id": "adv-1",
                "campaign_id": f"c-{raw[0] % 5}",
                "creative_id": f"cr-{raw[0] % 9}",
                "decision_time_ms": now_ms(),
                "user_pseudonym": self.ring.pseudonym(user or f"user-{raw[1]}"),
                "impression_cost_micros": 2_500,
                **fields,
            }
            key = registry_key(str(values["record_id"]))
            commands.append(("SET", key, AdRecord(**values).to_bytes(), "EX", 3_600))
        with Valkey(self.where.valkey_url) as valkey:
            valkey.pipeline(commands)

    def token(self, record_id: bytes, event: str = "impression", ordinal: int = 0) -> str:
        return self._minter.mint(record_id, BY_NAME[event].code, ordinal, now_ms() // 1000, 3_600)

    def telemetry(self, token: str | None, **fields: Any) -> bytes:
        """A telemetry record as the collector writes it."""
        now = now_ms()
        return self._encode(
            {
                "token": token,
                "source": "video_player",
                "client_time_ms": now,
                "received_time_ms": now,
                **fields,
            }
        )

    def send(self, values: list[bytes], key: bytes | None = None) -> None:
        """Writes values to ad-telemetry-v1 and waits for the broker."""
        self.produce(AD_TELEMETRY, [(key if key is not None else os.urandom(8), value) for value in values])

    def produce(self, topic: Topic, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Writes (key, value) to a topic and waits for the broker."""
        made = producer("test-ads", {"queue.buffering.max.messages": 1_000_000})
        for key, value in records:
            made.produce(topic.name, value, key)
            made.poll(0)
        assert made.flush(WRITTEN_WITHIN_S) == 0

    def messages(self, topic: Topic) -> list[Message]:
        """All records of a topic that were committed since these ads' tests began; each partition's in its order."""
        return list(read_topic(topic.name, self._since[topic.name]))

    def read_all(self, topic: Topic) -> list[dict[str, Any]]:
        """The same, decoded."""
        decode = RecordDecoder(topic, self.registry)
        records: list[dict[str, Any]] = []
        for message in self.messages(topic):
            schema_id, found = decode(message.value())
            assert isinstance(found, dict), (schema_id, found)
            records.append(found)
        return records


def lives(ads: Ads, ids: list[bytes]) -> tuple[list[bytes], set[bytes]]:
    """(telemetry of the whole lives of some ads, their event ids)."""
    values = [ads.telemetry(ads.token(raw, event, ordinal)) for raw in ids for event, ordinal in LIFE]
    expected = {event_id(raw, BY_NAME[event].code, ordinal) for raw in ids for event, ordinal in LIFE}
    return values, expected
