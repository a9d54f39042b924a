"""VAST answers: our own InLine ads, DSPs' documents with our trackers put in, and pods of both.

Our own documents have the version that the player knows (vast_versions.py). A DSP's document keeps its own, with all
that is in it (NonLinear, companions, icons, AdVerifications); one that is no VAST, or newer than the player, is
refused (vast_parse.py), and an address instead of a document is wrapped.
Source: IAB VAST 4.2 §2.3 (structure), §2.4.2 (pods), §3.7 Pricing, §3.14 (tracking events), §3.8 (errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lxml import etree

from schemas.catalog import Creative
from schemas.money import to_decimal
from serving.adserver.markup import media
from serving.adserver.markup.merging import merge
from serving.adserver.markup.trackers import Trackers
from serving.adserver.markup.vast_parse import MOST_CREATIVES, NotVast, ads_of, child, descend, elements, parsed
from serving.adserver.markup.vast_versions import (
    NAMESPACE,
    NEWEST,
    VERSIONS,
    Version,
    name_of,
    newest_of,
    put,
    version_of,
)
from serving.adserver.openrtb.messages import Imp

__all__ = ["EMPTY", "NAMESPACE", "AdIdentity", "NotVast", "Player"]

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
EMPTY = f"{_DECLARATION}{VERSIONS[NEWEST].root}/>\n"
_AD_SYSTEM = '<AdSystem version="1">Headwater</AdSystem>'


@dataclass(frozen=True, slots=True)
class Player:
    """What the player can do. `skip_offset_s` is when it shows its skip button; None: the ad may not be skipped."""

    version: Version = VERSIONS[NEWEST]
    skip_offset_s: int | None = None
    skip_longer_than_s: int = 0


ANY_PLAYER = Player()


def player_of(imp: Imp) -> Player | None:
    """The player of a video or audio imp; None when it knows no version that we answer in.

    Source: OpenRTB 2.6 §3.2.7 Video (`protocols`, `skip`, `skipmin`, `skipafter`), §3.2.8 Audio.
    """
    video = imp.video
    protocols = video.protocols if video is not None else getattr(imp.audio, "protocols", ())
    version = newest_of(protocols)
    if version is None:
        return None
    if video is None or video.skip != 1:
        return ANY_PLAYER if version.name == NEWEST else Player(version)
    return Player(version, getattr(video, "skipafter", 0), getattr(video, "skipmin", 0))


@dataclass(frozen=True, slots=True)
class AdIdentity:
    """What the answer says about the ad: ids, and the price as §3.7 `Pricing`.

    `price_micros` is a CPM, or the price of a click when `pricing` is cpc. `expires_s`: within which time of the answer
    it may be shown; 0 says nothing about it.
    """

    record_id: str
    advertiser_id: str
    campaign_id: str
    line_item_id: str
    creative_id: str
    pricing: str
    price_micros: int
    currency: str
    expires_s: int = 0

    def pricing_element(self) -> str:
        model = self.pricing if self.pricing in ("cpc", "cpv") else "cpm"
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


def inline(
    identity: AdIdentity, creative: Creative, title: str, trackers: Trackers, player: Player = ANY_PLAYER
) -> str:
    """Our own video or audio ad. Shape: a whole document with one InLine."""
    version = player.version
    seconds = creative.duration_s or 0
    file = f"<MediaFile {media.attributes(creative)}>{_cdata(creative.media_url)}</MediaFile>"
    clicks = {"ClickThrough": f"<ClickThrough>{_cdata(creative.landing_url)}</ClickThrough>"}
    linear = {
        "TrackingEvents": _tracking(trackers, version),
        "Duration": f"<Duration>{_duration(seconds)}</Duration>",
        "MediaFiles": f"<MediaFiles>{file}</MediaFiles>",
        "VideoClicks": _video_clicks(trackers, version, clicks),
    }
    skippable = player.skip_offset_s is not None and seconds > player.skip_longer_than_s and version.name >= "3.0"
    skip = f' skipoffset="{_duration(player.skip_offset_s or 0)}"' if skippable else ""
    universal_id = f"{escape(creative.id)}.{creative.version}"
    value = f' idValue="{_attribute(creative.id)}.{creative.version}"' if version.name == "4.0" else ""
    parts = {
        "Linear": f"<Linear{skip}>{version.joined('Linear', linear)}</Linear>",
        "UniversalAdId": f'<UniversalAdId idRegistry="headwater"{value}>{universal_id}</UniversalAdId>',
    }
    body = _head(identity, trackers) | {
        "AdServingId": f"<AdServingId>{escape(identity.record_id)}</AdServingId>",
        "AdTitle": f"<AdTitle>{escape(title)}</AdTitle>",
        "Creatives": f'<Creatives><Creative id="{_attribute(creative.id)}">'
        f"{version.joined('Creative', parts)}</Creative></Creatives>",
    }
    if identity.expires_s:
        body["Expires"] = f"<Expires>{identity.expires_s}</Expires>"
    kind = ' adType="audio"' if creative.format == "audio" and version.name >= "4.1" else ""
    return _document(identity, version, f"<InLine>{version.joined('InLine', body)}</InLine>", kind)


def wrapper(identity: AdIdentity, tag_url: str, trackers: Trackers, player: Player = ANY_PLAYER) -> str:
    """A Wrapper around another server's address, with our trackers."""
    version = player.version
    linear = {
        "TrackingEvents": _tracking(trackers, version),
        "VideoClicks": _video_clicks(trackers, version, {}),
    }
    body = _head(identity, trackers) | {
        "Impression": _impression(trackers, with_id=version.name >= "4.0"),  # older Wrappers have none
        "VASTAdTagURI": f"<VASTAdTagURI>{_cdata(tag_url)}</VASTAdTagURI>",
        "Creatives": f'<Creatives><Creative id="{_attribute(identity.creative_id)}"><Linear>'
        f"{version.joined('Linear', linear)}</Linear></Creative></Creatives>",
    }
    return _document(identity, version, f"<Wrapper>{version.joined('Wrapper', body)}</Wrapper>")


