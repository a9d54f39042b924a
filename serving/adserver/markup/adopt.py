"""Outside ad servers' VAST adopted: their trackers move into our registry record, one short token of ours per event.

What a player then fires is ours alone, and whoever was told by the document is told by the event handler, so that the
event pipeline does not depend on who served the ad. Click-throughs, media, wrapped addresses, verification scripts,
prices and ids stay as they are. What can't be moved (no http address, more events than tokens can tell apart) stays in
the document, so nobody loses a call.

| in the document | event |
| --- | --- |
| Impression, Error, Viewable, ClickTracking | ours of that name |
| Tracking start, quartiles, complete, skip, mute, acceptInvitation | ours of that name |
| Tracking `progress` with an offset | `progress`, ordinal = percent of the ad (a time needs the Duration) |
| NonLinear trackers of an ad without a Linear | likewise |
| any other Tracking, CustomClick, NotViewable, ViewUndetermined | `custom`, ordinal = which of the ad's, and `name` |
| trackers of companions, icons, verifications | likewise, each with its number in the name |

Source: VAST 4.2 §3.14 (tracking events), §3.10 (icons), §3.12 (companions), §3.16 (verifications); VAST 3.0 §2.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from lxml import etree

from schemas.events import BY_NAME, EVENT_TYPES
from schemas.ids import foreign_id
from schemas.money import to_micros
from serving.adserver.markup.vast_parse import ads_of, child, descend, parsed, seconds, text_of
from serving.adserver.markup.vast_versions import Version, name_of, version_of

CUSTOM, PROGRESS = "custom", "progress"
MOST_CUSTOM = 255  # a token's ordinal is one byte
_LONGEST_URL = 8_192
_EVENT_OF = {t.vast_event: t.name for t in EVENT_TYPES if t.vast_event} | {"acceptInvitationLinear": "engage"}
_PRICE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,12})?")

#: Gives our URL of an event: (event type, ordinal).
UrlOf = Callable[[str, int], str]


@dataclass(slots=True)
class OutsideAd:
    """One Ad of an outside document. `trackers` are its third parties' URLs as the registry record has them.

    `price_micros` is a CPM, CPC or CPV by `pricing`; 0 when the document does not say one.
    """

    ad: etree._Element
    body: etree._Element
    version: Version
    system: str
    ad_id: str
    advertiser: str
    creative_id: str
    title: str
    duration_s: int | None
    pricing: str
    price_micros: int
    currency: str
    trackers: dict[str, list[str]] = field(default_factory=dict)
    custom: dict[str, int] = field(default_factory=dict)  # name -> ordinal
    _kept: list[tuple[etree._Element, str, int]] = field(default_factory=list)

    @property
    def has_linear(self) -> bool:
        return next(descend(self.body, "Creatives", "Creative", "Linear"), None) is not None

    def fill(self, url_of: UrlOf) -> None:
        """Puts our URL into the elements that stand for events beside the standard ones."""
        names = {ordinal: name for name, ordinal in self.custom.items()}
        for element, event, ordinal in self._kept:
            url = url_of(event, ordinal)
            if event == CUSTOM:
                url += f"?name={quote(names[ordinal], safe='')}"
            element.text = etree.CDATA(url)

    def take(self, element: etree._Element, event: str, ordinal: int = 0, name: str = "") -> None:
        """Moves a tracker's address into the record, and its element out of the document or into `fill`'s hands."""
        url = text_of(element)
        if url.startswith("//"):
            url = f"https:{url}"
        if not url.startswith(("http://", "https://")) or len(url) > _LONGEST_URL:
            if not url:
                _remove(element)
            return
        if event == CUSTOM:
            if name not in self.custom and len(self.custom) >= MOST_CUSTOM:
                return
            ordinal = self.custom.setdefault(name, len(self.custom) + 1)
        key = f"{event}:{ordinal}" if ordinal else event
        is_first = key not in self.trackers
        urls = self.trackers.setdefault(key, [])
        if url not in urls:
            urls.append(url)
        if is_first and ordinal and not (event == PROGRESS and ordinal % 10 == 0):
            self._kept.append((element, event, ordinal))
        else:
            _remove(element)


def outside_ads(document: bytes, limit_bytes: int) -> tuple[etree._Element, list[OutsideAd]]:
    """(root, its ads) of an outside document, without the trackers that were moved. Errors: NotVast."""
    root = parsed(document, limit_bytes)
    version = version_of(root)
    return root, [_adopted(ad, body, version) for ad, body in ads_of(root)]


def _adopted(ad: etree._Element, body: etree._Element, version: Version) -> OutsideAd:
    creatives = list(descend(body, "Creatives", "Creative"))
    durations = [seconds(text_of(d)) for d in descend(body, "Creatives", "Creative", "Linear", "Duration")]
    lasts_s = next((d for d in durations if d), None)
    pricing, price_micros, currency = _price(child(body, "Pricing"))
    found = OutsideAd(
        ad=ad,
        body=body,
        version=version,
        system=foreign_id(text_of(child(body, "AdSystem"))),
        ad_id=foreign_id(ad.get("id", "")),
        advertiser=foreign_id(text_of(child(body, "Advertiser"))),
        creative_id=next((i for c in creatives if (i := _creative_id(c))), ""),
        title=text_of(child(body, "AdTitle")),
        duration_s=-int(-lasts_s // 1) if lasts_s else None,
        pricing=pricing,
        price_micros=price_micros,
        currency=currency,
    )
    _take_all(found, body, lasts_s)
    return found


def _take_all(found: OutsideAd, body: etree._Element, lasts_s: float | None) -> None:
    for element in list(descend(body, "Impression")):
        found.take(element, "impression")
    for element in list(descend(body, "Error")):
        found.take(element, "error")
    for element in list(descend(body, "ViewableImpression", "Viewable")):
        found.take(element, "viewable")
    for name in ("NotViewable", "ViewUndetermined"):
        for element in list(descend(body, "ViewableImpression", name)):
            found.take(element, CUSTOM, name=name[0].lower() + name[1:])
    creative = ("Creatives", "Creative")
    for element in list(descend(body, *creative, "Linear", "TrackingEvents", "Tracking")):
        _take_tracking(found, element, lasts_s, "")
    for element in list(descend(body, *creative, "Linear", "VideoClicks", "ClickTracking")):
        found.take(element, "click")
    for element in list(descend(body, *creative, "Linear", "VideoClicks", "CustomClick")):
        found.take(element, CUSTOM, name="customClick")
    alone = not found.has_linear
    for element in list(descend(body, *creative, "NonLinearAds", "TrackingEvents", "Tracking")):
        _take_tracking(found, element, lasts_s, "" if alone else "nonLinear.")
    for element in list(descend(body, *creative, "NonLinearAds", "NonLinear", "NonLinearClickTracking")):
        found.take(element, "click" if alone else CUSTOM, name="nonLinear.click")
    for n, companion in enumerate(descend(body, *creative, "CompanionAds", "Companion"), 1):
        _take_of_part(found, companion, f"companion.{n}", ("CompanionClickTracking",))
    for n, icon in enumerate(descend(body, *creative, "Linear", "Icons", "Icon"), 1):
        _take_of_part(found, icon, f"icon.{n}", ("IconClicks", "IconClickTracking"))
        for element in list(descend(icon, "IconViewTracking")):
            found.take(element, CUSTOM, name=f"icon.{n}.view")
    for n, verification in enumerate(descend(body, "AdVerifications", "Verification"), 1):
        _take_of_part(found, verification, f"verification.{n}", ())


def _take_of_part(found: OutsideAd, part: etree._Element, name: str, click: tuple[str, ...]) -> None:
    for element in list(descend(part, "TrackingEvents", "Tracking")):
        found.take(element, CUSTOM, name=f"{name}.{foreign_id(element.get('event', ''))}")
    for element in list(descend(part, *click)) if click else ():
        found.take(element, CUSTOM, name=f"{name}.click")


def _take_tracking(found: OutsideAd, element: etree._Element, lasts_s: float | None, prefix: str) -> None:
    said = element.get("event", "")
    event = _EVENT_OF.get(said) if not prefix else None
    if event == PROGRESS:
        offset = element.get("offset", "")
        percent = _percent(offset, lasts_s)
        if percent is not None:
            found.take(element, PROGRESS, percent)
            return
        event, said = None, f"progress {offset[:16]}"
    if event is not None and event in BY_NAME:
        found.take(element, event)
    else:
        found.take(element, CUSTOM, name=f"{prefix}{foreign_id(said)}")


def _percent(offset: str, lasts_s: float | None) -> int | None:
    """A progress event's offset as whole percents of the ad, 1 to 100; None when that would not be what it says.

    Example:
    >>> _percent("25%", None), _percent("00:00:03", 30.0), _percent("00:00:05", 30.0), _percent("00:00:03", None)
    (25, 10, None, None)
    """
    if offset.endswith("%"):
        try:
            share = float(offset[:-1])
        except ValueError:
            return None
    else:
        at_s = seconds(offset)
        if at_s is None or not lasts_s:
            return None
        share = 100 * at_s / lasts_s
    return int(share) if 1 <= share <= 100 and share == int(share) else None


def _price(pricing: etree._Element | None) -> tuple[str, int, str]:
    """(pricing, micros, currency); a price that can't be charged by us is 0."""
    if pricing is None:
        return "cpm", 0, ""
    model, currency = (pricing.get("model") or "").lower(), (pricing.get("currency") or "").upper()
    text = text_of(pricing)
    if not _PRICE.fullmatch(text):
        return "cpm", 0, ""
    micros = to_micros(text)
    known = model in ("cpm", "cpc", "cpv") and len(currency) == 3 and currency.isascii() and currency.isalpha()
    return (model, micros, currency) if known else ("cpm", 0, "")


def _creative_id(creative: etree._Element) -> str:
    universal = text_of(child(creative, "UniversalAdId"))
    if universal and universal.lower() != "unknown":
        return foreign_id(universal)
    return foreign_id(creative.get("adId") or creative.get("AdID") or creative.get("id") or "")


def _remove(element: etree._Element) -> None:
    """Takes an element out, and its parent when that was only there to hold it."""
    parent = element.getparent()
    if parent is None:
        return
    parent.remove(element)
    if not len(parent) and name_of(parent) in ("TrackingEvents", "ViewableImpression", "IconClicks"):
        _remove(parent)
