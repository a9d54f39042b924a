"""VAST and banner markup: our own ads, and DSPs' with our trackers in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree, html

from connectors.keys import KeyRing
from connectors.tokens import TokenMinter, TokenOpener
from schemas.events import BY_CODE, BY_NAME
from schemas.ids import encode_id
from schemas.money import to_micros
from serving.adserver.markup import banner, vast
from serving.adserver.markup.trackers import NO_TRACKERS, TrackerMaker, Trackers
from serving.adserver.markup.vast import AdIdentity, NotVast
from serving.adserver.markup.vast_versions import VERSIONS, newest_of
from tests.samples.adserver import COLLECTOR_URL, NOW_S, catalog

RAW_ID = bytes(range(16))
IDENTITY = AdIdentity(encode_id(RAW_ID), "adv<&>", "cmp-1", "li-1", 'cr"1', "rtb", 2_345_678, "USD")
LIMIT = 10_000
DSP = """<?xml version="1.0"?><VAST version="3.0"><Ad id="theirs"><InLine><AdSystem>d</AdSystem><AdTitle>t</AdTitle>
<Impression><![CDATA[http://dsp.test/imp]]></Impression><Pricing model="cpm" currency="EUR">99</Pricing>
<Creatives><Creative><Linear><Duration>00:00:15</Duration><MediaFiles/></Linear></Creative>
<Creative><CompanionAds/></Creative></Creatives></InLine></Ad><Ad id="second"><InLine/></Ad></VAST>"""


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.load(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def trackers(ring: KeyRing) -> Trackers:
    return TrackerMaker(TokenMinter(ring), COLLECTOR_URL + "/", 3600).video(RAW_ID, NOW_S)


def _plain(document: str) -> etree._Element:
    """The document's tree without namespaces."""
    root = etree.fromstring(document.encode())
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    return root


def _urls(root: etree._Element) -> dict[tuple[str, str], str]:
    """(VAST event, offset) to URL of all our trackers."""
    single = {"Impression": "impression", "Viewable": "viewable", "ClickTracking": "click", "Error": "error"}
    found: dict[tuple[str, str], str] = {}
    for element in root.iter(etree.Element):
        text = (element.text or "").removesuffix("?code=[ERRORCODE]")
        if element.tag in single and text.startswith(COLLECTOR_URL):
            found[single[element.tag], ""] = text
        elif element.tag == "Tracking" and text.startswith(COLLECTOR_URL):
            found[element.get("event"), element.get("offset", "")] = text
    return found


def _check_trackers(root: etree._Element, ring: KeyRing) -> None:
    """Every tracker is there once, and its token opens to its own event of this ad."""
    urls = _urls(root)
    assert len(urls) == 4 + 8 + 10 == len(set(urls.values()))
    opener = TokenOpener(ring)
    for (event, offset), url in urls.items():
        claims = opener.open(url.removeprefix(COLLECTOR_URL + "/t/"))
        kind = BY_CODE[claims.event_code]
        assert claims.record_id == RAW_ID and claims.expires_s == NOW_S + 3600
        assert event in (kind.name, kind.vast_event)
        assert claims.ordinal == (int(offset.rstrip("%")) if event == "progress" else 0)


def test_our_ad_has_every_tracker_price_and_id(ring: KeyRing, trackers: Trackers) -> None:
    creative = catalog([{"id": "x", "pricing": "cpm", "bid_micros": 1}]).creatives[0]
    root = _plain(vast.inline(IDENTITY, creative, "A & B <c>", trackers))
    _check_trackers(root, ring)
    body = root.find("Ad/InLine")
    assert body is not None and root.get("version") == "4.2" and root.find("Ad").get("id") == IDENTITY.record_id
    assert body.findtext("AdTitle") == "A & B <c>"
    assert to_micros(body.findtext("Pricing")) == IDENTITY.price_micros
    assert body.findtext(".//ClickThrough") == creative.landing_url
    assert body.findtext(".//Duration") == "00:00:15"
    extension = {e.tag: e.text for e in body.find("Extensions/Extension")}
    assert extension["AdvertiserId"] == "adv<&>" and extension["CreativeId"] == 'cr"1'
    in_order = [e.tag for e in body]
    assert in_order == [
        "AdSystem",
        "Error",
        "Extensions",
        "Impression",
        "Pricing",
        "ViewableImpression",
        "AdServingId",
        "AdTitle",
        "Creatives",
    ]


def test_an_ad_that_may_not_be_counted_has_no_tracker() -> None:
    creative = catalog([{"id": "x", "pricing": "cpm", "bid_micros": 1}]).creatives[0]
    document = vast.inline(IDENTITY, creative, "t", NO_TRACKERS)
    assert "/t/" not in document and _plain(document).find("Ad/InLine/Creatives/Creative/Linear/MediaFiles") is not None


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.iab.com/VAST"'])
def test_a_dsp_document_gets_our_trackers_and_price_beside_its_own(
    ring: KeyRing, trackers: Trackers, namespace: str
) -> None:
    document = DSP.replace("<VAST ", f"<VAST{namespace} ")
    answer = vast.with_trackers(document, IDENTITY, trackers, LIMIT)
    assert f'"{vast.NAMESPACE}"' in answer or not namespace
    root = _plain(answer)
    _check_trackers(root, ring)
    assert [a.get("id") for a in root.iter("Ad")] == [IDENTITY.record_id]
    assert [to_micros(p.text) for p in root.iter("Pricing") if p.get("model")] == [IDENTITY.price_micros]
    assert "http://dsp.test/imp" in [e.text for e in root.iter("Impression")]


def test_existing_trackers_and_clicks_of_a_dsp_stay(ring: KeyRing, trackers: Trackers) -> None:
    document = DSP.replace(
        "<MediaFiles/>",
        '<TrackingEvents><Tracking event="start">http://dsp.test/start</Tracking></TrackingEvents><MediaFiles/>'
        "<VideoClicks><ClickThrough>http://dsp.test/land</ClickThrough></VideoClicks>",
    )
    root = _plain(vast.with_trackers(document, IDENTITY, trackers, LIMIT))
    starts = [e.text for e in root.iter("Tracking") if e.get("event") == "start"]
    assert starts[0] == "http://dsp.test/start" and len(starts) == 2
    assert len(list(root.iter("TrackingEvents"))) == 1 == len(list(root.iter("VideoClicks")))
    assert root.findtext(".//ClickThrough") == "http://dsp.test/land"


def test_an_address_is_wrapped(ring: KeyRing, trackers: Trackers) -> None:
    root = _plain(vast.with_trackers(" https://dsp.test/vast?a=1&b=2 ", IDENTITY, trackers, LIMIT))
    assert root.findtext("Ad/Wrapper/VASTAdTagURI") == "https://dsp.test/vast?a=1&b=2"
    _check_trackers(root, ring)


def test_a_dsp_wrapper_keeps_its_address(ring: KeyRing, trackers: Trackers) -> None:
    document = '<VAST version="4.0"><Ad><Wrapper><AdSystem>d</AdSystem><VASTAdTagURI>http://x.test</VASTAdTagURI><Impression/></Wrapper></Ad></VAST>'
    root = _plain(vast.with_trackers(document, IDENTITY, trackers, LIMIT))
    assert root.findtext("Ad/Wrapper/VASTAdTagURI") == "http://x.test"
    _check_trackers(root, ring)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "hello",
        "<html></html>",
        "<VAST/>",
        "<VAST><Ad/></VAST>",
        "<VAST><Ad><InLine></VAST>",
        "<VAST><Ad><InLine><Creatives/></InLine></Ad></VAST>",
        '<!DOCTYPE VAST [<!ENTITY a "b">]>' + DSP.split("?>", 1)[1],
        '<!DOCTYPE VAST [<!ENTITY a SYSTEM "file:///etc/hostname">]><VAST>&a;</VAST>',
        DSP.replace("theirs", "x" * LIMIT),
        "\x00" + DSP,
    ],
)
def test_what_is_no_vast_is_refused(document: str, trackers: Trackers) -> None:
    with pytest.raises(NotVast):
        vast.with_trackers(document, IDENTITY, trackers, LIMIT)


