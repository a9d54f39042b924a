"""VAST 4.2 answers: our own InLine ads, and DSPs' documents with our trackers put in.

A DSP's document is hostile input: no entities, no DTD, no network, a size limit; one that is no VAST is refused, and
an address instead of a document is wrapped.
Source: IAB VAST 4.2 §2.3 (structure), §3.14 (tracking events), §3.8 (errors); elements in the order of its XSD.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from lxml import etree

from schemas.catalog import Creative
from schemas.money import to_decimal
from serving.adserver.markup.trackers import Trackers

NAMESPACE = "http://www.iab.com/VAST"
EMPTY = f'<?xml version="1.0" encoding="UTF-8"?>\n<VAST version="4.2" xmlns="{NAMESPACE}"/>\n'
_AD_SYSTEM = '<AdSystem version="1">Headwater</AdSystem>'


class NotVast(Exception):
    """A document that can't be shown; the message says why."""


@dataclass(frozen=True, slots=True)
class AdIdentity:
    """What the answer says about the ad: ids, and the price as §3.7 `Pricing`.

    `price_micros` is a CPM, or the price of a click when `pricing` is cpc.
    """

    record_id: str
    advertiser_id: str
    campaign_id: str
    line_item_id: str
    creative_id: str
    pricing: str
    price_micros: int
    currency: str

    def pricing_element(self) -> str:
        model = "cpc" if self.pricing == "cpc" else "cpm"
        return (
            f'<Pricing model="{model}" currency="{escape(self.currency)}">'
            f"{_cdata(to_decimal(self.price_micros))}</Pricing>"
        )

    def extension(self) -> str:
        return (
            f'<Extension type="headwater"><RecordId>{escape(self.record_id)}</RecordId>'
            f"<AdvertiserId>{escape(self.advertiser_id)}</AdvertiserId>"
            f"<CampaignId>{escape(self.campaign_id)}</CampaignId>"
            f"<LineItemId>{escape(self.line_item_id)}</LineItemId>"
            f"<CreativeId>{escape(self.creative_id)}</CreativeId>"
            f"<Pricing>{escape(self.pricing)}</Pricing></Extension>"
        )


def inline(identity: AdIdentity, creative: Creative, title: str, trackers: Trackers) -> str:
    """Our own video ad. Shape: a whole document with one InLine."""
    mime = escape(creative.mime or "video/mp4")
    return _document(
        identity,
        f"<InLine>{_head(identity, trackers)}"
        f"<AdServingId>{escape(identity.record_id)}</AdServingId><AdTitle>{escape(title)}</AdTitle>"
        f'<Creatives><Creative id="{_attribute(creative.id)}">'
        f'<UniversalAdId idRegistry="headwater">{escape(creative.id)}.{creative.version}</UniversalAdId>'
        f"<Linear>{_tracking(trackers)}<Duration>{_duration(creative.duration_s or 0)}</Duration><MediaFiles>"
        f'<MediaFile delivery="progressive" type="{mime}" width="{creative.width}" height="{creative.height}">'
        f"{_cdata(creative.media_url)}</MediaFile></MediaFiles>"
        f"<VideoClicks><ClickThrough>{_cdata(creative.landing_url)}</ClickThrough>{_click(trackers)}</VideoClicks>"
        "</Linear></Creative></Creatives></InLine>",
    )


def wrapper(identity: AdIdentity, tag_url: str, trackers: Trackers) -> str:
    """A Wrapper around another server's address, with our trackers."""
    return _document(
        identity,
        f"<Wrapper>{_head(identity, trackers)}<VASTAdTagURI>{_cdata(tag_url)}</VASTAdTagURI>"
        f'<Creatives><Creative id="{_attribute(identity.creative_id)}"><Linear>{_tracking(trackers)}'
        f"<VideoClicks>{_click(trackers)}</VideoClicks></Linear></Creative></Creatives></Wrapper>",
    )


def _document(identity: AdIdentity, ad: str) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<VAST version="4.2" xmlns="{NAMESPACE}">'
        f'<Ad id="{_attribute(identity.record_id)}">{ad}</Ad></VAST>\n'
    )


def _head(identity: AdIdentity, trackers: Trackers) -> str:
    """Elements that InLine and Wrapper share, in the XSD's order."""
    return (
        f"{_AD_SYSTEM}{_error(trackers)}<Extensions>{identity.extension()}</Extensions>"
        f"{_impression(trackers)}{identity.pricing_element()}{_viewable(trackers)}"
    )


def _impression(trackers: Trackers) -> str:
    url = trackers.urls.get("impression")
    # the XSD asks for one Impression; an ad that may not be counted has an empty one, which players skip
    return f'<Impression id="headwater">{_cdata(url)}</Impression>' if url else '<Impression id="headwater"/>'


def _error(trackers: Trackers) -> str:
    url = trackers.urls.get("error")
    return f"<Error>{_cdata(url + '?code=[ERRORCODE]')}</Error>" if url else ""


def _viewable(trackers: Trackers) -> str:
    url = trackers.urls.get("viewable")
    return f'<ViewableImpression id="headwater"><Viewable>{_cdata(url)}</Viewable></ViewableImpression>' if url else ""


