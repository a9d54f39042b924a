"""VAST as hostile input, at every place that reads other people's: it is refused or shown, and never anything else."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from schemas.ids import encode_id
from serving.adserver.markup import vast
from serving.adserver.markup.adopt import outside_ads
from serving.adserver.markup.trackers import Trackers
from serving.adserver.markup.vast_versions import VERSIONS
from tests.samples.outside_vast import document

LIMIT = 262_144
IDENTITY = vast.AdIdentity(encode_id(bytes(16)), "adv", "cmp", "li", "cr", "rtb", 1_000_000, "USD")
EVENTS = ("impression", "viewable", "click", "error", "start", "complete")
TRACKERS = Trackers({e: f"https://t.test/{e}" for e in EVENTS}, {10: "https://t.test/10"})
GOOD = document("https://o.test", 1)
#: Longest that one document may take, by far: a bomb takes minutes or all memory.
BOUND_S = 2.0

_LOLS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(10))
BOMBS = {
    "billion laughs": f"<!DOCTYPE VAST [{_LOLS}]>{GOOD.replace('>t<', '>&l9;<')}",
    "quadratic": f'<!DOCTYPE VAST [<!ENTITY a "{"a" * 50_000}">]>{GOOD.replace(">t<", ">" + "&a;" * 50 + "<")}',
    "external entity": f'<!DOCTYPE VAST [<!ENTITY a SYSTEM "file:///etc/passwd">]>{GOOD.replace(">t<", ">&a;<")}',
    "parameter entity": f'<!DOCTYPE VAST [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]>{GOOD}',
    "external subset": f'<!DOCTYPE VAST SYSTEM "http://127.0.0.1:9/x.dtd">{GOOD}',
    "undeclared entity": GOOD.replace(">t<", ">&nbsp;<"),
    "deep": "<VAST><Ad><InLine>" + "<a>" * 20_000 + "</a>" * 20_000 + "</InLine></Ad></VAST>",
    "five megabytes": GOOD.replace(">t<", f">{'x' * 5_000_000}<"),
    "long attribute": GOOD.replace('id="out-0"', f'id="{"x" * 240_000}" y="{"z" * 20_000}"'),
    "long name": f"<VAST><{'x' * 200_000}/></VAST>",
    "null": GOOD.replace(">t<", ">\0<"),
    "cut": GOOD[: len(GOOD) // 2],
    "two roots": GOOD + GOOD,
    "not the namespace's root": GOOD.replace("VAST", "vast"),
    "lone surrogate": GOOD.replace(">t<", ">\ud800<"),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_at_once(bomb: str) -> None:
    started_s = time.process_time()
    with pytest.raises(vast.NotVast):
        vast.with_trackers(bomb, IDENTITY, TRACKERS, LIMIT)
    with pytest.raises(vast.NotVast):
        outside_ads(bomb.encode("utf-8", "surrogatepass"), LIMIT)
    assert time.process_time() - started_s < BOUND_S


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-7", "cp037", "shift_jis", "none-such"])
def test_encodings_that_are_not_what_they_say(encoding: str) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{GOOD}'
    for raw in (declared.encode(), GOOD.encode("utf-16"), b"\xef\xbb\xbf" + declared.encode("utf-16-be")):
        try:
            root, ads = outside_ads(raw, LIMIT)
        except vast.NotVast:
            continue
        assert len(ads) == 1 and etree.tostring(root)


@pytest.mark.parametrize(
    "namespace", ["a&amp;b", "a&amp;amp;b", "&#38;", "'", "urn:x:&#x27;", "a&#10;b", "&lt;", "&quot;"]
)
def test_a_namespace_is_any_text(namespace: str) -> None:
    odd = GOOD.replace("http://www.iab.com/VAST", namespace)
    odd = odd if odd != GOOD else GOOD.replace("<VAST ", f'<VAST xmlns="{namespace}" ')
    try:
        answer = vast.with_trackers(odd, IDENTITY, TRACKERS, LIMIT)
    except vast.NotVast:
        return  # libxml2's own opinion of what is a URI
    root = etree.fromstring(answer.encode())
    ours = [e for e in root.iter(etree.Element) if e.text == TRACKERS.urls["impression"]]
    assert [etree.QName(e).namespace for e in ours] == [etree.QName(root).namespace]
    outside, ads = outside_ads(odd.encode(), LIMIT)
    for ad in ads:
        ad.fill(lambda event, ordinal: f"https://t.test/{event}/{ordinal}")
        vast.insert(ad.body, ad.version, IDENTITY, TRACKERS)
    assert etree.fromstring(etree.tostring(outside, encoding="UTF-8")) is not None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(GOOD)),
            st.integers(0, 40),
            st.sampled_from(
                ["", "<", ">", "&", '"', "<Ad>", "</Ad>", "<Linear/>", "]]>", "<![CDATA[", "<?x?>", "é", "<Wrapper/>"]
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
@example([(6, 0, "é")])
def test_damaged_documents_are_refused_or_whole(cuts: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for at, length, put in cuts:
        text = text[:at] + put + text[at + length :]
    try:
        answer = vast.with_trackers(text, IDENTITY, TRACKERS, LIMIT)
    except vast.NotVast:
        pass
    else:
        root = etree.fromstring(answer.encode())
        ours = [e.text for e in root.iter(etree.Element) if e.text == TRACKERS.urls["impression"]]
        assert len(ours) == 1, "what is shown is counted once"
    try:
        root, ads = outside_ads(text.encode(), LIMIT)
    except vast.NotVast:
        return
    for ad in ads:
        ad.fill(lambda event, ordinal: f"https://t.test/{event}/{ordinal}")
        try:
            vast.insert(ad.body, ad.version, IDENTITY, TRACKERS)
        except vast.NotVast:
            continue
    etree.fromstring(etree.tostring(root, encoding="UTF-8"))


@given(
    st.sampled_from(["", "https://x.test/"]), st.text(st.characters(), max_size=60), st.sampled_from(sorted(VERSIONS))
)
def test_any_text_is_refused_or_wrapped(start: str, text: str, version: str) -> None:
    try:
        answer = vast.with_trackers(start + text, IDENTITY, TRACKERS, LIMIT, vast.Player(VERSIONS[version]))
    except vast.NotVast:
        return
    assert etree.fromstring(answer.encode()).get("version")