def test_an_entity_is_never_read_from_a_file(trackers: Trackers, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do-not-read")
    document = f'<!DOCTYPE VAST [<!ENTITY a SYSTEM "{secret.as_uri()}">]>' + DSP.split("?>", 1)[1].replace(
        ">t<", ">&a;<"
    )
    with pytest.raises(NotVast):
        vast.with_trackers(document, IDENTITY, trackers, LIMIT)


def test_cdata_ends_are_no_way_out(trackers: Trackers) -> None:
    url = "https://x.test/]]><Evil/>"
    creative = catalog([{"id": "x", "pricing": "cpm", "bid_micros": 1, "creative": {"landing_url": url}}]).creatives[0]
    root = _plain(vast.inline(IDENTITY, creative, "t", trackers))
    assert root.findtext(".//ClickThrough") == url and root.find(".//Evil") is None


def test_banner_markup_has_pixel_click_and_viewability(ring: KeyRing) -> None:
    made = TrackerMaker(TokenMinter(ring), COLLECTOR_URL, 3600).banner(RAW_ID, NOW_S)
    assert set(made.urls) == {"impression", "viewable", "click"} <= set(BY_NAME)
    ads = [
        {
            "id": "x",
            "pricing": "cpm",
            "bid_micros": 1,
            "format": "banner",
            "creative": {"landing_url": 'https://x.test/"<b>'},
        }
    ]
    for markup in (banner.own(catalog(ads).creatives[0], made), banner.with_trackers("<b>theirs</b>", made)):
        root = html.fragment_fromstring(markup, create_parent="div")
        assert [e.get("src") for e in root.iterfind(".//img[@data-event='impression']")] == [made.urls["impression"]]
        assert [e.get("data-click") for e in root.iterfind(".//*[@data-click]")] == [made.urls["click"]]
        assert made.urls["viewable"] in root.findtext(".//script")
    assert root.findtext(".//b") == "theirs"
    assert banner.with_trackers("<b>theirs</b>", NO_TRACKERS) == "<b>theirs</b>"


#: Children of our own documents by version, from the versions' schemas: InLine, its Linear, its Creative.
IN_ORDER = {
    "2.0": (
        ["AdSystem", "AdTitle", "Error", "Impression", "Creatives", "Extensions"],
        ["Duration", "TrackingEvents", "VideoClicks", "MediaFiles"],
        ["Linear"],
    ),
    "3.0": (
        ["AdSystem", "AdTitle", "Pricing", "Error", "Impression", "Creatives", "Extensions"],
        ["Duration", "TrackingEvents", "VideoClicks", "MediaFiles"],
        ["Linear"],
    ),
    "4.0": (
        ["AdSystem", "Error", "Extensions", "Impression", "Pricing", "ViewableImpression", "AdTitle", "Creatives"],
        ["TrackingEvents", "Duration", "MediaFiles", "VideoClicks"],
        ["Linear", "UniversalAdId"],
    ),
    "4.2": (
        [
            *("AdSystem", "Error", "Extensions", "Impression", "Pricing", "ViewableImpression"),
            *("AdServingId", "AdTitle", "Creatives"),
        ],
        ["TrackingEvents", "Duration", "MediaFiles", "VideoClicks"],
        ["Linear", "UniversalAdId"],
    ),
}


@pytest.mark.parametrize("version", IN_ORDER)
def test_each_version_has_its_own_elements_in_its_own_order(trackers: Trackers, version: str) -> None:
    creative = catalog([{"id": "x", "pricing": "cpm", "bid_micros": 1}]).creatives[0]
    document = vast.inline(IDENTITY, creative, "t", trackers, vast.Player(VERSIONS[version], 5))
    assert (vast.NAMESPACE in document) == (version >= "4.0")
    root = _plain(document)
    linear, creatives = root.find(".//Linear"), root.find(".//Creative")
    found = tuple([e.tag for e in part] for part in (root.find("Ad/InLine"), linear, creatives))
    assert root.get("version") == version and found == IN_ORDER[version]
    assert linear.get("skipoffset") == (None if version == "2.0" else "00:00:05")
    events = {e.get("event") for e in root.iter("Tracking")}
    assert ("progress" in events) == ("skip" in events) == (version >= "3.0")


@pytest.mark.parametrize(
    ("protocols", "answered"),
    [([], "4.2"), ([2, 5], "2.0"), ([2, 3], "3.0"), ([7], "4.0"), ([3, 11, 9], "4.1"), ([14, 16], "4.2"), ([9], None)],
)
def test_the_newest_version_that_the_player_knows(protocols: list[int], answered: str | None) -> None:
    found = newest_of(protocols)
    assert (found.name if found else None) == answered


def test_a_document_newer_than_the_player_is_refused(trackers: Trackers) -> None:
    player = vast.Player(VERSIONS["3.0"])
    with pytest.raises(NotVast, match="102"):
        vast.with_trackers(DSP.replace('"3.0"', '"4.1"'), IDENTITY, trackers, LIMIT, player)
    assert vast.with_trackers(DSP, IDENTITY, trackers, LIMIT, player)


def test_a_nonlinear_ad_gets_our_trackers_where_it_has_its_own(trackers: Trackers) -> None:
    non_linear = (
        "<NonLinearAds><NonLinear width='1' height='1'><StaticResource creativeType='image/png'>https://x.test/"
    )
    non_linear += "</StaticResource></NonLinear></NonLinearAds>"
    document = DSP.replace(DSP[DSP.index("<Linear>") : DSP.index("</Linear>") + 9], non_linear)
    root = _plain(vast.with_trackers(document, IDENTITY, trackers, LIMIT))
    assert root.findtext(".//NonLinearClickTracking") == trackers.urls["click"]
    assert len(root.findall(".//NonLinearAds/TrackingEvents/Tracking")) == 18
    assert root.find(".//CompanionAds") is not None, "companions pass through"
