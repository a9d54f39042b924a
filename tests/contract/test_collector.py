"""The collector on real services: every door, every refusal, and an outage of the broker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from connectors.endpoints import Endpoints
from connectors.keys import CONVERSIONS, UPSTREAM
from infra.local import control
from schemas.topics import AD_CONVERSIONS, AD_TELEMETRY, AD_TELEMETRY_DLQ
from tests.samples.ingest import Ads, Service, now_ms, service, wait_until

OUTAGE_S = 30
IPINYOU = (
    *("{bid}", "20131021120000250", "1", "Us3r", "Mozilla/5.0 (iPad)", "10.1.2.*", "80", "85", "2", "d0main", "url"),
    *("null", "slot-1", "300", "250", "FirstView", "Na", "20", "cr7", "294", "201", "null", "2821", "null"),
)


@pytest.fixture(scope="module")
def ads(local_services: Endpoints) -> Ads:
    return Ads(local_services)


@pytest.fixture(scope="module")
def collector(local_services: Endpoints) -> Iterator[Service]:
    with service("serving.collector", local_services.port("collector")) as started:
        yield started


@pytest.fixture(scope="module")
def http(collector: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=collector.url, timeout=30) as client:
        yield client


def telemetry_of(ads: Ads, token: str) -> list[dict[str, Any]]:
    return [t for t in ads.read_all(AD_TELEMETRY) if t["token"] == token]


def test_a_device_always_gets_a_2xx(ads: Ads, http: httpx.Client) -> None:
    token = f"t{os.urandom(8).hex()}"
    answer = http.get(f"/t/{token}", params={"ts": "5", "src": "ssai", "pod": "2", "ip": "203.0.113.9"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    pixel = http.get("/t/rubbish", headers={"Accept": "image/avif,image/*"})
    assert (pixel.status_code, len(pixel.content), pixel.headers["content-type"]) == (200, 43, "image/gif")
    for path in ("/t/", "/t/%00%ff", "/t/x?ts=%5BTS%5D", "/t/x?" + "&".join(f"a{i}=1" for i in range(99)), "/t/x?&&=&"):
        assert http.post(path).status_code == 204, path
    (found,) = wait_until("it is in Kafka", lambda: telemetry_of(ads, token))
    assert (found["client_time_ms"], found["source"], found["attributes"]) == (5, "ssai", {"pod": "2"})
    assert abs(found["received_time_ms"] - now_ms()) < 600_000


def test_batches_are_durable_when_answered_and_say_what_was_refused(ads: Ads, http: httpx.Client) -> None:
    token = f"t{os.urandom(8).hex()}"
    answer = http.post(
        "/v1/telemetry", json=[{"token": token, "ts": 7}, {"event": "x"}, 3, {"token": token, "ts": "z"}]
    )
    said = answer.json()
    assert (answer.status_code, said["durable"], said["accepted"], said["refused"]) == (200, True, 1, 3)
    assert [r.get("reason") for r in said["results"]] == [None, "missing_field", "bad_value", "bad_value"]
    assert said["results"][1]["path"] == "$[1]"
    assert len(telemetry_of(ads, token)) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v1/telemetry", b"x" * 5_000_000, 413, "too_large"),
        ("/v1/telemetry", b'[{"token"', 400, "bad_json"),
        ("/v1/telemetry", b'{"token": "x"}', 400, "bad_json"),
        ("/v1/telemetry", b"[" + b'{"token":"x"},' * 1_000 + b'{"token":"x"}]', 413, "too_large"),
        ("/v1/conversions", b"[]", 401, "api_key"),
        ("/v1/logs/ipinyou-click", b"", 401, "api_key"),
        ("/v2/anything", b"", 404, "not_found"),
    ],
)
def test_refusals_of_whole_requests(http: httpx.Client, path: str, body: bytes, status: int, error: str) -> None:
    answer = http.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_conversions_carry_no_identifier(ads: Ads, http: httpx.Client) -> None:
    order = f"o{os.urandom(4).hex()}"
    items = [{"order_id": order, "advertiser_id": "a", "email": "Me@Home.example", "value_micros": 5, "note": "hi"}]
    answer = http.post("/v1/conversions", json=items, headers={"X-Api-Key": ads.ring.api_key(CONVERSIONS)})
    assert answer.json()["accepted"] == 1
    (found,) = (c for c in ads.read_all(AD_CONVERSIONS) if c["order_id"] == order)
    assert found["user_pseudonym"] == ads.ring.pseudonym("me@home.example")
    assert "home.example" not in json.dumps(found).lower()


def test_malformed_lines_are_dead_letters_with_file_and_line(ads: Ads, http: httpx.Client) -> None:
    origin = f"log-{os.urandom(4).hex()}.tsv"
    good = "\t".join(IPINYOU).format(bid=f"{origin}-bid")
    lines = [good.encode(), b"Us3r\t10.1.2.3\tbroken", b"\xff\xfe", good.replace("201", "2O1").encode()]
    headers = {
        "X-Api-Key": ads.ring.api_key(UPSTREAM),
        "X-Origin": origin,
        "X-First-Line": "41",
        "X-Rebase": f"1382328000000,{now_ms()},10",
    }
    answer = http.post("/v1/logs/ipinyou-impression", content=b"\n".join(lines) + b"\n", headers=headers)
    said = answer.json()
    assert (answer.status_code, said["lines"], said["accepted"], said["refused"]) == (200, 4, 1, 3)
    assert [r["line"] for r in said["refusals"]] == [42, 43, 44]
    letters = {d["origin"]: d for d in ads.read_all(AD_TELEMETRY_DLQ) if (d["origin"] or "").startswith(origin)}
    assert sorted(letters) == [f"{origin}:{n}" for n in (42, 43, 44)]
    for letter in letters.values():
        assert (letter["reason"], letter["raw"], letter["job"]) == ("malformed_line", b"", "collector")
        assert "Us3r" not in letter["detail"]
    (found,) = (t for t in ads.read_all(AD_TELEMETRY) if t["upstream_id"] == f"{origin}-bid")
    assert found["origin"] == f"{origin}:41"
    assert found["user_pseudonym"] == ads.ring.pseudonym("Us3r")
    assert found["household_pseudonym"] == ads.ring.household("10.1.2.*")
    assert found["attributes"]["original_time_ms"] == "1382328000250"
    for broken in ({"X-Origin": "../etc"}, {"X-First-Line": "one"}, {"X-Rebase": "1,2"}):
        refused = http.post("/v1/logs/ipinyou-click", content=b"", headers={**headers, **broken})
        assert refused.status_code == 400


def test_logs_with_our_tokens_are_telemetry(ads: Ads, http: httpx.Client) -> None:
    mark = os.urandom(6).hex()
    pixels = [
        f'203.0.113.9 - - [29/May/2026:14:00:00 +0200] "GET /t/{mark}-pixel?slot=top&email=a@b.c HTTP/1.1" 204 0',
        '203.0.113.9 - - [29/May/2026:14:00:00 +0200] "GET /robots.txt HTTP/1.1" 200 9',
        "rubbish",
    ]
    beacons = {"time_ms": 1_780_056_000_000, "pod": 2, "beacons": []}
    beacons["beacons"] = [{"token": f"{mark}-{n}", "event": "start", "offset_ms": n} for n in range(3)]
    headers = {"X-Api-Key": ads.ring.api_key(UPSTREAM), "X-Origin": f"{mark}.log"}
    answer = http.post("/v1/logs/display-logger", content="\n".join(pixels), headers=headers).json()
    assert (answer["lines"], answer["events"], answer["refused"]) == (3, 1, 1)
    answer = http.post("/v1/logs/ssai", content=json.dumps(beacons), headers=headers).json()
    assert (answer["lines"], answer["events"], answer["refused"]) == (1, 3, 0)
    found = {t["token"]: t for t in ads.read_all(AD_TELEMETRY) if (t["token"] or "").startswith(mark)}
    assert len(found) == 4
    pixel, last = found[f"{mark}-pixel"], found[f"{mark}-2"]
    assert (pixel["source"], pixel["attributes"], pixel["origin"]) == (
        "display_logger",
        {"slot": "top"},
        f"{mark}.log:1",
    )
    assert (last["source"], last["client_event"], last["attributes"]) == ("ssai", "start", {"pod": "2"})
    assert (pixel["client_time_ms"], last["client_time_ms"]) == (1_780_056_000_000, 1_780_056_000_002)


def test_nothing_accepted_is_lost_while_the_broker_stands_still(
    ads: Ads, local_services: Endpoints, http: httpx.Client
) -> None:
    """The broker is stopped for 30 s in traffic: devices go on getting 204, batches 202, and all of it arrives."""
    state = control.running(local_services)
    assert state is not None
    broker = state.components["kafka"].pid
    assert broker is not None
    mark = os.urandom(6).hex()
    sent: list[str] = []

    def traffic(until_s: float) -> None:
        while time.monotonic() < until_s:
            token = f"{mark}-{len(sent)}"
            assert http.get(f"/t/{token}").status_code == 204
            sent.append(token)
            time.sleep(0.01)

    traffic(time.monotonic() + 1)
    os.kill(broker, signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()
        traffic(stopped_s + 2)
        answer = http.post("/v1/telemetry", json=[{"token": f"{mark}-batch"}])
        assert (answer.status_code, answer.json()["durable"]) == (202, False)
        sent.append(f"{mark}-batch")
        traffic(stopped_s + OUTAGE_S)
    finally:
        os.kill(broker, signal.SIGCONT)
    traffic(time.monotonic() + 1)
    wait_until("the buffer is empty", lambda: http.get("/status").json()["buffered"] == 0)
    arrived = [t["token"] for t in ads.read_all(AD_TELEMETRY) if (t["token"] or "").startswith(mark)]
    assert len(sent) > 500
    assert sorted(arrived) == sorted(sent)


def test_it_starts_without_the_schema_registry_once_it_knew_its_ids(
    local_services: Endpoints, collector: Service, http: httpx.Client
) -> None:
    """And a stop sends what is buffered."""
    assert http.get("/t/last").status_code == 204
    assert collector.stop() == 0
    with service(
        "serving.collector", local_services.port("collector"), HEADWATER_REGISTRY_URL="http://127.0.0.1:9/none"
    ) as again:
        assert httpx.get(f"{again.url}/t/x").status_code == 204
        assert again.stop() == 0
