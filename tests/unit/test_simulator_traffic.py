"""What the simulated player reads, does and writes down; no sockets."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from infra.simulator import dsps
from infra.simulator.behaviour import GENUINE, Faults, Shot, click_probability, expired_shot, forge, plan
from infra.simulator.ledger import CampaignTotals, Ledger, read_truth, read_truths
from infra.simulator.requests import openrtb_request, read_openrtb, vast_path
from infra.simulator.vast import ShownAd, Tracker, UnreadableAd, read_vast
from infra.simulator.world import build_world
from schemas.errors import RejectReason
from schemas.events import BY_NAME, CLOCK_AHEAD_MS, LATENESS_MS, OLDEST_MS

TOKEN = "AQAB" + "x" * 72
DOOR = "http://127.0.0.1:1/t/"
EVENTS = ("impression", "viewable", "start", "first_quartile", "midpoint", "third_quartile", "complete")
AD = ShownAd(
    record_id="r" * 22,
    advertiser_id="adv-01",
    campaign_id="cmp-011",
    line_item_id="li-011",
    creative_id="cr-0111",
    pricing="cpm",
    currency="USD",
    impression_cost_micros=2512,
    click_cost_micros=0,
    duration_s=15,
    trackers=(
        *(Tracker(e, 0, DOOR + TOKEN) for e in (*EVENTS, "click", "skip", "mute", "error", "engage")),
        *(Tracker("progress", p, DOOR + TOKEN) for p in range(10, 101, 10)),
    ),
)
CALM = Faults(*[0.0] * 9, detailed_player=1.0)

VAST = f"""<VAST version="4.2" xmlns="http://www.iab.com/VAST"><Ad id="{AD.record_id}"><InLine>
<Impression id="headwater"><![CDATA[{DOOR}imp]]></Impression>
<Pricing model="{{model}}" currency="USD"><![CDATA[{{price}}]]></Pricing>
<ViewableImpression id="headwater"><Viewable><![CDATA[{DOOR}view]]></Viewable></ViewableImpression>
<Error><![CDATA[{DOOR}err?code=[ERRORCODE]]]></Error>
<Creatives><Creative><Linear><Duration>00:00:30</Duration><TrackingEvents>
<Tracking event="start"><![CDATA[{DOOR}start]]></Tracking>
<Tracking event="progress" offset="10%"><![CDATA[{DOOR}p10]]></Tracking>
<Tracking event="rewind"><![CDATA[{DOOR}none]]></Tracking></TrackingEvents>
<VideoClicks><ClickThrough>https://x.example</ClickThrough><ClickTracking>{DOOR}click</ClickTracking></VideoClicks>
</Linear></Creative></Creatives>
<Extensions><Extension type="headwater"><RecordId>{AD.record_id}</RecordId><CampaignId>cmp-011</CampaignId>
<CreativeId>cr-0111</CreativeId><Pricing>cpc</Pricing></Extension></Extensions></InLine></Ad></VAST>"""


def test_vast_gives_trackers_identity_and_price() -> None:
    ad = read_vast(VAST.format(model="cpm", price="2.512565").encode())
    assert ad is not None
    assert (ad.record_id, ad.campaign_id, ad.duration_s) == (AD.record_id, "cmp-011", 30)
    assert ad.impression_cost_micros == 2512, "2,512,565 micros for a thousand, rounded down"
    assert {(t.event, t.ordinal) for t in ad.trackers} == {
        *((e, 0) for e in ("impression", "viewable", "error", "start", "click")),
        ("progress", 10),
    }
    assert all(t.event in BY_NAME for t in ad.trackers)
    assert ad.of("error")[0].url.endswith("/t/err?code=405")


def test_a_price_by_the_click_is_charged_on_clicks() -> None:
    ad = read_vast(VAST.format(model="cpc", price="0.45").encode())
    assert ad is not None and (ad.impression_cost_micros, ad.click_cost_micros) == (0, 450_000)


@pytest.mark.parametrize(
    "document",
    [
        b"not xml",
        b"<html/>",
        b'<VAST version="4.2"><Ad id="x"><InLine/></Ad></VAST>',
        VAST.format(model="cpm", price="free").encode(),
        VAST.format(model="cpm", price="1").replace("00:00:30", "soon").encode(),
        VAST.format(model="cpm", price="1").replace("10%", "ten%").encode(),
    ],
)
def test_an_unreadable_ad_says_so(document: bytes) -> None:
    with pytest.raises(UnreadableAd):
        read_vast(document)


def test_an_answer_without_an_ad_is_no_ad() -> None:
    assert read_vast(b'<VAST version="4.2"/>') is None
    assert read_openrtb(b'{"id":"1","seatbid":[]}') is None


def test_external_entities_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1.5")
    hostile = f'<!DOCTYPE V [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    hostile += VAST.format(model="cpm", price="1").replace("<![CDATA[1]]>", "&e;")
    with pytest.raises(UnreadableAd):
        read_vast(hostile.encode())


def test_a_calm_plan_is_one_beacon_per_event_in_order() -> None:
    user = next(u for u in build_world().users if not u.bot)
    shots = plan(AD, user, 0.0, 10.0, CALM, random.Random(1))
    identities = [(s.tracker.event, s.tracker.ordinal) for s in shots]
    assert len(set(identities)) == len(identities)
    assert [s.after_s for s in shots] == sorted(s.after_s for s in shots)
    assert shots[0].tracker.event == "impression" and all(s.kind == "normal" for s in shots)
    assert shots[-1].after_s <= AD.duration_s / 10.0


def test_an_event_past_its_tokens_life_is_one_that_nothing_else_sends() -> None:
    rng = random.Random(3)
    (tracker,) = [t for t in AD.of("mute")]
    shot = expired_shot(AD, [Shot(0.0, 0.0, AD.of("impression")[0])], 20.0, rng)
    assert shot is not None and shot.kind == "expired" and shot.tracker == tracker
    assert shot.after_s > 20.0 and shot.after_s == shot.happened_s
    assert expired_shot(AD, [Shot(0.1, 0.1, tracker)], 20.0, rng) is None, "it would be a duplicate"


def test_faults_are_planted_as_declared() -> None:
    user = next(u for u in build_world().users if not u.bot)
    kinds: Counter[str] = Counter()
    for seed in range(3000):
        shots = plan(AD, user, 0.2, 10.0, Faults(), random.Random(seed))
        kinds.update(s.kind for s in shots)
        for shot in shots:
            match shot.kind:
                case "late":
                    assert shot.clock_shift_ms < -LATENESS_MS - 50_000
                case "behind" | "ahead":
                    assert shot.clock_shift_ms == (-CLOCK_AHEAD_MS if shot.kind == "behind" else CLOCK_AHEAD_MS - 1_000)
                case "absurd":
                    assert shot.clock_shift_ms < -OLDEST_MS and shot.expected_reject == "absurd_time"
                case "forged":
                    assert shot.expected_reject and TOKEN not in shot.tracker.url
                case _:
                    assert shot.clock_shift_ms == 0 and not shot.expected_reject
        kinds_of_ad = {s.kind for s in shots} - {"forged", "absurd"}
        assert len(kinds_of_ad - {"duplicate"}) <= 1, "an ad is offline, or on a wrong clock, as a whole"
        assert "duplicate" not in kinds_of_ad or "normal" in kinds_of_ad
    assert set(kinds) == {"normal", "duplicate", "late", "behind", "ahead", "forged", "absurd"}
    assert 0.02 < kinds["duplicate"] / kinds["normal"] < 0.04


def test_a_bot_floods_clicks_of_one_identity() -> None:
    bot = next(u for u in build_world(users=2000).users if u.bot)
    floods = [plan(AD, bot, 0.0, 10.0, CALM, random.Random(s)) for s in range(40)]
    flooded = [shots for shots in floods if any(s.kind == "flood" for s in shots)]
    assert flooded
    assert all({s.tracker.event for s in shots if s.kind == "flood"} == {"click"} for shots in flooded)


@pytest.mark.parametrize("query", ["", "?code=405"])
def test_a_forged_token_is_never_the_genuine_one(query: str) -> None:
    reasons = set()
    for seed in range(200):
        url, reason = forge(DOOR + TOKEN + query, random.Random(seed))
        assert url.startswith(DOOR) and url.endswith(query)
        token = url.removeprefix(DOOR).removesuffix(query)
        assert token != TOKEN
        assert (len(token) == len(TOKEN)) == (reason == RejectReason.TOKEN_FORGED)
        reasons.add(reason)
    assert reasons == {RejectReason.TOKEN_FORGED, RejectReason.TOKEN_MALFORMED}


def test_truth_of_clicks_follows_taste_and_fatigue() -> None:
    world = build_world()
    user = world.users[0]
    first, later = (click_probability(world, user, AD, "IAB1", n) for n in (0, 5))
    assert 0 < later < first < 1
    keen = replace(user, tastes={"IAB1": user.tastes["IAB1"] + 1})
    assert click_probability(world, keen, AD, "IAB1", 0) > first


def test_requests_carry_consent_and_never_more_than_they_need() -> None:
    world = build_world(users=500)
    quiet = next(u for u in world.users if u.opted_out)
    placement = world.catalog.placements[0]
    assert "opt_out=1" in vast_path(quiet, placement, "s")
    assert b'"opt_out":true' in openrtb_request(quiet, placement, "r")
    open_user = next(u for u in world.users if not u.opted_out)
    assert "opt_out" not in vast_path(open_user, placement, "s")


def _ledger(path: Path, name: str) -> Ledger:
    ledger = Ledger(path / f"{name}.sqlite", name, 1)
    return ledger


def _decide(ledger: Ledger, ad: ShownAd) -> None:
    ledger.decided(ad, request=1, door="vast", user_id="u", placement_id="p", asked_ms=1, latency_ms=1, opted_out=False)


def test_the_ledger_counts_accepted_events_once(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, "a")
    click_ad = replace(AD, record_id="c" * 22, campaign_id="cmp-2", impression_cost_micros=0, click_cost_micros=500)
    _decide(ledger, AD)
    _decide(ledger, click_ad)
    rows = [
        (AD.record_id, "impression", 0, "normal", 0),
        (AD.record_id, "impression", 0, "normal", 204),  # sent again: once accepted
        (AD.record_id, "impression", 0, "duplicate", 204),
        (AD.record_id, "complete", 0, "normal", 500),  # never accepted: did not happen for anybody
        (AD.record_id, "mute", 0, "absurd", 204),
        (click_ad.record_id, "impression", 0, "late", 204),
        (click_ad.record_id, "click", 0, "late", 204),
        (click_ad.record_id, "click", 0, "flood", 204),
        (click_ad.record_id, "mute", 0, "expired", 204),
        (click_ad.record_id, "skip", 0, "behind", 204),
        (click_ad.record_id, "engage", 0, "ahead", 204),
    ]
    for record_id, event, ordinal, kind, status in rows:
        reject = "absurd_time" if kind == "absurd" else ""
        ledger.fired(record_id, event, ordinal, kind, 1, 2, status, reject, "")
    ledger.converted("o-1", click_ad.record_id, 10, 200)
    ledger.close()
    truth = read_truth(ledger.path)
    assert truth.campaigns == {
        "cmp-011": CampaignTotals(1, 0, 0, 2512),
        "cmp-2": CampaignTotals(1, 1, 0, 500),
    }
    assert (truth.events, truth.sessions, truth.duplicates, truth.late, truth.expired) == (6, 2, 2, 3, 1)
    assert truth.ahead == 1
    assert truth.rejects == {"absurd_time": 1} and truth.conversions == 1 and truth.unanswered == 2
    assert set(GENUINE) == {"normal", "duplicate", "late", "behind", "ahead", "flood", "expired"}


def test_truths_of_runs_add_up(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        ledger = _ledger(tmp_path, name)
        _decide(ledger, AD)
        ledger.fired(AD.record_id, "impression", 0, "normal", 1, 2, 204, "", "")
        ledger.close()
        paths.append(ledger.path)
    assert read_truths(paths).total == CampaignTotals(2, 0, 0, 5024)


def test_a_dsp_answers_the_same_request_the_same_way() -> None:
    seen: Counter[int] = Counter()
    for number in range(2000):
        request = {
            "id": f"q{number}",
            "imp": [{"id": "1", "video": {}, "bidfloor": 1.0}],
            "site": {"cat": ["IAB17"]},
        }
        for name, profile in dsps.PROFILES.items():
            first = dsps.answer(name, profile, request, "http://dsps")
            assert first == dsps.answer(name, profile, request, "http://dsps")
            seen[first.status] += 1
            if first.body is not None:
                for bid in first.body["seatbid"][0]["bid"]:
                    assert bid["price"] >= 1.0 and bid["adm"].startswith("<?xml")
    assert seen[200] > 1000 and seen[204] > 1000 and seen[500] > 0
