"""What privacy signals come to, and that what they take away is in no byte that leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.keys import KeyRing
from schemas.catalog import Bidder
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb import gpp
from serving.adserver.openrtb.bits import Bits
from serving.adserver.openrtb.consent import Permission, read_consent
from serving.adserver.openrtb.context import opportunities, resolve
from serving.adserver.openrtb.messages import decode_request
from serving.adserver.openrtb.outbound import Outbound
from serving.adserver.openrtb.tcf import decode_tcf
from tests.samples.adserver import NOW_S, bid_request, catalog
from tests.samples.consent import gpp_string, tc_string, us_section

VENDOR = 10
NOBODY, EVERYTHING = Permission(False, False), Permission(True, True)

CHILD = Permission(False, False, town=False)

#: Fields of each section's core segment: how many, where its opt-outs are, where its children are.
US_SECTIONS = {
    7: (27, (6, 7, 8), (21, 22)),
    8: (20, (3, 4), (14, 15)),
    9: (17, (3, 4), (13,)),
    10: (16, (3, 4), (12,)),
    11: (18, (4, 5), (14,)),
    12: (19, (3, 4), (13, 14, 15)),
    13: (20, (3, 4), (13, 14, 15)),
    14: (20, (3, 4), (13, 14, 15)),
    15: (23, (3, 4), (16, 17, 18)),
    16: (18, (3, 4), (13,)),
    17: (23, (3, 4), (14, 15, 16, 17, 18)),
    18: (18, (4, 5), (14,)),
    19: (18, (3, 4), (13,)),
    20: (20, (3, 4), (13, 14, 15)),
    21: (24, (3, 4), (15, 16, 17, 18, 19)),
    22: (18, (3, 4), (13,)),
    23: (18, (3, 4), (13,)),
    24: (8, (5, 6), ()),
    25: (9, (5, 6), (7,)),
    26: (9, (5, 6), (7,)),
    27: (9, (5, 6), (7,)),
}
#: Sections whose second segment is sensitive data, which is no GPC whatever its first bits are.
NO_GPC = (25, 26, 27)


def _permission(vendor_id: int = VENDOR, **changes: Any) -> Permission:
    return read_consent(decode_request(msgspec.json.encode(bid_request(**changes)))).for_vendor(vendor_id)


def _gdpr(consent: str, vendor_id: int = VENDOR) -> Permission:
    return _permission(vendor_id, regs={"gdpr": 1}, user={"id": "u", "consent": consent})


@pytest.mark.parametrize("as_ranges", [False, True])
def test_purposes_and_vendor_must_be_consented_to(as_ranges: bool) -> None:
    assert _gdpr(tc_string(as_ranges=as_ranges)) == Permission(True, False)
    assert _gdpr(tc_string(as_ranges=as_ranges, special_features=[1])) == EVERYTHING
    assert _gdpr(tc_string(as_ranges=as_ranges, vendors=[9, 11])) == NOBODY
    assert _gdpr(tc_string(as_ranges=as_ranges), vendor_id=0) == NOBODY
    for missing in (1, 2, 3, 4, 7):
        assert _gdpr(tc_string([p for p in (1, 2, 3, 4, 7) if p != missing], as_ranges=as_ranges)) == NOBODY


def test_interest_is_enough_to_choose_and_measure_but_not_to_profile() -> None:
    assert _gdpr(tc_string([1, 3, 4], interests=[2, 7], interest_vendors=[VENDOR])).ids
    assert not _gdpr(tc_string([1, 3, 4], interests=[2, 7], interest_vendors=[11])).ids
    assert not _gdpr(tc_string([2, 7], interests=[1, 3, 4], interest_vendors=[VENDOR])).ids


def test_publishers_restrict_vendors() -> None:
    assert not _gdpr(tc_string(restrictions={(3, 0): [VENDOR]})).ids
    assert _gdpr(tc_string(restrictions={(3, 0): [11]})).ids
    assert _gdpr(tc_string(restrictions={(2, 1): [VENDOR]})).ids
    assert not _gdpr(tc_string(restrictions={(2, 2): [VENDOR]})).ids
    interested = {"interests": [2, 7], "interest_vendors": [VENDOR]}
    assert not _gdpr(tc_string([1, 3, 4], **interested, restrictions={(2, 1): [VENDOR]})).ids


@pytest.mark.parametrize("broken", ["", "CP", "not a string!", tc_string(version=1), tc_string()[:20], "A" * 9000])
def test_a_broken_consent_string_is_none(broken: str) -> None:
    assert _gdpr(broken) == NOBODY


def test_consent_is_found_wherever_versions_put_it() -> None:
    text = tc_string()
    assert _permission(regs={"ext": {"gdpr": 1}}, user={"ext": {"consent": text}}).ids
    assert _permission(regs={"gpp": gpp_string({2: text}), "gpp_sid": [2]}).ids
    assert not _permission(regs={"gpp": gpp_string({2: tc_string(vendors=[1])}), "gpp_sid": [2]}).ids
    assert not _permission(regs={"gpp_sid": [2]}).ids
    assert not _permission(regs={"ext": {"gpp": gpp_string({8: us_section([1] * 20)}), "gpp_sid": [8]}}).ids
    assert _permission(regs={"ext": {"gpp": gpp_string({8: us_section([1] * 20)}), "gpp_sid": [-1, "8"]}}).ids
    assert _permission(regs={"gdpr": 0}) == EVERYTHING


@pytest.mark.parametrize("section_id", US_SECTIONS)
def test_each_us_section_says_no_in_its_own_places(section_id: int) -> None:
    count, opt_outs, children = US_SECTIONS[section_id]

    def permission(fields: list[int], gpc: bool | None = None, **regs: Any) -> Permission:
        text = us_section(fields, gpc=gpc)
        return _permission(regs={"gpp": gpp_string({section_id: text}), "gpp_sid": [section_id], **regs})

    agreed = [2 if i in opt_outs else 0 for i in range(count)]
    assert permission(agreed) == EVERYTHING
    assert permission(agreed, gpc=False) == EVERYTHING
    assert permission(agreed, gpc=True) == (EVERYTHING if section_id in NO_GPC else NOBODY)
    for place in (*opt_outs, *children):
        assert permission([1 if i == place else f for i, f in enumerate(agreed)]) == NOBODY
    notices = [i for i in range(min(opt_outs))]
    assert permission([1 if i in notices else f for i, f in enumerate(agreed)]) == EVERYTHING
    short = gpp_string({section_id: us_section(agreed)[:2]})
    assert _permission(regs={"gpp": short, "gpp_sid": [section_id]}) == NOBODY


def test_the_second_version_of_the_national_section_has_other_counts() -> None:
    agreed = [2 if i in (6, 7, 8) else 0 for i in range(32)]

    def permission(fields: list[int]) -> Permission:
        return _permission(regs={"gpp": gpp_string({7: us_section(fields, version=2)}), "gpp_sid": [7]})

    assert permission(agreed) == EVERYTHING
    assert permission([1 if i == 22 else f for i, f in enumerate(agreed)]) == EVERYTHING  # sensitive data, not a child
    assert permission([1 if i == 27 else f for i, f in enumerate(agreed)]) == NOBODY


def test_sections_in_force_must_be_there_and_known() -> None:
    agreed = us_section([2 if i in (3, 4) else 0 for i in range(20)])
    refused = us_section([1 if i == 3 else 0 for i in range(20)])
    assert _permission(regs={"gpp": gpp_string({8: agreed}), "gpp_sid": [9]}) == NOBODY
    assert _permission(regs={"gpp": gpp_string({5: "CA"}), "gpp_sid": [5]}) == NOBODY
    assert _permission(regs={"gpp": "rubbish!", "gpp_sid": [8]}) == NOBODY
    assert _permission(regs={"gpp": "rubbish!"}) == NOBODY
    assert _permission(regs={"gpp": gpp_string({8: refused}), "gpp_sid": [-1]}) == EVERYTHING
    assert _permission(regs={"gpp": gpp_string({8: refused})}) == NOBODY
    assert _permission(regs={"gpp": gpp_string({6: "1YNN"}), "gpp_sid": [6]}) == EVERYTHING
    assert _permission(regs={"gpp": gpp_string({6: "1YYN"}), "gpp_sid": [6]}) == NOBODY


@given(st.sets(st.integers(1, 30), min_size=1, max_size=8))
def test_a_header_names_the_sections_that_were_written(ids: set[int]) -> None:
    found = gpp.sections(gpp_string({i: f"s{i}" for i in ids}))
    assert found == {i: f"s{i}" for i in ids}


@given(st.text(alphabet="ABCDEFXYZabcz0189-_.~!", max_size=80))
def test_no_string_makes_a_reader_fail(text: str) -> None:
    decode_tcf(text)
    gpp.sections(text)
    for section_id in US_SECTIONS:
        gpp.opted_out_of_us(section_id, text)


def test_bits_end_where_the_text_ends() -> None:
    bits = Bits("BA")
    assert (bits.number(6), bits.number(6)) == (1, 0)
    with pytest.raises(ValueError):
        bits.flag()


@pytest.mark.parametrize(
    "changes",
    [
        {"regs": {"us_privacy": "1YYN"}},
        {"regs": {"us_privacy": "2"}},
        {"regs": {"ext": {"us_privacy": "1YY-"}}},
        {"regs": {"ext": {"gpc": "1"}}},
        {"device": {"lmt": 1}},
        {"device": {"dnt": 1}},
        {"device": {"ext": {"gpc": 1}}},
        {"user": {"ext": {"opt_out": 1}}},
    ],
)
def test_each_signal_is_enough(changes: dict[str, Any]) -> None:
    assert _permission(**changes) == NOBODY
    assert _permission(**changes | {"regs": {"coppa": 1}}) == CHILD


_SECRETS = st.text(alphabet="bcdfghjkmnpqrstvwxz", min_size=12, max_size=20)
_IDS = st.lists(_SECRETS, min_size=22, max_size=22, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=_IDS, signal=st.sampled_from(["coppa", "gdpr", "gpp", "lmt"]), old=st.booleans())
def test_nothing_that_identifies_an_unknown_user_is_in_what_leaves(
    ids: list[str], signal: str, old: bool, tmp_path: Path
) -> None:
    user = {"id": ids[0], "buyeruid": ids[1], "keywords": ids[2], "customdata": ids[3], "yob": 1984, "gender": "F"}
    user["data"] = [{"id": "d", "segment": [{"id": ids[4]}]}]
    eids = [{"source": "id.example", "uids": [{"id": ids[5], "atype": 1}]}]
    user |= {"ext": {"eids": eids, "other": ids[6]}} if old else {"eids": eids, "ext": {"other": ids[6]}}
    user["geo"] = {"lat": 52.123456, "lon": 13.654321, "zip": ids[7]}
    device = {
        "ua": "Mozilla/5.0",
        "ip": "198.51.100.77",
        "ipv6": "2001:db8:1:2:3:4:5:6",
        "ifa": ids[8],
        "didsha1": ids[9],
        "dpidmd5": ids[10],
        "macsha1": ids[11],
        "ext": {"id": ids[12]},
        "geo": {"lat": 52.123456, "lon": 13.654321, "accuracy": 5, "zip": ids[7], "country": "DEU"},
    }
    changes: dict[str, Any] = {"user": user, "device": device, "ext": {"session": "s-1", "id": ids[13]}}
    changes["regs"] = {
        "coppa": {"coppa": 1},
        "gdpr": {"gdpr": 1},
        "gpp": {"gpp": gpp_string({8: us_section([1] * 20)}), "gpp_sid": [8]},
        "lmt": {},
    }[signal]
    if signal == "lmt":
        device["lmt"] = 1
    changes["regs"] |= {"ext": {"id": ids[14], "dsa": {"dsarequired": 0}}}
    imp = bid_request()["imp"][0]
    changes["imp"] = [imp | {"ext": {"id": ids[15], "gpid": "/1/top"}, "video": imp["video"] | {"ext": [ids[16]]}}]
    content = {"id": "c", "url": f"https://p.example/v;s={ids[17]}", "data": [{"id": "d", "ext": {"id": ids[18]}}]}
    page = {"page": f"https://p.example/a?u={ids[19]}", "ref": f"https://q.example/#{ids[20]}", "content": content}
    changes["site"] = {"id": "site-1", "cat": ["IAB17"], **page}
    changes["source"] = {"tid": "t-1", "ext": {"id": ids[21]}}
    body = msgspec.json.encode(bid_request(**changes))
    request, inventory = decode_request(body), Inventory(catalog([]))
    keys = KeyRing.load(tmp_path)
    context = resolve(request, keys, NOW_S * 1000, VENDOR, body)
    assert context.opted_out and context.pseudonym is None and context.household is None
    bidder = Bidder("dsp", "http://dsp.test/bid", tcf_vendor_id=VENDOR)
    sent = Outbound(context, opportunities(request, inventory), inventory.rates, 100, "us.example").body(bidder) or b""
    text = sent.decode()
    for secret in (*ids, "198.51.100.77", "2001:db8:1:2", "52.123", "13.654", keys.pseudonym(ids[0]), '"yob"'):
        assert secret not in text, secret
    data = msgspec.json.decode(sent)
    assert data["device"]["ip"] == "198.51.100.0" and data["device"]["ipv6"] == "2001:db8:1::"
    assert data["device"]["geo"].get("lat") == (None if signal == "coppa" else 52.12)
    assert data["device"]["geo"]["country"] == "DEU" and data["device"]["ua"] == "Mozilla/5.0"
    assert (data["site"]["page"], data["site"]["content"]["url"]) == ("https://p.example/a", "https://p.example/v")
    assert data["imp"][0]["ext"] == {"gpid": "/1/top"} and data["regs"]["ext"] == {"dsa": {"dsarequired": 0}}


def test_each_bidder_is_told_what_it_may_know(tmp_path: Path) -> None:
    consent = tc_string(vendors=[VENDOR], special_features=[1])
    device = {"ifa": "the-ifa", "ip": "198.51.100.77", "geo": {"lat": 52.123456, "lon": 13.654321, "country": "DEU"}}
    user = {"id": "someone", "buyeruid": "theirs", "consent": consent, "eids": [{"source": "s", "uids": [{"id": "e"}]}]}
    body = msgspec.json.encode(bid_request(regs={"gdpr": 1}, device=device, user=user))
    request, inventory = decode_request(body), Inventory(catalog([]))
    context = resolve(request, KeyRing.load(tmp_path), NOW_S * 1000, VENDOR, body)
    out = Outbound(context, opportunities(request, inventory), inventory.rates, 100, "us.example")
    known = msgspec.json.decode(out.body(Bidder("a", "http://a.test", tcf_vendor_id=VENDOR)) or b"")
    other = msgspec.json.decode(out.body(Bidder("b", "http://b.test", tcf_vendor_id=11)) or b"")
    assert known["device"] == device and known["user"] == user | {"id": context.pseudonym}
    assert other["user"] == {"consent": consent} and other["device"] == {
        "ip": "198.51.100.0",
        "geo": {"lat": 52.12, "lon": 13.65, "country": "DEU"},
    }
    assert out.body(Bidder("c", "http://c.test")) is out.body(Bidder("b", "http://b.test", tcf_vendor_id=11))