def _click(trackers: Trackers) -> str:
    url = trackers.urls.get("click")
    return f'<ClickTracking id="headwater">{_cdata(url)}</ClickTracking>' if url else ""


def _tracking(trackers: Trackers) -> str:
    events = "".join(f'<Tracking event="{name}">{_cdata(url)}</Tracking>' for name, url in trackers.linear())
    progress = "".join(
        f'<Tracking event="progress" offset="{percent}%">{_cdata(url)}</Tracking>'
        for percent, url in trackers.progress.items()
    )
    return f"<TrackingEvents>{events}{progress}</TrackingEvents>" if events or progress else ""


def _duration(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _cdata(text: str) -> str:
    return f"<![CDATA[{text.replace(']]>', ']]]]><![CDATA[>')}]]>"


def _attribute(text: str) -> str:
    return escape(text, {'"': "&quot;"})


def with_trackers(markup: str, identity: AdIdentity, trackers: Trackers, limit_bytes: int) -> str:
    """A DSP's VAST with our trackers, price and ids in it. Errors: NotVast."""
    text = markup.strip()
    if text.startswith(("http://", "https://")) and not any(c.isspace() for c in text):
        return wrapper(identity, text, trackers)
    root = _parsed(text.encode(), limit_bytes)
    ads = [a for a in root.iterchildren() if _name(a) == "Ad"]
    if not ads:
        raise NotVast("no Ad in it")
    for extra in ads[1:]:  # one winner is billed, so one ad is shown
        root.remove(extra)
    ad = ads[0]
    body = next((c for c in ad.iterchildren() if _name(c) in ("InLine", "Wrapper")), None)
    if body is None:
        raise NotVast("neither InLine nor Wrapper in its Ad")
    linears = [e for e in body.iter() if _name(e) == "Linear"]
    if not linears and _name(body) == "InLine":
        raise NotVast("no Linear creative")
    ad.set("id", identity.record_id)
    _insert_into_body(body, identity, trackers)
    for linear in linears:
        _insert_into_linear(linear, trackers)
    if not linears:
        _add_linear(body, trackers)
    return etree.tostring(root, encoding="unicode")


def _parsed(text: bytes, limit_bytes: int) -> etree._Element:
    if len(text) > limit_bytes:
        raise NotVast(f"longer than {limit_bytes} bytes")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        strip_cdata=False,
    )
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as e:
        raise NotVast(f"not XML: {e}") from e
    if root.getroottree().docinfo.internalDTD is not None:
        raise NotVast("a document type is not allowed")
    if _name(root) != "VAST":
        raise NotVast("its root is not VAST")
    return root


def _name(element: etree._Element) -> str:
    """Name without namespace; DSPs send both."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _elements(parent: etree._Element, xml: str) -> list[etree._Element]:
    """Elements of a fragment of ours, in the parent's namespace, so that readers find them beside the DSP's own."""
    namespace = etree.QName(parent).namespace
    declared = f' xmlns="{namespace}"' if namespace else ""
    return list(etree.fromstring(f"<x{declared}>{xml}</x>", etree.XMLParser(strip_cdata=False)))


def _insert_into_body(body: etree._Element, identity: AdIdentity, trackers: Trackers) -> None:
    for child in list(body):
        if _name(child) == "Pricing":
            body.remove(child)  # the DSP's price is not what was paid
    existing = {_name(c): c for c in body}
    extensions = existing.get("Extensions")
    if extensions is not None:
        extensions.extend(_elements(body, identity.extension()))
        added = ""
    else:
        added = f"<Extensions>{identity.extension()}</Extensions>"
    added = f"{_error(trackers)}{added}{_impression(trackers)}{identity.pricing_element()}{_viewable(trackers)}"
    after_system = 1 + next((i for i, c in enumerate(body) if _name(c) == "AdSystem"), -1)
    body[after_system:after_system] = _elements(body, added)


def _insert_into_linear(linear: etree._Element, trackers: Trackers) -> None:
    children = {_name(c): c for c in linear}
    (ours,) = _elements(linear, _tracking(trackers))
    if (events := children.get("TrackingEvents")) is not None:
        events.extend(list(ours))
    else:
        linear.insert(0, ours)
    click = _elements(linear, _click(trackers))
    if (clicks := children.get("VideoClicks")) is not None:
        clicks.extend(click)
    else:
        linear.extend(_elements(linear, f"<VideoClicks>{_click(trackers)}</VideoClicks>"))


def _add_linear(wrapping: etree._Element, trackers: Trackers) -> None:
    """Our trackers in a Linear of their own, for a Wrapper that has none: players merge it with the wrapped ad's."""
    linear = f"<Linear>{_tracking(trackers)}<VideoClicks>{_click(trackers)}</VideoClicks></Linear>"
    creative = f"<Creative>{linear}</Creative>"
    existing = next((c for c in wrapping if _name(c) == "Creatives"), None)
    if existing is not None:
        existing.extend(_elements(wrapping, creative))
    else:
        wrapping.extend(_elements(wrapping, f"<Creatives>{creative}</Creatives>"))