def pod(documents: Sequence[str], version: Version) -> str:
    """One document of several, each with one Ad of ours or made by `with_trackers`, in playing order.

    Source: VAST 4.2 §2.4.2.2 (ad pods: `sequence` counts from 1). Errors: ValueError for a version without pods.
    """
    if not version.has_pods:
        raise ValueError(f"VAST {version.name} has no pods")
    ads = []
    for place, document in enumerate(documents, 1):
        start = document.find("<Ad ") if document.startswith(_DECLARATION) else -1  # ours: no need to parse it again
        if start >= 0:
            ad = document[start : document.rindex("</VAST>")]
        else:
            root = etree.fromstring(document.encode(), etree.XMLParser(resolve_entities=False, strip_cdata=False))
            ad = etree.tostring(ads_of(root)[0][0], encoding="unicode", with_tail=False)
        name, _, rest = ad.partition(" ")
        ads.append(f'{name} sequence="{place}" {rest}')
    return f"{_DECLARATION}{version.root}>{''.join(ads)}</VAST>\n"


def answer(documents: Sequence[str], imp: Imp, is_pod: bool) -> str:
    """What the player of an imp gets: the ad, the pod of its ads, or a document without an Ad.

    A player of VAST 2.0 knows no pods, and is sold one ad (doors/player_tag.py).
    """
    if not documents:
        return EMPTY
    version = (player_of(imp) or ANY_PLAYER).version
    return pod(documents, version) if is_pod and version.has_pods else documents[0]


def with_trackers(
    markup: str,
    identity: AdIdentity,
    trackers: Trackers,
    limit_bytes: int,
    player: Player = ANY_PLAYER,
    unwrapped: bytes | None = None,
) -> str:
    """A DSP's VAST with our trackers, price and ids in it. Errors: NotVast.

    `unwrapped` is the InLine document that it leads to (unwrap.py), which is then shown in its place.
    """
    text = markup.strip()
    is_address = text.startswith(("http://", "https://"))
    try:
        raw = text.encode()
    except UnicodeEncodeError as e:
        raise NotVast("100: not Unicode") from e
    if is_address and (not text.isprintable() or " " in text):
        raise NotVast("100: neither an address nor XML")
    if unwrapped is not None:
        inner = parsed(unwrapped, len(unwrapped))
        if not is_address:
            for _, outer in ads_of(parsed(raw, limit_bytes))[:1]:
                merge(outer, ads_of(inner)[0][1], version_of(inner))
        return tracked(inner, identity, trackers, player)
    if is_address:
        return wrapper(identity, text, trackers, player)
    root = parsed(raw, limit_bytes)
    return tracked(root, identity, trackers, player)


