"""What looks into strangers' text takes time in proportion to it: four times the text is never ten times the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.keys import KeyRing
from schemas.ids import encode_id
from serving.adserver.auction import bids, imp_rules, macros
from serving.adserver.auction.contest import contests_of
from serving.adserver.auction.rules import Candidate
from serving.adserver.inventory import Inventory
from serving.adserver.markup import vast
from serving.adserver.markup.insecure import loads_insecurely
from serving.adserver.markup.trackers import Trackers
from serving.adserver.markup.unwrap import _CACHEBUSTING, _WRAPPED
from serving.adserver.openrtb.context import opportunities, resolve
from serving.adserver.openrtb.messages import Bid, decode_request
from serving.adserver.podding import _duration_s
from tests.samples.adserver import NOW_S, bid_request, catalog

_LENGTH = 8_000
#: Linear is 4, quadratic 16; what lies between is the machine's noise.
_MOST = 9.0
_BEGINNINGS = ("", "src=", "url(", "<Duration>", "<a>", "<a ", "<VAST ", "<VAST version", "apiFramework", "${AUCTION_")
_REPEATED = (
    *(" ", "\n", "<a ", "<a", "<a '", '<a "', "<a \"<a '", "<a '' \"<a\" ", "<w:", "w", "w:", "<![CDATA[", "<a>"),
    *("src=", "src =' ", "url( ", "<VAST version ", "<VAST version=", "version ", "<Duration> ", "${AUCTION_A", "a."),
)


def _duration(text: str) -> object:
    return _duration_s(Candidate("dsp", "rtb", "a", "c", "cr", bid=Bid(adm=text)))


_READERS: dict[str, Callable[[str], object]] = {
    "insecure html": lambda text: loads_insecurely(f"{text}x http://", "banner"),
    "insecure vast": lambda text: loads_insecurely(f"{text}x http://", "video"),
    "duration": _duration,
    "wrapped": _WRAPPED.search,
    "cache busting": _CACHEBUSTING.search,
    "version": imp_rules._VAST_VERSION.search,
    "vpaid": imp_rules._VPAID_MEDIA.search,
    "domain": bids._DOMAIN.fullmatch,
    "macros": lambda text: macros.substitute(text, {"A": "1"}),
    "format": lambda text: bids.format_of(Bid(adm=text)),
}


def _shortest_s(read: Callable[[str], object], text: str, times: int) -> float:
    best = float("inf")
    for _ in range(5):
        began_s = time.process_time()
        for _ in range(times):
            read(text)
        best = min(best, time.process_time() - began_s)
    return best


@pytest.mark.parametrize("reader", _READERS.values(), ids=_READERS)
def test_reading_is_linear(reader: Callable[[str], object]) -> None:
    for beginning in _BEGINNINGS:
        for repeated in _REPEATED:
            whole = beginning + repeated * (4 * _LENGTH // len(repeated))
            short = whole[:_LENGTH]
            began_s = time.process_time()
            reader(short)
            first_s = time.process_time() - began_s
            if first_s < 0.001:  # too quick to be compared, and to harm: what is quadratic takes 40 ms and more
                continue
            ratio = _shortest_s(reader, whole, 1) / _shortest_s(reader, short, 1)
            assert ratio < _MOST, f"{beginning!r} and {repeated!r}"


def test_macros_do_not_make_a_bomb_of_a_long_id() -> None:
    markup = "${AUCTION_BID_ID}" * 5_000
    assert macros.substitute(markup, {"BID_ID": "x" * 100_000}) == ""
    assert macros.substitute(markup, {"BID_ID": "\U0001f600" * 100}) == "", "written as twelve characters each"
    assert len(macros.substitute(markup, {"BID_ID": "x" * 512})) == 512 * 5_000


@pytest.mark.parametrize(
    "markup",
    [
        '<VAST><MediaFile type="a>b">http://m.test/</MediaFile></VAST>',
        "<VAST><MediaFile  x = 'a' >\n <![CDATA[ http://m.test/]]></MediaFile></VAST>",
        "<v:VAST><v:MediaFile>http://m.test/</v:MediaFile></v:VAST>",
        "<VAST><a/><MediaFile>http://m.test/</MediaFile></VAST>",
    ],
)
def test_what_is_loaded_plainly_is_still_seen(markup: str) -> None:
    assert loads_insecurely(markup, "video")
    assert not loads_insecurely(markup.replace("MediaFile", "ClickThrough"), "video")


_IDENTITY = vast.AdIdentity(encode_id(bytes(16)), "adv", "cmp", "li", "cr", "rtb", 1_000_000, "USD")
_TRACKERS = Trackers({e: f"https://t.test/{e}" for e in ("impression", "viewable", "click", "error", "start")}, {})
_BODY = "<AdSystem>d</AdSystem>{many}<Creatives>{creatives}</Creatives>"
_LINEAR = "<Creative><Linear>{many}</Linear></Creative>"


def _vast(kind: str, many: str, creatives: str = _LINEAR.format(many="")) -> str:
    body = _BODY.format(many=many, creatives=creatives)
    return f'<VAST version="4.2"><Ad id="1"><{kind}>{body}</{kind}></Ad></VAST>'


def _merged(wrapper: str, inline: str) -> str:
    return vast.with_trackers(wrapper, _IDENTITY, _TRACKERS, 262_144, vast.ANY_PLAYER, inline.encode())


def test_merging_is_linear_in_a_wrappers_trackers() -> None:
    inline = _vast("InLine", "")
    few, many = (_vast("Wrapper", "<Impression/><Error/>" * n) for n in (300, 1_200))

    def read(wrapper: str) -> object:
        return _merged(wrapper, inline)

    assert _shortest_s(read, many, 1) / _shortest_s(read, few, 1) < _MOST


@pytest.mark.parametrize(
    ("wrapper", "inline"),
    [
        (_vast("Wrapper", "<Impression/>" * 4_000), _vast("InLine", "")),
        (_vast("Wrapper", "", _LINEAR.format(many="<Icons><Icon/></Icons>") * 60), _vast("InLine", "", _LINEAR * 60)),
        (_vast("Wrapper", ""), _vast("InLine", "", _LINEAR.format(many="") * 33)),
        (_vast("InLine", "<Impression/>" * 6_000), ""),
        (_vast("InLine", "", _LINEAR.format(many="") * 33), ""),
    ],
    ids=["impressions", "creatives of both", "creatives behind", "elements", "creatives"],
)
def test_more_than_any_ad_has_is_refused(wrapper: str, inline: str) -> None:
    with pytest.raises(vast.NotVast, match="more"):
        if inline:
            _merged(wrapper, inline)
        else:
            vast.with_trackers(wrapper, _IDENTITY, _TRACKERS, 262_144)


@pytest.mark.parametrize(
    "long",
    [
        {"badv": [f"a{i}.example" for i in range(20_000)]},
        {"bcat": [f"IAB{i}" for i in range(40_000)]},
        {"wlang": [f"x{i}" for i in range(40_000)]},
        {"user": {"id": "a", "data": [{"segment": [{"id": str(i)} for i in range(20_000)]}]}},
    ],
    ids=["blocked advertisers", "blocked categories", "languages", "segments"],
)
def test_long_lists_of_a_request_are_read_once_for_all_its_imps(long: dict[str, Any], tmp_path: Path) -> None:
    inventory, ring = Inventory(catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1}])), KeyRing.load(tmp_path)
    (imp,) = bid_request()["imp"]

    def read(imps: int) -> Callable[[str], object]:
        data = bid_request(imp=[imp | {"id": str(i)} for i in range(imps)], **long)
        request = decode_request(msgspec.json.encode(data))
        context, asked = resolve(request, ring, NOW_S * 1000), opportunities(request, inventory)
        return lambda _text: contests_of(asked, inventory, context)

    assert _shortest_s(read(64), "", 1) / _shortest_s(read(1), "", 1) < 8, "64, were it read for each"
