"""Chains of wrappers: merged as a player merges them, followed with limits, and broken ones are known as such."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lxml import etree

from schemas.decisions import Outcome
from schemas.errors import TimedOut, Unavailable
from serving.adserver.markup.fetch import VastFetcher
from serving.adserver.markup.unwrap import Broken, Limits, Unwrapper
from serving.adserver.markup.vast import NotVast
from serving.adserver.openrtb.messages import decode_request
from tests.samples.adserver import COLLECTOR_URL, PlannedBidders, PlannedStore, bid_request, decider

INLINE = """<VAST version="{v}"{ns}><Ad id="in"><InLine><AdSystem>x</AdSystem><AdTitle>t</AdTitle>
<Impression>https://in.test/i</Impression><Creatives><Creative><Linear><Duration>00:00:15</Duration><MediaFiles>
<MediaFile delivery="progressive" type="video/mp4" width="1" height="1">https://m.test/a.mp4</MediaFile></MediaFiles>
<VideoClicks><ClickThrough>https://brand.test/</ClickThrough></VideoClicks></Linear></Creative></Creatives>{more}
</InLine></Ad></VAST>"""
WRAPPER = """<VAST version="4.2" xmlns="http://www.iab.com/VAST"><Ad id="w"><Wrapper{how}><AdSystem>w</AdSystem>
<Error>https://{n}.test/e</Error><Impression>https://{n}.test/i</Impression><ViewableImpression><Viewable>
https://{n}.test/v</Viewable></ViewableImpression><AdVerifications><Verification vendor="{n}"><JavaScriptResource>
https://{n}.test/omid.js</JavaScriptResource></Verification></AdVerifications><Creatives><Creative><Linear>
<TrackingEvents><Tracking event="start">https://{n}.test/s</Tracking></TrackingEvents><VideoClicks><ClickTracking>
https://{n}.test/c</ClickTracking></VideoClicks></Linear></Creative></Creatives><VASTAdTagURI>{to}</VASTAdTagURI>
</Wrapper></Ad></VAST>"""


def inline(version: str = "4.2", namespace: bool = True, more: str = "") -> str:
    return INLINE.format(v=version, ns=' xmlns="http://www.iab.com/VAST"' if namespace else "", more=more)


def wrapper(name: str, to: str, how: str = "") -> str:
    return WRAPPER.format(n=name, to=to, how=how)


class Web(VastFetcher):
    """Addresses and what they give, or raise."""

    def __init__(self, pages: Mapping[str, str | Exception]) -> None:
        super().__init__(100_000, allow_private=True)
        self.pages = pages
        self.asked: list[str] = []

    async def fetch(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        allowed: Callable[[str], bool] = lambda _url: True,
    ) -> bytes:
        self.asked.append(url)
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page.encode()


def _follow(markup: str, **pages: str | Exception) -> tuple[etree._Element, Web]:
    web = Web({f"https://{name}.test/": page for name, page in pages.items()})
    document = asyncio.run(Unwrapper(web, Limits()).follow(markup))
    return etree.fromstring(document), web


def _texts(root: etree._Element, name: str) -> list[str]:
    return [(e.text or "").strip() for e in root.iter(etree.Element) if etree.QName(e).localname == name]


@pytest.mark.parametrize(("version", "namespace"), [("4.2", True), ("3.0", False), ("2.0", False)])
def test_a_chain_becomes_its_inline_with_everybodys_trackers(version: str, namespace: bool) -> None:
    first = wrapper("a", "https://b.test/")
    root, web = _follow(
        first, b=wrapper("b", "https://c.test/"), c=wrapper("c", "https://d.test/"), d=inline(version, namespace)
    )
    assert web.asked == [f"https://{n}.test/" for n in "bcd"]
    assert sorted(_texts(root, "Impression")) == [f"https://{n}.test/i" for n in ("b", "c", "in")], (
        "the first is the bid's"
    )
    assert sorted(_texts(root, "Error")) == ["https://b.test/e", "https://c.test/e"]
    assert sorted(_texts(root, "ClickTracking")) == ["https://b.test/c", "https://c.test/c"]
    assert sorted(_texts(root, "Tracking")) == ["https://b.test/s", "https://c.test/s"]
    assert len(_texts(root, "JavaScriptResource")) == 2 and _texts(root, "ClickThrough") == ["https://brand.test/"]
    assert {etree.QName(e).namespace for e in root.iter(etree.Element)} == {etree.QName(root).namespace}
    if version < "4.0":
        extension = next(e for e in root.iter(etree.Element) if e.get("type") == "AdVerifications")
        assert etree.QName(extension.getparent()).localname == "Extensions"


@pytest.mark.parametrize(
    ("pages", "code"),
    [
        ({"b": "<VAST version='4.2'/>"}, "303"),
        ({"b": "no xml"}, "100"),
        ({"b": "<html/>"}, "101"),
        ({"b": wrapper("b", "https://b.test/")}, "302"),
        ({"b": wrapper("b", "https://c.test/", ' followAdditionalWrappers="false"'), "c": inline()}, "302"),
        ({"b": inline().replace("MediaFile ", "Other ").replace("</MediaFile>", "</Other>")}, "401"),
        ({"b": '<!DOCTYPE VAST [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + inline()}, "100"),
    ],
)
def test_a_broken_chain_says_why(pages: dict[str, str], code: str) -> None:
    with pytest.raises(NotVast, match=f"^{code}"):
        _follow(wrapper("a", "https://b.test/"), **pages)


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _looks(web: Web, markup: str, later_s: list[float], limits: Limits | None = None) -> list[Any]:
    """What is known of a creative at each time, with the worker having its turn in between."""

    async def run() -> list[Any]:
        clock = _Clock()
        unwrapper = Unwrapper(web, limits or Limits(), clock)
        worker = asyncio.create_task(unwrapper.run())
        found: list[Any] = []
        for at_s in later_s:
            clock.now_s = at_s
            try:
                found.append(unwrapper.look("x-d-1", markup))
            except Broken as e:
                found.append(str(e)[:3])
            for _ in range(20):
                await asyncio.sleep(0)
        worker.cancel()
        return found

    return asyncio.run(run())


def test_a_creative_is_served_wrapped_once_then_inline_until_its_time_is_over() -> None:
    web = Web({"https://b.test/": inline()})
    first, second, third, fourth = _looks(web, wrapper("a", "https://b.test/"), [0, 1, 299, 301])
    assert first is None and b"a.mp4" in second and third == second and fourth is None
    web = Web({"https://b.test/": inline(more="<Expires>10</Expires>")})
    assert [x is None for x in _looks(web, "https://b.test/", [0, 9, 11])] == [True, False, True]
    assert _looks(Web({}), inline(), [0, 1]) == [None, None], "what is not wrapped is nobody's business"


@pytest.mark.parametrize(
    ("page", "code", "life_s"),
    [("rubbish", "100", 600), (TimedOut("slow"), "301", 60), (Unavailable("away"), "300", 60)],
)
def test_a_broken_creative_is_quarantined_for_a_time(page: str | Exception, code: str, life_s: float) -> None:
    found = _looks(Web({"https://b.test/": page}), "https://b.test/", [0, 1, life_s - 1, life_s + 1])
    assert found == [None, code, code, None]


def test_what_nobody_foresaw_of_a_chain_is_that_chains_alone(caplog: pytest.LogCaptureFixture) -> None:
    web = Web({"https://b.test/": ZeroDivisionError("x"), "https://c.test/": inline()})

    async def run() -> list[Any]:
        unwrapper = Unwrapper(web, Limits())
        worker = asyncio.create_task(unwrapper.run())
        for n in range(9):  # more than there are workers
            unwrapper.look(f"x-d-{n}", "https://b.test/")
        unwrapper.look("x-d-good", "https://c.test/")
        for _ in range(100):
            await asyncio.sleep(0)
        assert not worker.done()
        worker.cancel()
        with pytest.raises(Broken, match=r"^900"):
            unwrapper.look("x-d-1", "https://b.test/")
        return [unwrapper.look("x-d-good", "https://c.test/")]

    assert asyncio.run(run()) != [None]
    assert len([r for r in caplog.records if r.exc_info]) == 9


def test_elements_that_no_version_knows_are_kept_last() -> None:
    odd = wrapper("b", "https://c.test/").replace("<VideoClicks>", "<VideoClicks><Odd>o</Odd>")
    root, _ = _follow(wrapper("a", "https://b.test/"), b=odd, c=inline())
    (clicks,) = (e for e in root.iter(etree.Element) if etree.QName(e).localname == "VideoClicks")
    names = [etree.QName(e).localname for e in clicks]
    assert sorted(names) == ["ClickThrough", "ClickTracking", "Odd"] and _texts(root, "Odd") == ["o"]


def test_memory_is_bounded() -> None:
    web = Web({"https://b.test/": inline()})

    async def run() -> int:
        unwrapper = Unwrapper(web, Limits(memory_bytes=5_000))
        worker = asyncio.create_task(unwrapper.run())
        for n in range(50):
            unwrapper.look(f"x-d-{n}", "https://b.test/")
            for _ in range(10):
                await asyncio.sleep(0)
        worker.cancel()
        assert unwrapper._bytes <= 5_000
        return len(unwrapper._found)

    assert 0 < asyncio.run(run()) < 10


def test_a_serving_shows_the_media_inline_with_the_bids_own_trackers_and_ours(tmp_path: Path) -> None:
    adm = wrapper("fresh", "https://b.test/")
    bid = {"id": "b", "impid": "1", "price": 5.0, "adm": adm, "crid": "c", "adomain": ["x.test"], "mtype": 2}
    dsps = PlannedBidders({"d": {"response": {"id": "req-1", "seatbid": [{"bid": [bid]}]}}})
    known: dict[str, Any] = {"x-d-c": inline().encode()}

    def look(creative_id: str, _markup: str) -> bytes | None:
        found = known[creative_id]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    made, _ = decider(tmp_path, [], PlannedStore(), dsps)
    made._look = look
    request = decode_request(msgspec.json.encode(bid_request()))

    async def run() -> Any:
        return (await made.decide(request, asyncio.get_running_loop().time()))[0]

    root = etree.fromstring(asyncio.run(run()).markup.encode())
    assert "https://m.test/a.mp4" in _texts(root, "MediaFile") and not _texts(root, "Wrapper")
    impressions = _texts(root, "Impression")
    assert {"https://fresh.test/i", "https://in.test/i"} < set(impressions) and len(impressions) == 3
    assert any(i.startswith(COLLECTOR_URL) for i in impressions)
    known["x-d-c"] = Broken("302: too many")
    decision = asyncio.run(run())
    assert decision.winner is None and decision.candidates[0].outcome is Outcome.CREATIVE_BROKEN
