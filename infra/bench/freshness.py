"""How old are the numbers while events come at half the rate that all jobs can take?

First bursts are drained until that gets no faster, because the JIT takes minutes over so many jobs. Another burst gives
the rate. Then events come at half of it, spread over time, all stream jobs and the materializer running as they are
deployed, Druid reading. It is measured after a minute, when the bursts' sessions are closed and in Druid: twice a
second one of the events is a probe, an impression of a campaign and a user of its own. Valkey has it when it has both
the campaign's spend and the user's frequency counts, Druid when it has its row.
What is measured begins when the event is handed to the producer, ends when it is seen, and includes the polling: at
most 10 ms in Valkey, 500 ms in Druid.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

from confluent_kafka import Producer

from connectors import kafka
from connectors.druid import DruidClient
from connectors.endpoints import Endpoints
from connectors.records import encoder
from connectors.registry import SchemaRegistry
from connectors.valkey import Valkey
from infra.bench.report import Row
from infra.bench.services import services
from infra.bench.stream_cases import HEAP_MB
from infra.bench.stream_input import YAHOO_MIX, Events, avro, example, ids_of
from infra.bench.streams import progress_bar
from infra.demo.freshness import quantile
from schemas.campaign_metrics import DATASOURCE
from schemas.codec import Encoder
from schemas.counters import MINUTE_S
from schemas.errors import ConnectorError
from schemas.ids import encode_id
from schemas.redis_layout import TOTAL_SPEND, spend_key, user_key
from schemas.topics import AD_EVENTS

#: With state as large as here, the default's pauses are the tail of what is measured.
COLLECTOR = "g1"
BURST = 300_000
WARM_UPS = 8
#: A burst that is drained by so much faster than any before it says that the next one may be faster still.
_FASTER = 1.05
SETTLE_S, STEADY_S = 60.0, 90.0
USERS = 50_000
_STARTED = ("jobs", "materializer", "druid-supervisors")
_PROBE_EVERY_S = 0.5
_GIVE_UP_S = 60.0
_VALKEY_POLL_S = 0.01
_DRUID_POLL_S = 0.5
_TICK_S = 0.02


@dataclass(slots=True)
class Probes:
    """When each probe was sent and seen, in monotonic seconds."""

    sent_s: dict[str, float] = field(default_factory=dict)
    valkey_s: dict[str, float] = field(default_factory=dict)
    druid_s: dict[str, float] = field(default_factory=dict)

    def ages_ms(self, seen_s: dict[str, float]) -> list[float]:
        return [(seen_s[name] - sent_s) * 1000 for name, sent_s in self.sent_s.items() if name in seen_s]


class Load:
    """Writes events that happen now, and probes among them."""

    def __init__(self) -> None:
        self._events = Events(avro())
        self._encode: Encoder = encoder(AD_EVENTS, SchemaRegistry())
        self._producer: Producer = kafka.producer("bench", {"linger.ms": 5, "queue.buffering.max.messages": 500_000})
        self._run = int(time.time())
        self.written = 0

    def write(self, count: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        for _ in range(count):
            ad, kind = divmod(self.written, len(YAHOO_MIX.types))
            self.written += 1
            ad += self._run * 10_000_000
            ids = ids_of(ad, kind, USERS)
            self._put(self._events.of(ids, ad, kind, now_ms), ids.user)
        self._producer.poll(0)

    def probe(self, name: str) -> None:
        """One impression of a campaign that is called `name`."""
        now_ms = time.time_ns() // 1_000_000
        times = {"event_time_ms": now_ms, "received_time_ms": now_ms, "published_time_ms": now_ms}
        ids = {"event_id": os.urandom(16), "record_id": encode_id(os.urandom(16)), "user_pseudonym": _user(name)}
        self._put(self._encode({**example("impression"), **times, **ids, "campaign_id": name}), name.encode())
        self._producer.poll(0)

    def flush(self) -> None:
        self._producer.flush(60)

    def _put(self, value: bytes, key: bytes) -> None:
        while True:
            try:
                self._producer.produce(AD_EVENTS.name, value, key)
                return
            except BufferError:
                self._producer.poll(0.05)


def _user(probe: str) -> str:
    return f"v1:{probe:0>22}"


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """Rows in ms, one sample for each of `pairs` parts of the steady time; `scale` is a share of the burst."""
    burst, steady_s = max(int(BURST * scale), 5_000), max(STEADY_S * min(scale * 2, 1.0), 20.0)
    os.environ.update(HEADWATER_FLINK_TASK_HEAP_MB=str(HEAP_MB), HEADWATER_FLINK_COLLECTOR=COLLECTOR)
    with services(_STARTED) as where, progress_bar() as progress:
        load = Load()
        step = progress.add_task("warming up", total=WARM_UPS + 2)
        fastest = 0.0
        for number in range(WARM_UPS):
            rate = burst / 3 / _drain(where, load, burst // 3, f"warm-up-{number}")
            progress.update(step, advance=1, description=f"warming up: {rate:,.0f} events/s")
            if rate < fastest * _FASTER:
                break
            fastest = rate
        progress.update(step, completed=WARM_UPS, description="draining a burst")
        rate = burst / _drain(where, load, burst, "burst")
        progress.update(step, advance=1, description=f"{rate / 2:,.0f} events/s for {steady_s:.0f} s")
        probes = _steady(where, load, rate / 2, steady_s)
        progress.update(step, advance=1)
    rows = [Row("drain rate of all jobs together", "events/s", ((rate, None),))]
    for what, seen_s in (("Valkey", probes.valkey_s), ("Druid", probes.druid_s)):
        ages_ms = probes.ages_ms(seen_s)
        size = max(len(ages_ms) // pairs, 1)
        parts = [ages_ms[i : i + size] for i in range(0, size * pairs, size) if ages_ms[i : i + size]]
        for share in (0.5, 0.99):
            samples = tuple((quantile(part, share) or 0.0, None) for part in parts)
            rows.append(Row(f"event to {what}, p{share * 100:.0f} at half of it", "ms", samples))
        rows.append(Row(f"event to {what}, p99 of all", "ms", ((quantile(ages_ms, 0.99) or 0.0, None),)))
    probes_sent = len(probes.sent_s)
    missed = probes_sent - min(len(probes.valkey_s), len(probes.druid_s))
    return rows, [
        f"burst of {burst:,} events, {load.written:,} in all; {missed} of {probes_sent} probes not seen everywhere",
        f"one TaskManager, heap {HEAP_MB} MB, collector {COLLECTOR}",
    ]


def _drain(where: Endpoints, load: Load, events: int, name: str) -> float:
    """Seconds from the first of so many events until one behind them is in Valkey. Errors: RuntimeError: never seen."""
    started_s = time.monotonic()
    load.write(events)
    probes = Probes()
    with Valkey(where.valkey_url) as valkey:
        load.flush()
        for number in range(AD_EVENTS.partitions * 4):  # one at least in each partition
            probes.sent_s[f"{name}-{number}"] = time.monotonic()
            load.probe(f"{name}-{number}")
        load.flush()
        while len(probes.valkey_s) < len(probes.sent_s):
            if time.monotonic() - started_s > 600:
                raise RuntimeError(f"{name}: {events} events were not drained within 600 s")
            _look_in_valkey(valkey, probes)
            time.sleep(_VALKEY_POLL_S)
    return time.monotonic() - started_s


def _steady(where: Endpoints, load: Load, rate: float, steady_s: float) -> Probes:
    probes = Probes()
    over = threading.Event()
    watches = [
        threading.Thread(target=watch, args=(where, probes, over), daemon=True)  # an interrupted bench waits for none
        for watch in (_watch_valkey, _watch_druid)
    ]
    for watch in watches:
        watch.start()
    started_s = time.monotonic()
    written, probed = 0, 0
    while (passed_s := time.monotonic() - started_s) < SETTLE_S + steady_s:
        due = int(rate * passed_s) - written
        load.write(due)
        written += due
        if passed_s >= SETTLE_S + probed * _PROBE_EVERY_S:
            name = f"probe-{probed}"
            probes.sent_s[name] = time.monotonic()
            load.probe(name)
            probed += 1
        time.sleep(_TICK_S)
    load.flush()
    over.set()
    for watch in watches:
        watch.join()
    return probes


def _watch_valkey(where: Endpoints, probes: Probes, over: threading.Event) -> None:
    with Valkey(where.valkey_url) as valkey:
        ends_s = None
        while ends_s is None or (len(probes.valkey_s) < len(probes.sent_s) and time.monotonic() < ends_s):
            _look_in_valkey(valkey, probes)
            if over.is_set() and ends_s is None:
                ends_s = time.monotonic() + _GIVE_UP_S
            time.sleep(_VALKEY_POLL_S)


def _look_in_valkey(valkey: Valkey, probes: Probes) -> None:
    waiting = [name for name in list(probes.sent_s) if name not in probes.valkey_s]
    spends = [("HGET", spend_key(name), TOTAL_SPEND) for name in waiting]
    counts = [("EXISTS", user_key(_user(name))) for name in waiting]
    found = valkey.pipeline([*spends, *counts]) if waiting else []
    now_s = time.monotonic()
    for name, spend, counted in zip(waiting, found[: len(waiting)], found[len(waiting) :], strict=True):
        if spend and counted:
            probes.valkey_s[name] = now_s


def _watch_druid(where: Endpoints, probes: Probes, over: threading.Event) -> None:
    since_ms = time.time_ns() // 1_000_000 - MINUTE_S * 1000
    query = (
        f'SELECT DISTINCT campaign_id FROM "{DATASOURCE}" '
        f"WHERE campaign_id LIKE 'probe-%' AND __time >= MILLIS_TO_TIMESTAMP({since_ms})"
    )
    with DruidClient.of(where) as druid:
        ends_s = None
        while ends_s is None or (len(probes.druid_s) < len(probes.sent_s) and time.monotonic() < ends_s):
            try:
                names = {str(row["campaign_id"]) for row in druid.sql(query)}
            except ConnectorError:
                names = set()  # no segment yet
            now_s = time.monotonic()
            for name in names & (probes.sent_s.keys() - probes.druid_s.keys()):
                probes.druid_s[name] = now_s
            if over.is_set() and ends_s is None:
                ends_s = time.monotonic() + _GIVE_UP_S
            time.sleep(_DRUID_POLL_S)
