"""Several publishers at once, hot keys, keys that rotate, a backlog while Valkey stands still."""

from __future__ import annotations

import base64
import os
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from connectors.endpoints import Endpoints
from connectors.keys import PSEUDONYM, TOKEN, KeyRing
from connectors.records import RecordDecoder, encoder
from connectors.tokens import TokenOpener
from infra.local import control
from jobs.streaming.progress import unread
from schemas.catalog import Bidders
from schemas.catalog_text import dump
from schemas.ids import encode_id, event_id, order_record_id
from schemas.topics import AD_EVENTS, AD_TELEMETRY, AD_TELEMETRY_DLQ, ATTRIBUTIONS, ATTRIBUTIONS_DLQ
from tests.samples.adserver import catalog
from tests.samples.ingest import LIFE, Ads, Service, lives, now_ms, service, wait_until


@pytest.fixture(scope="module")
def ads(local_services: Endpoints) -> Ads:
    return Ads(local_services)


@pytest.fixture
def publisher_of(local_services: Endpoints) -> Iterator[Callable[..., Service]]:
    """Starts the n-th publisher of the group."""
    with ExitStack() as running:

        def start(number: int = 1, **settings: str) -> Service:
            port = "publisher_metrics" if number == 1 else f"publisher_{number}_metrics"
            settings = {f"HEADWATER_PUBLISHER_{name}": value for name, value in settings.items()}
            settings |= {"HEADWATER_PUBLISHER_WORKER": str(number - 1)}
            return running.enter_context(service("jobs.publisher", local_services.port(port), **settings))

        yield start


def drained() -> bool:
    return unread("publisher", AD_TELEMETRY) == 0


def found_ids(ads: Ads, ids: list[bytes]) -> Counter[bytes]:
    wanted = {encode_id(raw) for raw in ids}
    return Counter(e["event_id"] for e in ads.read_all(AD_EVENTS) if e["record_id"] in wanted)


@pytest.mark.parametrize("count", [2, 3])
def test_kills_and_rebalances_among_several_lose_and_double_nothing(
    ads: Ads, publisher_of: Callable[..., Service], count: int
) -> None:
    """One joins in traffic, one is killed and comes back, and with three one is killed for good."""
    ids = ads.make(1_500)
    values, expected = lives(ads, ids)
    values += values[:600]  # a player's SDK repeats itself: an event for each that was sent
    workers = [publisher_of(n + 1, BATCH_RECORDS="300") for n in range(count - 1)]
    parts = [values[i::6] for i in range(6)]
    for step, part in enumerate(parts):
        ads.send(part)
        if step == 1:
            workers.append(publisher_of(count, BATCH_RECORDS="300"))
        elif step in (2, 3):
            workers[0].kill()
            workers[0].restart()
        elif step == 4 and count > 2:
            workers[1].kill()
    wait_until("everything is read", drained, 180)
    alive = [worker for worker in workers if worker.process.poll() is None]
    assert len(alive) == 2
    shares = [wait_until("its status", worker.status)["records"] for worker in alive]
    found = found_ids(ads, ids)
    assert set(found) == expected
    assert found == Counter(ids_of(ads, values)), "each as often as it was sent"
    assert shares[-1] > 0, "the one that joined late has taken partitions over"


def ids_of(ads: Ads, values: list[bytes]) -> list[bytes]:
    """Event ids of telemetry."""
    decode, opener = RecordDecoder(AD_TELEMETRY, ads.registry), TokenOpener(ads.ring)
    ids = []
    for value in values:
        _schema_id, record = decode(value)
        assert isinstance(record, dict)
        claims = opener.open(record["token"])
        ids.append(event_id(claims.record_id, claims.event_code, claims.ordinal))
    return ids