def tracked(root: etree._Element, identity: AdIdentity, trackers: Trackers, player: Player = ANY_PLAYER) -> str:
    """The first Ad of a parsed document as one of ours; the tree is changed. Errors: NotVast."""
    version = version_of(root)
    if version.name[0] > player.version.name[0]:
        raise NotVast(f"102: VAST {version.name} for a player of {player.version.name}")
    ads = ads_of(root)
    if not ads:
        raise NotVast("303: no Ad in it" if child(root, "Ad") is None else "101: neither InLine nor Wrapper in its Ad")
    ad, body = ads[0]
    for other in list(root):
        if other is not ad:  # one winner is billed, so one ad is shown
            root.remove(other)
    ad.set("id", identity.record_id)
    ad.attrib.pop("sequence", None)
    for pricing in list(descend(body, "Pricing")):
        body.remove(pricing)  # the DSP's price is not what was paid
    insert(body, version, identity, trackers, player, identity.pricing_element())
    return etree.tostring(root, encoding="unicode")


def insert(
    body: etree._Element,
    version: Version,
    identity: AdIdentity,
    trackers: Trackers,
    player: Player = ANY_PLAYER,
    pricing: str = "",
) -> None:
    """Puts our trackers and ids into another's InLine or Wrapper. Errors: NotVast for one that shows nothing."""
    linears = list(descend(body, "Creatives", "Creative", "Linear"))
    non_linears = list(descend(body, "Creatives", "Creative", "NonLinearAds"))
    if len(linears) + len(non_linears) > MOST_CREATIVES:
        raise NotVast(f"more than {MOST_CREATIVES} creatives")
    if not linears and not non_linears and name_of(body) == "InLine":
        raise NotVast("201: neither Linear nor NonLinear creative")
    _insert_into_body(body, version, _head(identity, trackers) | {"Pricing": pricing}, trackers, player, identity)
    for linear in linears:
        _insert_into_linear(linear, version, trackers)
    for non_linear in non_linears if not linears else ():
        _insert_tracking(non_linear, version, trackers)
        for shown in descend(non_linear, "NonLinear"):
            _insert_non_linear_click(shown, version, trackers)
    if not linears and not non_linears:
        _add_linear(body, version, trackers)


def _document(identity: AdIdentity, version: Version, ad: str, kind: str = "") -> str:
    return f'{_DECLARATION}{version.root}><Ad id="{_attribute(identity.record_id)}"{kind}>{ad}</Ad></VAST>\n'


def _head(identity: AdIdentity, trackers: Trackers) -> dict[str, str]:
    """Elements that InLine and Wrapper share."""
    return {
        "AdSystem": _AD_SYSTEM,
        "Error": _error(trackers),
        "Extensions": f"<Extensions>{identity.extension()}</Extensions>",
        "Impression": _impression(trackers),
        "Pricing": identity.pricing_element(),
        "ViewableImpression": _viewable(trackers),
    }


def _impression(trackers: Trackers, with_id: bool = True) -> str:
    url = trackers.urls.get("impression")
    name = ' id="headwater"' if with_id else ""
    # the XSD asks for one Impression; an ad that may not be counted has an empty one, which players skip
    return f"<Impression{name}>{_cdata(url)}</Impression>" if url else f"<Impression{name}/>"


def _error(trackers: Trackers) -> str:
    url = trackers.urls.get("error")
    return f"<Error>{_cdata(url + '?code=[ERRORCODE]')}</Error>" if url else ""


def _viewable(trackers: Trackers) -> str:
    url = trackers.urls.get("viewable")
    return f'<ViewableImpression id="headwater"><Viewable>{_cdata(url)}</Viewable></ViewableImpression>' if url else ""


