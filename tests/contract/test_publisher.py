"""The publisher on real services: reasons for bad records, exactly once through kills, outages waited for."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from connectors.endpoints import Endpoints
from connectors.kafka import lag
from connectors.keys import KeyRing
from connectors.tokens import TokenMinter
from infra.local import control
from infra.local.stack import COMPONENTS
from jobs.streaming.progress import unread
from schemas.codec import Encoder
from schemas.errors import RejectReason
from schemas.ids import encode_id
from schemas.topics import AD_EVENTS, AD_TELEMETRY, AD_TELEMETRY_DLQ
from tests.samples.faults import PAUSE_S, ROUNDS, rng_of
from tests.samples.ingest import Ads, Service, lives, now_ms, service, wait_until

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def ads(local_services: Endpoints) -> Ads:
    return Ads(local_services)


@pytest.fixture
def publisher(local_services: Endpoints) -> Iterator[Service]:
    with service("jobs.publisher", local_services.port("publisher_metrics")) as started:
        yield started


def drained() -> bool:
    return unread("publisher", AD_TELEMETRY) == 0


def events_of(ads: Ads, ids: list[bytes]) -> list[dict[str, object]]:
    wanted = {encode_id(raw) for raw in ids}
    return [e for e in ads.read_all(AD_EVENTS) if e["record_id"] in wanted]


def test_each_bad_record_gets_its_reason_and_the_good_ones_pass(
    ads: Ads, publisher: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (known,) = ads.make(1)
    token = ads.token(known)
    other_ring = KeyRing.load(tmp_path_factory.mktemp("other") / "secrets")
    good = ads.telemetry(token)
    unknown_key = TokenMinter(other_ring)
    for _ in range(9):
        other_ring.rotate("token")
    bad = {
        RejectReason.TOKEN_FORGED: ads.telemetry(token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")),
        RejectReason.TOKEN_MALFORMED: ads.telemetry("rubbish"),
        RejectReason.TOKEN_UNKNOWN_KEY: ads.telemetry(unknown_key.mint(known, 1, 0, 0, 60)),
        RejectReason.REGISTRY_MISS: ads.telemetry(ads.token(os.urandom(16))),
        RejectReason.MISSING_FIELD: ads.telemetry(None),
        RejectReason.ABSURD_TIME: ads.telemetry(token, client_time_ms=now_ms() - 30 * DAY_MS),
        RejectReason.UNKNOWN_EVENT: ads.telemetry(TokenMinter(ads.ring).mint(known, 250, 0, now_ms() // 1000, 60)),
        RejectReason.UNKNOWN_SCHEMA: b"\x00" + (999_999).to_bytes(4, "big") + good[5:],
        RejectReason.UNDECODABLE: good[:5] + b"\xff" * 20,
    }
    mark = os.urandom(8)
    ads.send([*bad.values(), good[:-1], b"no header at all"], key=mark)
    ads.send([good])
    wait_until("the publisher has read everything", drained)
    letters = [d for d in ads.read_all(AD_TELEMETRY_DLQ) if d["key"] == mark]
    assert Counter(d["reason"] for d in letters) == Counter([*map(str, bad), "undecodable", "undecodable"])
    by_reason = {d["reason"]: d for d in letters if d["reason"] != "undecodable"}
    for reason, value in bad.items():
        if reason is not RejectReason.UNDECODABLE:
            assert by_reason[reason]["raw"] == value, "a dead letter can be replayed"
            assert by_reason[reason]["offset"] >= 0
            assert token not in by_reason[reason]["detail"]
    (event,) = events_of(ads, [known])
    assert (event["event_type"], event["cost_micros"]) == ("impression", 2_500)
    status = publisher.status()
    assert status is not None
    assert publisher.stop() == 0


def test_a_dead_letter_of_an_unknown_ad_can_be_replayed(ads: Ads, publisher: Service) -> None:
    raw = os.urandom(16)
    mark = os.urandom(8)
    ads.send([ads.telemetry(ads.token(raw))], key=mark)
    wait_until("the publisher has read it", drained)
    (letter,) = (d for d in ads.read_all(AD_TELEMETRY_DLQ) if d["key"] == mark)
    assert letter["reason"] == "registry_miss"
    ads.write([raw])
    ads.send([letter["raw"]], key=letter["key"])
    wait_until("the publisher has read it", drained)
    assert len(events_of(ads, [raw])) == 1


def test_nothing_is_lost_or_doubled_when_it_is_killed_in_traffic(ads: Ads, local_services: Endpoints) -> None:
    draw, struck = rng_of("publisher"), 0
    ids: list[bytes] = []
    expected: set[bytes] = set()
    with service(
        "jobs.publisher",
        local_services.port("publisher_metrics"),
        HEADWATER_PUBLISHER_BATCH_RECORDS="500",
    ) as worker:
        for _ in range(max(ROUNDS, 5)):
            shown = ads.make(650)
            values, of_them = lives(ads, shown)
            ids += shown
            expected |= of_them
            ads.send(values)
            time.sleep(draw.uniform(0, 0.2))
            worker.kill()
            struck += not drained()
            worker.restart()
            wait_until("the next worker is ready", worker.status)
        wait_until("everything is read", drained, 180)
        assert struck > 1, "it was killed when it had nothing to do"
        assert worker.stop() == 0
    found = events_of(ads, ids)
    assert {e["event_id"] for e in found} == expected
    assert len(found) == len(expected), "no event twice"
    assert sum(e["cost_micros"] for e in found) == 2_500 * len(ids)  # type: ignore[misc]


def test_it_stands_still_while_another_goes_on(ads: Ads, local_services: Endpoints) -> None:
    """Stopped with a transaction open, for longer than its successor needs; when it wakes up, it may write no more.

    It may take its successor's membership of the group first, whereupon that one ends and is started again.
    """
    ids = ads.make(2_000)
    values, expected = lives(ads, ids)
    port = local_services.port("publisher_metrics")
    other = port + 500
    with service("jobs.publisher", port, HEADWATER_PUBLISHER_BATCH_RECORDS="500") as first:
        ads.send(values[: len(values) // 2])
        wait_until("it has begun", lambda: lag("publisher", AD_TELEMETRY.name) < len(values) // 2)
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            ads.send(values[len(values) // 2 : -500])
            with service("jobs.publisher", other, HEADWATER_PUBLISHER_METRICS_PORT=str(other)) as second:

                def all_read() -> bool:
                    if second.process.poll() is not None:
                        second.restart()
                    return drained()

                time.sleep(PAUSE_S)
                os.kill(first.process.pid, signal.SIGCONT)  # it ends when it wants to write, which may be never
                wait_until("everything is read", all_read, 180)
                first.kill()
                ads.send(values[-500:])
                wait_until("the successor has read what came after", all_read, 180)
                assert second.stop() == 0
        finally:
            if first.process.poll() is None:
                os.kill(first.process.pid, signal.SIGCONT)
    found = events_of(ads, ids)
    assert {e["event_id"] for e in found} == expected
    assert len(found) == len(expected), "no event twice"


def test_it_stands_still_alone(ads: Ads, local_services: Endpoints) -> None:
    """Stopped for longer or shorter than its transaction lives; the supervisor starts it again if it gives up."""
    ids = ads.make(1_000)
    values, expected = lives(ads, ids)
    with service(
        "jobs.publisher", local_services.port("publisher_metrics"), HEADWATER_PUBLISHER_BATCH_RECORDS="200"
    ) as worker:
        for start in range(0, len(values), 2_000):
            ads.send(values[start : start + 2_000])
            os.kill(worker.process.pid, signal.SIGSTOP)
            time.sleep(PAUSE_S / 3)
            os.kill(worker.process.pid, signal.SIGCONT)

        def all_read() -> bool:
            if worker.process.poll() is not None:
                worker.restart()
            return drained()

        wait_until("everything is read", all_read, 180)
    found = events_of(ads, ids)
    assert {e["event_id"] for e in found} == expected
    assert len(found) == len(expected), "no event twice"


def test_a_second_instance_of_the_same_worker_ends_the_first(ads: Ads, local_services: Endpoints) -> None:
    port = local_services.port("publisher_metrics")
    other = str(port + 500)
    with (
        service("jobs.publisher", port) as first,
        service("jobs.publisher", int(other), HEADWATER_PUBLISHER_METRICS_PORT=other) as second,
    ):
        ids = ads.make(20)
        values, expected = lives(ads, ids)
        ads.send(values)
        assert first.process.wait(60) != 0
        wait_until("the second has read everything", drained)
        assert second.process.poll() is None
    assert sorted(e["event_id"] for e in events_of(ads, ids)) == sorted(expected)  # type: ignore[type-var]


@pytest.mark.parametrize("component", ["valkey", "registry"])
def test_an_outage_is_waited_for_and_nothing_is_refused(ads: Ads, local_services: Endpoints, component: str) -> None:
    """The records are of ads that the worker has not seen, and carry a schema id that it has not seen either."""
    ids = ads.make(50)
    values, expected = lives(ads, ids)
    refused_before = len(ads.read_all(AD_TELEMETRY_DLQ))
    with service("jobs.publisher", local_services.port("publisher_metrics")) as worker:
        control.down(local_services, [component])
        ads.send(values)
        waiting = wait_until("the worker waits", lambda: (s := worker.status()) and s["waiting_for"])
        assert component in waiting
        time.sleep(3)
        control.up(local_services, COMPONENTS, [component], timeout_s=120)
        wait_until("everything is read", drained)
    found = events_of(ads, ids)
    assert sorted(e["event_id"] for e in found) == sorted(expected)  # type: ignore[type-var]
    assert len(ads.read_all(AD_TELEMETRY_DLQ)) == refused_before


def test_an_encoder_of_another_topic_is_undecodable_here(ads: Ads, publisher: Service) -> None:
    schema_id, _text = ads.registry.latest("campaign-spend-v1-value")
    mark = os.urandom(8)
    spend = {"campaign_id": "c", "day": "20261122", "spend_micros": 1}
    ads.send([Encoder("campaign_spend", schema_id)(spend)], key=mark)
    wait_until("the publisher has read it", drained)
    (letter,) = (d for d in ads.read_all(AD_TELEMETRY_DLQ) if d["key"] == mark)
    assert (letter["reason"], letter["schema_id"]) == ("undecodable", schema_id)