def test_a_hot_user_is_spread_and_its_ads_stay_whole(ads: Ads, publisher_of: Callable[..., Service]) -> None:
    bot = ads.make(600, user="a-bot")
    people = ads.make(900)
    ids = [raw for pair in zip(bot, people, strict=False) for raw in pair] + people[600:]
    # each ad's telemetry in one partition, so that its order is known
    sent = [(raw, ads.telemetry(ads.token(raw, event, ordinal))) for raw in ids for event, ordinal in LIFE]
    ads.produce(AD_TELEMETRY, sent)
    worker = publisher_of(HOT_KEY_SHARE="0.05", HOT_KEY_WINDOW_ADS="300")
    wait_until("everything is read", drained)
    metrics = httpx.get(f"{worker.url}/metrics").text
    decode = RecordDecoder(AD_EVENTS, ads.registry)
    wanted = {encode_id(raw) for raw in ids}
    place: dict[str, set[int | None]] = defaultdict(set)
    order: dict[str, list[str]] = defaultdict(list)
    keys: Counter[bytes] = Counter()
    partitions: Counter[int | None] = Counter()
    for message in ads.messages(AD_EVENTS):
        _schema_id, event = decode(message.value())
        assert isinstance(event, dict)
        if event["record_id"] in wanted:
            key = bytes(message.key() or b"")
            place[event["record_id"]].add(message.partition())
            order[event["record_id"]].append(event["event_type"])
            assert key.partition(b"#")[0] == event["user_pseudonym"].encode(), "the event itself is not salted"
            partitions[message.partition()] += 1
            if event["user_pseudonym"] == ads.ring.pseudonym("a-bot"):
                keys[key] += 1
    assert all(len(found) == 1 for found in place.values()), "an ad is in one partition"
    assert all(found == [event for event, _ordinal in LIFE] for found in order.values()), "in order"
    salted = sum(count for key, count in keys.items() if b"#" in key)
    assert len(keys) > 8 and salted > 0.8 * sum(keys.values())
    total = sum(partitions.values())
    assert max(partitions.values()) / total < 0.40, "under its plain key alone it would be at least 0.40"
    assert re.search(r"^publisher_hot_keys [1-9]", metrics, re.M)
    assert float(re.search(r"^publisher_salted_ads_total (\S+)", metrics, re.M).group(1)) == salted / len(LIFE)  # type: ignore[union-attr]


def test_credited_views_become_events_once(ads: Ads, publisher_of: Callable[..., Service]) -> None:
    (raw,) = ads.make(1)
    encode = encoder(ATTRIBUTIONS, ads.registry)
    order = f"order-{os.urandom(4).hex()}"
    view = {
        "conversion_event_id": os.urandom(16),
        "order_id": order,
        "outcome": "attributed",
        "touch_type": "view",
        "touch_record_id": encode_id(raw),
        "conversion_time_ms": now_ms() - 5_000,
        "decided_time_ms": now_ms(),
        "advertiser_id": "adv-1",
    }
    rows = [view, {**view, "revision": 2}, {**view, "touch_type": "click"}, {**view, "outcome": "unattributed"}]
    mark = os.urandom(8)
    ads.produce(ATTRIBUTIONS, [(mark, encode(row)) for row in (*rows, {**view, "touch_record_id": None})])
    publisher_of()
    wait_until("everything is read", lambda: unread("publisher", ATTRIBUTIONS) == 0)
    events = [e for e in ads.read_all(AD_EVENTS) if e["order_id"] == order]
    assert {e["event_id"] for e in events} == {event_id(order_record_id("adv-1", order), 18, 0)}
    assert [(e["event_type"], e["record_id"], e["campaign_id"]) for e in events] == [
        ("post_view_conversion", encode_id(raw), f"c-{raw[0] % 5}")
    ] * 2
    (letter,) = (d for d in ads.read_all(ATTRIBUTIONS_DLQ) if d["key"] == mark)
    assert letter["reason"] == "missing_field"


