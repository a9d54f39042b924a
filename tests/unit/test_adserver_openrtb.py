"""What a request may look like, what is known of its user, and what a player's tag stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http_messages import Request
from connectors.keys import KeyRing
from schemas.catalog import Bidder
from serving.adserver.doors.player_tag import TagRules, asked_by, to_request
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.consent import read_consent
from serving.adserver.openrtb.context import opportunities, resolve
from serving.adserver.openrtb.messages import BadRequest, BidRequest, decode_request, decode_response
from serving.adserver.openrtb.outbound import Outbound
from tests.samples.adserver import NOW_S, bid_request, catalog

BIDDER = Bidder("dsp", "http://dsp.test/bid")


def opted_out(request: BidRequest) -> bool:
    """Whether we, who are in no vendor list, may not know who the user is."""
    return not read_consent(request).for_vendor(0).ids


def _decode(**changes: Any) -> BidRequest:
    return decode_request(msgspec.json.encode(bid_request(**changes)))


VIDEO = {"mimes": ["video/mp4"]}


@pytest.mark.parametrize(
    ("changes", "path", "word"),
    [
        ({"id": 7}, "$.id", "str"),
        ({"id": ""}, "$.id", "length"),
        ({"imp": []}, "$.imp", "length"),
        ({"imp": [{"id": "1"}]}, "$.imp[0]", "banner"),
        ({"imp": [{"id": "1", "video": {}}]}, "$.imp[0].video", "mimes"),
        ({"imp": [{"id": "1", "video": VIDEO}, {"id": "1", "video": VIDEO}]}, "$.imp[1].id", "twice"),
        ({"imp": [{"id": "1", "video": VIDEO, "bidfloor": -1}]}, "$.imp[0].bidfloor", ">= 0"),
        ({"imp": [{"id": "1", "video": VIDEO, "secure": 2}]}, "$.imp[0].secure", "<= 1"),
        ({"app": {"id": "a"}}, "$", "site, app and dooh"),
        ({"device": {"lmt": "yes"}}, "$.device.lmt", "int"),
        ({"tmax": -5}, "$.tmax", ">= 0"),
        ({"regs": {"coppa": 3}}, "$.regs.coppa", "<= 1"),
    ],
)
def test_what_breaks_the_specification_is_named_with_its_path(changes: dict[str, Any], path: str, word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        _decode(**changes)
    assert caught.value.path == path
    assert word in caught.value.reason


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"1","ext":' + b"[" * 100_000,
        b'{"id":7,"ext":' + b"[" * 100_000,
        b"[]",
        b'{"seatbid":{}}',
        b'{"id":7}',
        b"NaN",
    ],
)
def test_what_is_no_response_is_no_bid(body: bytes) -> None:
    with pytest.raises(ValueError):
        decode_response(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"1","ext":' + b"[" * 100_000,
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"id":"1","imp":[{"id":"1"',
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(body)


def test_unknown_fields_and_ext_are_ignored() -> None:
    request = _decode(
        ext={"anything": [1, {"x": None}]},
        unknown=1,
        regs={"ext": "not even an object"},
        user={"id": "u", "ext": 5},
        imp=[{"id": "1", "video": {**VIDEO, "ext": 3, "new": {}}, "ext": {"prebid": 1}}],
    )
    assert not opted_out(request)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
        max_leaves=8,
    )
)
def test_no_json_makes_the_door_fail_otherwise(data: Any) -> None:
    for body in (data, bid_request(imp=data), bid_request(device=data, regs=data), bid_request(user=data)):
        try:
            request = decode_request(msgspec.json.encode(body))
        except BadRequest:
            continue
        opted_out(request)


@pytest.mark.parametrize(
    "changes",
    [
        {"regs": {"coppa": 1}},
        {"regs": {"us_privacy": "1YYN"}},
        {"regs": {"ext": {"us_privacy": "1NYN"}}},
        {"regs": {"ext": {"gpc": "1"}}},
        {"device": {"lmt": 1}},
        {"user": {"id": "u", "ext": {"opt_out": True}}},
        {"regs": {"gdpr": 1}},
        {"regs": {"ext": {"gdpr": 1}}},
        {"regs": {"gdpr": 1}, "user": {"id": "someone", "consent": "CP"}},
    ],
)
def test_nothing_personal_of_an_opted_out_user_is_kept_or_sent(changes: dict[str, Any], tmp_path: Path) -> None:
    request = _decode(**({"device": {"ip": "192.0.2.7"}} | changes))
    inventory = Inventory(catalog([]))
    context = resolve(request, KeyRing.load(tmp_path), NOW_S * 1000)
    assert context.opted_out and context.pseudonym is None and context.household is None
    body = Outbound(context, opportunities(request, inventory), inventory.rates, 100, "us.example").body(BIDDER)
    assert body is not None and b"192.0.2.7" not in body and b"someone" not in body


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"regs": {"us_privacy": "1YNN"}},
        {"regs": {"us_privacy": "1---"}},
    ],
)
def test_a_known_user_is_a_pseudonym_inside_and_outside(changes: dict[str, Any], tmp_path: Path) -> None:
    request = _decode(**changes)
    keys = KeyRing.load(tmp_path)
    context = resolve(request, keys, NOW_S * 1000)
    assert context.pseudonym == keys.pseudonym("someone")
    assert context.household == keys.household("192.0.2.7")
    assert (context.country, context.region, context.device_type) == ("US", "US-CA", "ctv")
    inventory = Inventory(catalog([]))
    body = Outbound(context, opportunities(request, inventory), inventory.rates, 100, "us.example").body(BIDDER)
    sent = msgspec.json.decode(body or b"")
    assert sent["user"] == {"id": context.pseudonym}
    assert sent["at"] == 1 and sent["tmax"] == 100 and sent["device"]["geo"]["country"] == "USA"
    assert sent["device"]["ip"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("changes", "tagid", "premium"),
    [
        ({}, "pl-video", False),
        ({"placements": {"premium": True}}, "pl-video", True),
        ({"placements": {"premium": True}}, "unknown", False),
        ({"publishers": {"premium": True}}, "pl-video", True),
        ({"publishers": {"premium": True}}, "unknown", True),
        ({"premium_floor_cpm_micros": 2_000_000}, "pl-video", True),
        ({"premium_floor_cpm_micros": 2_000_001}, "pl-video", False),
    ],
)
def test_for_premium_imps_every_bidder_must_be_asked(
    changes: dict[str, Any], tagid: str, premium: bool, tmp_path: Path
) -> None:
    made = catalog([])
    changed = {
        name: [replace(item, **change) for item in getattr(made, name)] if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    imp = {"id": "1", "tagid": tagid, "video": VIDEO, "bidfloor": 2.0}
    request = _decode(imp=[imp], site={"id": "site-1", "publisher": {"id": "pub-1"}})
    inventory = Inventory(replace(made, **changed))
    context = resolve(request, KeyRing.load(tmp_path), NOW_S * 1000)
    out = Outbound(context, opportunities(request, inventory), inventory.rates, 100, "us.example")
    assert out.must_ask(BIDDER) is premium


def test_a_placement_adds_its_floor_category_and_publisher() -> None:
    inventory = Inventory(catalog([], floor_cpm_micros=1_500_000))
    (place,) = opportunities(_decode(), inventory)
    assert (place.floor_cpm_micros, place.category, place.publisher_id) == (1_500_000, "IAB17", "pub-1")
    request = _decode(imp=[{"id": "1", "tagid": "unknown", "banner": {}, "video": VIDEO, "bidfloor": 0.25}])
    (place,) = opportunities(request, inventory)
    assert (place.floor_cpm_micros, place.category, place.publisher_id) == (250_000, "IAB17", "")
    assert place.formats == ("video", "banner")


def test_a_player_tag_is_the_request_it_stands_for() -> None:
    inventory = Inventory(catalog([]))
    params = {
        "placement": "pl-video",
        "user": "someone",
        "device": "ctv",
        "platform": "tvos",
        "country": "US",
        "region": "US-CA",
        "ip": "192.0.2.7",
        "session": "s1",
        "tmax": "200",
        "whatever": "x",
    }
    request = to_request(params, "r1", inventory)
    assert decode_request(msgspec.json.encode(request)).imp[0].tagid == "pl-video"
    assert (request.tmax, request.site and request.site.id, request.device and request.device.devicetype) == (
        200,
        "site-1",
        3,
    )
    assert not opted_out(request)
    for flag in (
        {"opt_out": "1"},
        {"lmt": "1"},
        {"dnt": "1"},
        {"gpc": "1"},
        {"us_privacy": "1YY-"},
        {"coppa": "true"},
        {"gdpr": "1"},
    ):
        assert opted_out(to_request(params | flag, "r1", inventory)), flag


@pytest.mark.parametrize(("header", "said"), [(b"sec-gpc", b"1"), (b"dnt", b"1"), (b"dnt", b"0")])
def test_a_browser_refuses_in_headers(header: bytes, said: bytes) -> None:
    http = Request("GET", "/vast", b"placement=pl-video&user=u", {header: said}, b"", "")
    request = asked_by(http, Inventory(catalog([])))
    assert isinstance(request, BidRequest) and opted_out(request) == (said == b"1")


@pytest.mark.parametrize(
    ("hops", "forwarded", "query", "found"),
    [
        (0, "", "", "8.8.4.4"),
        (0, "9.9.9.9", "", "8.8.4.4"),
        (1, "1.1.1.1, 9.9.9.9", "", "9.9.9.9"),
        (1, "10.1.2.3", "", ""),
        (1, "unknown", "", ""),
        (1, "2001:4860:4860::8888", "", "2001:4860:4860::8888"),
        (0, "", "&ip=192.0.2.7", "192.0.2.7"),
        (0, "", "&ua=TV/2", ""),
    ],
    ids=["peer", "not-believed", "proxy", "private", "junk", "v6", "said", "server-without-ip"],
)
def test_the_address_of_a_players_tag_is_who_sent_it(hops: int, forwarded: str, query: str, found: str) -> None:
    headers = {b"x-forwarded-for": forwarded.encode()} if forwarded else {}
    http = Request("GET", "/vast", f"placement=pl-video&user=u{query}".encode(), headers, b"", "::ffff:8.8.4.4")
    request = asked_by(http, Inventory(catalog([])), TagRules(forwarded_hops=hops))
    assert isinstance(request, BidRequest) and request.device is not None
    assert (request.device.ip, request.device.ipv6) == (("", found) if ":" in found else (found, ""))


@pytest.mark.parametrize(
    ("setting", "query", "secure"), [(True, "", 1), (True, "&secure=0", 0), (False, "", 0), (False, "&secure=1", 1)]
)
def test_a_tags_player_is_taken_to_load_nothing_over_plain_http(setting: bool, query: str, secure: int) -> None:
    http = Request("GET", "/vast", f"placement=pl-video{query}".encode(), {}, b"", "")
    request = asked_by(http, Inventory(catalog([])), TagRules(secure=setting))
    assert isinstance(request, BidRequest) and request.imp[0].secure == secure


def test_an_audio_placements_tag_asks_for_audio() -> None:
    (imp,) = to_request({"placement": "pl-audio", "max_duration_s": "30"}, "r1", Inventory(catalog([]))).imp
    assert imp.video is None and imp.audio is not None
    assert "audio/mpeg" in imp.audio.mimes and imp.audio.maxduration == 30


@pytest.mark.parametrize(("text", "ids"), [("2_8", [2, 8]), ("7,8", [7, 8]), ("-1", [-1]), ("", []), ("9" * 50, [])])
def test_a_tag_names_the_sections_in_force(text: str, ids: list[int]) -> None:
    request = to_request({"placement": "pl-video", "gpp_sid": text}, "r1", Inventory(catalog([])))
    assert request.regs is not None and request.regs.gpp_sid == ids


@pytest.mark.parametrize(
    ("params", "path"),
    [({}, "placement"), ({"placement": "p", "w": "-1"}, "w"), ({"placement": "p", "tmax": "x"}, "tmax")],
)
def test_a_bad_tag_is_refused(params: dict[str, str], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        to_request(params, "r1", Inventory(catalog([])))
    assert caught.value.path == path


def test_a_number_that_no_double_holds_is_nobodys_error_unless_it_is_meant() -> None:
    body = msgspec.json.encode(bid_request(ext={"theirs": 7})).decode()
    assert decode_request(body.replace("7}", "1e999}").encode()).ext == {"theirs": "1e999"}
    with pytest.raises(BadRequest) as caught:
        decode_request(body.replace('"tmax":150', '"tmax":1e999').encode())
    assert caught.value.path == "$.tmax"