def _click(trackers: Trackers) -> str:
    url = trackers.urls.get("click")
    return f'<ClickTracking id="headwater">{_cdata(url)}</ClickTracking>' if url else ""


def _video_clicks(trackers: Trackers, version: Version, others: dict[str, str]) -> str:
    children = version.joined("VideoClicks", {"ClickTracking": _click(trackers)} | others)
    return f"<VideoClicks>{children}</VideoClicks>"


def _tracking(trackers: Trackers, version: Version) -> str:
    events = "".join(
        f'<Tracking event="{name}">{_cdata(url)}</Tracking>'
        for name, url in trackers.linear()
        if version.knows_event(name)
    )
    if version.knows_event("progress"):
        events += "".join(
            f'<Tracking event="progress" offset="{percent}%">{_cdata(url)}</Tracking>'
            for percent, url in trackers.progress.items()
        )
    return f"<TrackingEvents>{events}</TrackingEvents>" if events else ""


def _duration(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _cdata(text: str) -> str:
    return f"<![CDATA[{text.replace(']]>', ']]]]><![CDATA[>')}]]>"


def _attribute(text: str) -> str:
    return escape(text, {'"': "&quot;"})


def _insert_into_body(
    body: etree._Element,
    version: Version,
    head: dict[str, str],
    trackers: Trackers,
    player: Player,
    identity: AdIdentity,
) -> None:
    parts = {name: xml for name, xml in head.items() if xml and name != "AdSystem"}
    if (extensions := child(body, "Extensions")) is not None:
        extensions.extend(elements(body, identity.extension()))
        del parts["Extensions"]
    if (viewable := child(body, "ViewableImpression")) is not None:  # there may be one; ours joins it
        if "viewable" in trackers.urls:
            viewable[0:0] = elements(body, f"<Viewable>{_cdata(trackers.urls['viewable'])}</Viewable>")
        parts.pop("ViewableImpression", None)
    parent = name_of(body)
    # a player of VAST 4 reads ViewableImpression in older documents too, and viewability is worth that
    versions = {name: player.version if name == "ViewableImpression" else version for name in parts}
    known = [xml for name, xml in parts.items() if versions[name].knows(parent, name)]
    for element in elements(body, "".join(known)):
        put(body, element, versions[name_of(element)])


def _insert_into_linear(linear: etree._Element, version: Version, trackers: Trackers) -> None:
    _insert_tracking(linear, version, trackers)
    if (clicks := child(linear, "VideoClicks")) is None:
        for ours in elements(linear, _video_clicks(trackers, version, {})):
            put(linear, ours, version)
        return
    for element in elements(linear, _click(trackers)):
        put(clicks, element, version)


def _insert_non_linear_click(shown: etree._Element, version: Version, trackers: Trackers) -> None:
    """`NonLinearClickTracking` came with 3.0, where it stands in front of the click-through."""
    url = trackers.urls.get("click")
    if not url or version.name < "3.0":
        return
    (ours,) = elements(shown, f"<NonLinearClickTracking>{_cdata(url)}</NonLinearClickTracking>")
    through = child(shown, "NonLinearClickThrough")
    if version.name < "4.0" and through is not None:
        through.addprevious(ours)
    else:
        shown.append(ours)


def _insert_tracking(parent: etree._Element, version: Version, trackers: Trackers) -> None:
    for ours in elements(parent, _tracking(trackers, version)):
        if (events := child(parent, "TrackingEvents")) is not None:
            events.extend(list(ours))
        else:
            put(parent, ours, version)


def _add_linear(wrapping: etree._Element, version: Version, trackers: Trackers) -> None:
    """Our trackers in a Linear of their own, for a Wrapper that has none: players merge it with the wrapped ad's."""
    linear = f"<Linear>{_tracking(trackers, version)}{_video_clicks(trackers, version, {})}</Linear>"
    creative = f"<Creative>{linear}</Creative>"
    if (existing := child(wrapping, "Creatives")) is not None:
        existing.extend(elements(wrapping, creative))
    else:
        (creatives,) = elements(wrapping, f"<Creatives>{creative}</Creatives>")
        put(wrapping, creatives, version)