def test_keys_rotate_while_ad_server_collector_and_publisher_run(local_services: Endpoints, tmp_path: Path) -> None:
    """Each in its own process, with their keys in one file: nothing is refused, and every event arrives."""
    own = {"HEADWATER_HOME": str(tmp_path), "HEADWATER_ADSERVER_STORE_TIMEOUT_MS": "5000"}
    own |= {"HEADWATER_MLFLOW_URL": "http://127.0.0.1:9"}
    (tmp_path / "catalog.json").write_text(dump(catalog([{"id": "a", "pricing": "cpm", "bid_micros": 2_000_000}])))
    (tmp_path / "bidders.json").write_text(dump(Bidders(1, [])))
    own_ads = Ads(Endpoints(home=tmp_path, port_base=local_services.port_base))
    with (
        service("jobs.materializer", local_services.port("materializer_metrics")),  # without it nothing may be spent
        service("serving.adserver", local_services.port("adserver"), **own) as adserver,
        service("serving.collector", local_services.port("collector"), **own) as collector,
        service("jobs.publisher", local_services.port("publisher_metrics"), **own),
        httpx.Client(timeout=30) as http,
    ):
        ring = KeyRing.load(tmp_path / "secrets")
        shown: list[str] = []
        before: list[str] = []

        def show() -> int:
            """Asks for an ad and fires the trackers of the one before it; gives back the id of the ad's key."""
            user = f"user-{len(shown) % 5}"
            answer = http.get(f"{adserver.url}/vast?placement=pl-video&user={user}&device=ctv&country=US&tmax=2000")
            tokens = sorted(set(re.findall(r"/t/([\w-]{76})", answer.text)))
            assert tokens, answer.text
            for token in before:  # at a rotation: minted before it, fired after it
                assert http.post(f"{collector.url}/t/{token}").is_success
            shown.extend(tokens)
            before[:] = tokens
            return key_id(tokens[0])

        for key in (1, 2, 3):
            if key > 1:
                ring.rotate(TOKEN, keep=3)
                ring.rotate(PSEUDONYM)
            wait_until(f"ads are minted under key {key}", lambda key=key: show() == key)
            for _ in range(4):
                assert show() == key
        show()
        shown = [token for token in shown if token not in before]
        wait_until("the collector has delivered everything", lambda: collector_is_empty(collector))
        wait_until("everything is read", drained)
    opened = [TokenOpener(ring).open(token) for token in shown]
    expected = {event_id(c.record_id, c.event_code, c.ordinal) for c in opened}
    ads_shown = {encode_id(claims.record_id) for claims in opened}
    events = [e for e in own_ads.read_all(AD_EVENTS) if e["record_id"] in ads_shown]
    assert {e["event_id"] for e in events} == expected
    assert len(events) == len(expected)
    assert {key_id(token) for token in shown} == {1, 2, 3}
    assert {e["user_pseudonym"].partition(":")[0] for e in events} == {"v1", "v2", "v3"}
    refused = b"".join(letter["raw"] for letter in own_ads.read_all(AD_TELEMETRY_DLQ))
    assert not [token for token in shown if token.encode() in refused]


def key_id(token: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(token)[1:3], "big")


def collector_is_empty(collector: Service) -> bool:
    status = collector.status()
    return status is not None and status["buffered"] == 0


def test_a_backlog_while_valkey_stands_still_costs_no_memory_and_loses_nothing(
    publisher_of: Callable[..., Service], local_services: Endpoints
) -> None:
    """300,000 records wait in Kafka; Valkey takes connections and does not answer."""
    ads = Ads(local_services)  # whose topics begin here
    ids = ads.make(500)
    values, expected = lives(ads, ids)
    repeats = 300_000 // len(values)
    worker = publisher_of()
    wait_until("it is idle", drained)
    valkey = psutil.Process(component_pid(local_services, "valkey"))
    process = psutil.Process(worker.process.pid)
    idle_bytes = process.memory_info().rss
    valkey.send_signal(signal.SIGSTOP)
    try:
        ads.send(values * repeats)
        wait_until("it waits", lambda: (s := worker.status()) and s["waiting_for"])
        waiting = [(time.sleep(0.25), process.memory_info().rss)[1] for _ in range(24)]
    finally:
        valkey.send_signal(signal.SIGCONT)
    peak = max(waiting)
    while not drained():
        peak = max(peak, process.memory_info().rss)
    assert max(waiting) - idle_bytes < 64e6, "while it waits"
    assert peak - idle_bytes < 150e6, "and while it catches up"
    found = found_ids(ads, ids)
    assert found == Counter({each: repeats for each in expected})


def component_pid(where: Endpoints, name: str) -> int:
    state = control.running(where)
    assert state is not None
    pid = state.components[name].pid
    assert pid is not None
    return pid
