"""The event handler on real services and real partners over HTTP: outages, kills, refusals, each call exactly once."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from connectors.endpoints import Endpoints
from connectors.http_messages import Response
from connectors.kafka import lag, producer
from connectors.records import encoder
from connectors.valkey import Valkey
from infra.local import control
from infra.local.stack import COMPONENTS
from schemas.catalog import Partner as Row
from schemas.catalog import Partners
from schemas.catalog_text import dump
from schemas.events import BY_NAME
from schemas.ids import encode_id, event_id, tracker_call_id
from schemas.redis_layout import registry_key
from schemas.registry_record import AdRecord
from schemas.topics import AD_EVENTS, TRACKER_CALLS, TRACKER_CALLS_DLQ
from tests.samples.faults import ROUNDS, rng_of
from tests.samples.ingest import Ads, Service, now_ms, service, wait_until
from tests.samples.partners import Partner, partner
from tests.samples.stream_io import complete

#: The ordinary code path, with pauses of a test instead of a day's.
QUICK = {
    "HEADWATER_VENDORS_ALLOW_PRIVATE": "true",
    "HEADWATER_VENDORS_FIRST_PAUSE_S": "0.05",
    "HEADWATER_VENDORS_LONGEST_PAUSE_S": "0.5",
    "HEADWATER_VENDORS_COMMIT_S": "0.2",
    "HEADWATER_VENDORS_RETRY_S": "0.1",
}
IN_FLIGHT = 8


class Campaign:
    """Writes ads with trackers to the registry, and their events to ad-events-v1."""

    def __init__(self, where: Endpoints) -> None:
        self._where = where
        self.ads = Ads(where)
        self._encode = encoder(AD_EVENTS, self.ads.registry)

    def make(self, count: int, trackers: Mapping[str, Sequence[str]], **fields: Any) -> list[str]:
        """Record ids of new ads."""
        records = [
            AdRecord(
                record_id=encode_id(os.urandom(16)),
                request_id="req",
                imp_id="1",
                advertiser_id="adv",
                campaign_id="cmp",
                creative_id="cr-1",
                decision_time_ms=now_ms(),
                trackers={event: list(urls) for event, urls in trackers.items()},
                **fields,
            )
            for _ in range(count)
        ]
        with Valkey(self._where.valkey_url) as valkey:
            valkey.pipeline([("SET", registry_key(r.record_id), r.to_bytes(), "EX", 3_600) for r in records])
        return [r.record_id for r in records]

    def happen(self, record_ids: Sequence[str], event: str = "impression", **fields: Any) -> None:
        """The event of each ad, written."""
        made = producer("test-events")
        for record_id in record_ids:
            now = now_ms()
            value = complete(
                {
                    "event_id": event_of(record_id, event),
                    "record_id": record_id,
                    "event_type": event,
                    "event_time_ms": now,
                    "received_time_ms": now,
                    "published_time_ms": now,
                    "source": "video_player",
                    "request_id": "req",
                    "imp_id": "1",
                    "advertiser_id": "adv",
                    "campaign_id": "cmp",
                    "creative_id": "cr-1",
                    "pricing": "cpm",
                    "cost_micros": 0,
                    "currency": "USD",
                    **fields,
                }
            )
            made.produce(AD_EVENTS.name, self._encode(value), record_id.encode())
            made.poll(0)
        assert made.flush(60) == 0


def event_of(record_id: str, event: str = "impression") -> bytes:
    from schemas.ids import decode_id

    return event_id(decode_id(record_id), BY_NAME[event].code, 0)


def keys(record_ids: Sequence[str], url: str, event: str = "impression") -> set[str]:
    """Idempotency keys that a partner must be told of."""
    return {tracker_call_id(event_of(r, event), url) for r in record_ids}


@pytest.fixture(scope="module")
def campaign(local_services: Endpoints) -> Campaign:
    return Campaign(local_services)


@contextmanager
def vendors(where: Endpoints, rows: Sequence[Row] = (), worker: int = 0, **environment: str) -> Iterator[Service]:
    """A worker that is ready. It ends in order, so that no call to a partner of this test is left to the next one."""
    where.partners_path.write_text(dump(Partners(1, list(rows))))
    port = where.port("vendors_metrics") + 500 * worker
    own = {"HEADWATER_VENDORS_WORKER": str(worker), "HEADWATER_VENDORS_METRICS_PORT": str(port)}
    with service("jobs.vendors", port, **QUICK, **own, **environment) as started:
        yield started
        assert started.stop() == 0


def row(name: str, at: Partner, **limits: Any) -> Row:
    return Row(name, [f"127.0.0.1:{at.port}"], **{"max_per_s": 5_000, "max_in_flight": IN_FLIGHT} | limits)


def has_all(at: Partner, expected: set[str]) -> bool:
    return expected <= at.taken.keys()


def test_each_tracker_is_called_once_and_says_what_it_may(campaign: Campaign, local_services: Endpoints) -> None:
    with ExitStack() as stack:
        one, two, strict = (stack.enter_context(partner()) for _ in range(3))
        url = f"{one.url}/i?t=[TIMESTAMP]&s=[SERVERSIDE]&ip=[DEVICEIP]&ad=[ADSERVINGID]&own=[OURS]&e=[ERRORCODE]"
        trackers = {"impression": [url, f"{two.url}/i", f"{strict.url}/i", url], "click": [f"{one.url}/c"]}
        device = {
            "device_ip": "198.51.100.0",
            "device_user_agent": "TV/1 \r\nX-Evil: 1",
            "device_language": "de",
            "device_referer": "https://watch.example/",
            "device_app": "tv.example",
        }
        known, unknown = campaign.make(1, trackers, **device)[0], campaign.make(1, trackers)[0]
        (bare,) = campaign.make(1, {})
        rows = [
            row("one", one, headers={"X-Account": "42"}),
            row("strict", strict, consent_required=True, valid_traffic_only=True),
        ]
        stack.enter_context(vendors(local_services, rows))
        happened = {"event_time_ms": 1_767_614_400_123, "received_time_ms": 1_767_614_400_123}
        campaign.happen([known, known, bare], **happened)
        campaign.happen([unknown], consent={"opt_out": "1"})
        broken, suspect = campaign.make(2, trackers)
        campaign.happen([broken], cost_micros=-1)  # the stream refuses it
        campaign.happen([suspect], quality_reasons=["ivt_data_center"])
        campaign.happen([known], "click")
        campaign.happen([known], "complete")
        wait_until("all are told", lambda: len(one.heard) == 4 and len(two.heard) == 3 and len(strict.heard) == 1)
        campaign.happen([known])  # a beacon that comes once more
        (late,) = campaign.make(1, trackers)
        campaign.happen([late])
        for place, tracker in ((one, url), (two, f"{two.url}/i"), (strict, f"{strict.url}/i")):
            told = keys([late], tracker)
            wait_until("a later one is told", lambda place=place, told=told: has_all(place, told))  # type: ignore[misc]
    assert one.taken == Counter({*keys([known, unknown, suspect, late], url), *keys([known], f"{one.url}/c", "click")})
    assert two.taken == Counter(keys([known, unknown, suspect, late], f"{two.url}/i"))
    assert strict.taken == Counter(keys([known, late], f"{strict.url}/i")), "not of users who opted out, nor of robots"
    by_key = {h.key: h for h in one.heard}
    (key,) = keys([known], url)
    full = by_key[key]
    assert full.query == (f"t=2026-01-05T12%3A00%3A00.123Z&s=1&ip=198.51.100.0&ad={known}&own=%5BOURS%5D&e=-1".encode())
    assert {name: full.headers[name] for name in full.headers if name.startswith(b"x-")} == {
        b"x-device-ip": b"198.51.100.0",
        b"x-device-user-agent": b"TV/1 ??X-Evil: 1",
        b"x-device-accept-language": b"de",
        b"x-device-referer": b"https://watch.example/",
        b"x-device-requested-with": b"tv.example",
        b"x-account": b"42",
    }
    (key,) = keys([unknown], url)
    assert b"&ip=-2&" in by_key[key].query
    assert not [name for name in by_key[key].headers if name.startswith(b"x-device")]
    assert b"x-account" not in two.heard[0].headers


def test_a_partner_that_is_away_holds_up_nobody_and_misses_nothing(
    campaign: Campaign, local_services: Endpoints
) -> None:
    """Three kinds of outage at once, with a memory of 40 calls for each partner: the rest waits in Kafka."""
    with ExitStack() as stack:
        well, failing, hanging, gone = (stack.enter_context(partner()) for _ in range(4))
        failing.status = 503
        hanging.status, hanging.delay_s = 503, 600.0
        gone.close()
        places = (well, failing, hanging, gone)
        rows = [row(n, p, timeout_ms=400) for n, p in zip(("well", "fails", "hangs", "gone"), places, strict=True)]
        worker = stack.enter_context(vendors(local_services, rows, HEADWATER_VENDORS_LANE_CALLS="40"))
        ads = campaign.make(400, {"impression": [f"{p.url}/i" for p in places]})
        expected = {p.port: keys(ads, f"{p.url}/i") for p in places}
        campaign.happen(ads)
        wait_until("the one that is well has all", lambda: has_all(well, expected[well.port]))
        more = campaign.make(50, {"impression": [f"{well.url}/i"]})
        campaign.happen(more)
        wait_until("and goes on having all", lambda: has_all(well, keys(more, f"{well.url}/i")))

        def partners() -> dict[str, dict[str, Any]]:
            status = worker.status()
            return status["partners"] if status else {}

        wait_until("the others are probed", lambda: all(partners()[n]["down"] for n in ("fails", "hangs", "gone")))
        assert all(partners()[n]["behind"] and partners()[n]["in_memory"] <= 40 for n in ("fails", "hangs", "gone"))
        assert not failing.taken and not hanging.taken and not gone.taken
        asked = len(failing.heard)
        time.sleep(2.0)
        assert len(failing.heard) - asked <= 20, "a partner that is down is only probed"
        failing.status = 204
        hanging.status, hanging.delay_s = 204, 0.0
        gone.open()
        for place in (failing, hanging, gone):
            wait_until("it gets what it missed", lambda place=place: has_all(place, expected[place.port]))  # type: ignore[misc]
        wait_until("all is committed", lambda: lag("vendors-calls", TRACKER_CALLS.name) == 0)
    assert well.taken == Counter(expected[well.port] | keys(more, f"{well.url}/i"))
    for place in (failing, hanging, gone):
        assert place.taken == Counter(expected[place.port]), "each once"


def test_nothing_is_lost_when_it_is_killed_and_repeats_have_their_key(
    campaign: Campaign, local_services: Endpoints
) -> None:
    """Killed in mid-traffic, while one partner is away. A call on the wire at a kill may come twice."""
    draw = rng_of("vendors")
    with ExitStack() as stack:
        well, away = stack.enter_context(partner()), stack.enter_context(partner())
        well.delay_s = away.delay_s = 0.002
        away.status = 500
        rows = [row("well", well), row("away", away)]
        worker = stack.enter_context(vendors(local_services, rows, HEADWATER_VENDORS_LANE_CALLS="100"))
        ads: list[str] = []
        for round_ in range(ROUNDS):
            more = campaign.make(500, {"impression": [f"{well.url}/i", f"{away.url}/i"]})
            ads += more
            kill_at = len(well.heard) + draw.randrange(10, 400)
            campaign.happen(more)
            wait_until("it calls", lambda kill_at=kill_at: len(well.heard) > kill_at)  # type: ignore[misc]
            worker.kill()
            if round_ == ROUNDS - 1:
                away.status = 204
            worker.restart()
            wait_until("the next one is ready", worker.status)
        for place in (well, away):
            wait_until("everything arrives", lambda place=place: has_all(place, keys(ads, f"{place.url}/i")))  # type: ignore[misc]
        wait_until("all is committed", lambda: lag("vendors-calls", TRACKER_CALLS.name) == 0)
        with Valkey(local_services.valkey_url) as valkey:
            left = valkey.call("KEYS", "t:*")  # of a worker that was killed between its commit and tidying up
            assert all(valkey.call("TTL", key) > 0 for key in left), "kept for ever"
    for place in (well, away):
        expected = keys(ads, f"{place.url}/i")
        assert place.taken.keys() == expected
        assert place.taken.total() - len(expected) <= ROUNDS * IN_FLIGHT, "answered, and not yet written down"


def test_refused_and_unsafe_calls_are_dead_letters_that_can_be_replayed(
    campaign: Campaign, local_services: Endpoints
) -> None:
    with partner() as place, vendors(local_services, [row("place", place)]):
        urls = [f"{place.url}/{path}" for path in ("gone", "leads-away", "loops", "ok")]
        place.answers = {
            "/gone": [Response(404)],
            "/leads-away": [Response(302, headers=(("Location", "ftp://elsewhere.example/"),))],
            "/loops": [Response(302, headers=(("Location", "/loops"),)) for _ in range(9)],
        }
        (ad,) = campaign.make(1, {"impression": [*urls, "ftp://files.example/i", "not a url"]})
        campaign.happen([ad])

        def letters() -> list[dict[str, Any]]:
            found = campaign.ads.read_all(TRACKER_CALLS_DLQ)
            return [d for d in found if ad.encode() in d["raw"]]

        found = wait_until("all are refused", lambda: letters() if len(letters()) == 5 else None)
        reasons = Counter((d["key"], d["reason"]) for d in found)
        assert reasons == {
            (b"place", "partner_refused"): 2,
            (b"place", "unsafe_url"): 1,
            (b"-", "unsafe_url"): 2,
        }
        assert place.taken.keys() >= keys([ad], urls[3])
        (gone,) = (d for d in found if b"/gone" in d["raw"])
        assert (gone["detail"], gone["source_topic"]) == ("status 404", TRACKER_CALLS.name) and gone["offset"] >= 0
        again = producer("test-replay")
        again.produce(TRACKER_CALLS.name, gone["raw"], gone["key"])
        assert again.flush(10) == 0
        wait_until("it is taken this time", lambda: has_all(place, keys([ad], urls[0])))


def test_a_partner_is_waited_for_as_long_as_it_asks(campaign: Campaign, local_services: Endpoints) -> None:
    with partner() as place, vendors(local_services, [row("place", place)]):
        place.answers = {
            "/busy": [Response(429, headers=(("Retry-After", "2"),))],
            "/moved": [Response(301, headers=(("Location", f"{place.url}/here"),))],
        }
        urls = [f"{place.url}/busy", f"{place.url}/moved"]
        (ad,) = campaign.make(1, {"impression": urls[:1], "click": urls[1:]})
        campaign.happen([ad])
        wait_until("it is busy", lambda: place.heard)
        campaign.happen([ad], "click")
        wait_until("both are told", lambda: len(place.taken) == 2)
    asked, *later = place.heard
    assert (asked.path, asked.status) == ("/busy", 429)
    assert all(h.at_s - asked.at_s >= 2.0 for h in later), "the wait holds for all calls of the partner"
    assert sorted(h.path for h in later) == ["/busy", "/here", "/moved"]
    assert {h.key for h in later if h.path != "/busy"} == keys([ad], urls[1], "click"), "a redirect keeps its key"


def test_a_call_that_nobody_takes_in_time_is_a_dead_letter(campaign: Campaign, local_services: Endpoints) -> None:
    with partner() as place, vendors(local_services, [row("place", place)], HEADWATER_VENDORS_MAX_AGE_S="1.5"):
        place.status = 500
        (ad,) = campaign.make(1, {"impression": [f"{place.url}/i"]})
        campaign.happen([ad])

        def letters() -> list[dict[str, Any]]:
            return [d for d in campaign.ads.read_all(TRACKER_CALLS_DLQ) if ad.encode() in d["raw"]]

        (letter,) = wait_until("it is given up", letters)
    assert letter["reason"] == "partner_exhausted"
    assert len(place.heard) >= 2


def test_private_networks_are_not_called(campaign: Campaign, local_services: Endpoints) -> None:
    environment = {**QUICK, "HEADWATER_VENDORS_ALLOW_PRIVATE": "false"}
    local_services.partners_path.unlink(missing_ok=True)
    with partner() as place, service("jobs.vendors", local_services.port("vendors_metrics"), **environment):
        (ad,) = campaign.make(1, {"impression": [f"{place.url}/i", f"http://localhost:{place.port}/i"]})
        campaign.happen([ad])

        def letters() -> list[dict[str, Any]]:
            return [d for d in campaign.ads.read_all(TRACKER_CALLS_DLQ) if ad.encode() in d["raw"]]

        found = wait_until("both are refused", lambda: letters() if len(letters()) == 2 else None)
    assert {d["reason"] for d in found} == {"unsafe_url"}
    assert not place.heard


def test_while_valkey_is_away_nothing_is_called_and_then_everything(
    campaign: Campaign, local_services: Endpoints
) -> None:
    with partner() as place, vendors(local_services, [row("place", place)]) as worker:
        ads = campaign.make(50, {"impression": [f"{place.url}/i"]})
        control.down(local_services, ["valkey"])
        campaign.happen(ads)
        wait_until("the worker waits", lambda: (s := worker.status()) and s["waiting_for"])
        time.sleep(1.0)
        assert not place.heard
        control.up(local_services, COMPONENTS, ["valkey"], timeout_s=60)
        wait_until("everything arrives", lambda: has_all(place, keys(ads, f"{place.url}/i")))
    assert place.taken == Counter(keys(ads, f"{place.url}/i"))


def test_a_second_worker_takes_its_share_and_gives_it_back(campaign: Campaign, local_services: Endpoints) -> None:
    with ExitStack() as stack:
        places = [stack.enter_context(partner()) for _ in range(4)]
        for place in places:
            place.delay_s = 0.01
        rows = [row(f"p{i}", place) for i, place in enumerate(places)]
        stack.enter_context(vendors(local_services, rows))
        ads = campaign.make(900, {"impression": [f"{p.url}/i" for p in places]})
        campaign.happen(ads[:300])
        with vendors(local_services, rows, worker=1):
            campaign.happen(ads[300:600])
            time.sleep(1.0)
        campaign.happen(ads[600:])
        for place in places:
            wait_until("everything arrives", lambda place=place: has_all(place, keys(ads, f"{place.url}/i")))  # type: ignore[misc]
        wait_until("all is committed", lambda: lag("vendors-calls", TRACKER_CALLS.name) == 0)
    for place in places:
        assert place.taken == Counter(keys(ads, f"{place.url}/i"))
