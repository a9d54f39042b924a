"""What a player understands of an ad answer: tracking URLs, price and identity, from VAST or from banner markup.

Source: VAST 4.2 §3 (InLine, Pricing, TrackingEvents, VideoClicks, ViewableImpression, Extensions).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lxml import etree, html

from schemas.events import EVENT_TYPES
from schemas.money import impression_cost_micros, to_micros

_EVENT_OF_VAST = {t.vast_event: t.name for t in EVENT_TYPES if t.vast_event}
_DEFAULT_DURATION_S = 15
#: VAST error 405, "problem displaying MediaFile": the only one that the simulated players have.
_MEDIA_PROBLEM = "405"

#: No entities, no network, no huge trees: an answer is as hostile as the demand that wrote it.
_PARSER_OPTIONS = {"resolve_entities": False, "no_network": True, "huge_tree": False}


@dataclass(frozen=True, slots=True)
class Tracker:
    """One URL to fire. `event` is a name of schemas/events.py; `ordinal` is the percent of a progress event."""

    event: str
    ordinal: int
    url: str


@dataclass(frozen=True, slots=True)
class ShownAd:
    """One ad as the player got it. Costs are learned from the public `<Pricing>`, in micros of `currency`."""

    record_id: str
    advertiser_id: str
    campaign_id: str
    line_item_id: str
    creative_id: str
    pricing: str
    currency: str
    impression_cost_micros: int
    click_cost_micros: int
    duration_s: int
    trackers: tuple[Tracker, ...] = field(default=(), repr=False)

    def of(self, event: str) -> list[Tracker]:
        """Trackers of one event, in document order."""
        return [t for t in self.trackers if t.event == event]


class UnreadableAd(ValueError):
    """The answer is not an ad that a player could show; the message says why."""


def read_vast(document: bytes) -> ShownAd | None:
    """The first ad of a VAST document; None when it holds none. Errors: UnreadableAd."""
    try:
        root = etree.fromstring(document, etree.XMLParser(**_PARSER_OPTIONS))
    except etree.XMLSyntaxError as e:
        raise UnreadableAd(f"not XML: {e}") from e
    for element in root.iter(etree.Element):  # VAST 4 has a namespace, older demand has none
        element.tag = etree.QName(element).localname
    if root.tag != "VAST":
        raise UnreadableAd(f"root element is {root.tag!r}, not VAST")
    body = root.find("Ad/InLine")
    if body is None:
        body = root.find("Ad/Wrapper")
    if body is None:
        return None
    try:
        return _read_ad(body)
    except ValueError as e:
        raise UnreadableAd(str(e)) from e


def _read_ad(body: etree._Element) -> ShownAd:
    truth = {
        child.tag: (child.text or "").strip() for child in body.iterfind("Extensions/Extension[@type='headwater']/*")
    }
    pricing = body.find("Pricing")
    if pricing is None or "RecordId" not in truth:
        raise ValueError("no Pricing or no headwater extension")
    model = (pricing.get("model") or "").lower()
    price_micros = to_micros((pricing.text or "").strip())
    return ShownAd(
        record_id=truth["RecordId"],
        advertiser_id=truth.get("AdvertiserId", ""),
        campaign_id=truth.get("CampaignId", ""),
        line_item_id=truth.get("LineItemId", ""),
        creative_id=truth.get("CreativeId", ""),
        pricing=truth.get("Pricing", model),
        currency=pricing.get("currency") or "",
        impression_cost_micros=impression_cost_micros(price_micros) if model == "cpm" else 0,
        click_cost_micros=price_micros if model == "cpc" else 0,
        duration_s=_seconds(body.findtext(".//Linear/Duration")),
        trackers=tuple(_trackers(body)),
    )


def _trackers(body: etree._Element) -> list[Tracker]:
    found = [Tracker("impression", 0, _url(e)) for e in body.iterfind("Impression")]
    found += [Tracker("error", 0, _url(e)) for e in body.iterfind("Error")]
    found += [Tracker("viewable", 0, _url(e)) for e in body.iterfind("ViewableImpression/Viewable")]
    found += [Tracker("click", 0, _url(e)) for e in body.iterfind(".//VideoClicks/ClickTracking")]
    for element in body.iterfind(".//TrackingEvents/Tracking"):
        event = _EVENT_OF_VAST.get(element.get("event") or "")
        if event is None:
            continue
        offset = element.get("offset") or ""
        ordinal = int(offset[:-1]) if event == "progress" and offset.endswith("%") else 0
        found.append(Tracker(event, ordinal, _url(element)))
    return [t for t in found if t.url]


def read_banner(markup: str, truth: dict[str, object]) -> ShownAd:
    """The ad of banner markup and the bid's `ext.headwater`. Errors: UnreadableAd."""
    try:
        root = html.fragment_fromstring(markup, create_parent="div")
        return ShownAd(
            record_id=str(truth["record_id"]),
            advertiser_id=str(truth["advertiser_id"]),
            campaign_id=str(truth["campaign_id"]),
            line_item_id=str(truth.get("line_item_id", "")),
            creative_id=str(truth["creative_id"]),
            pricing=str(truth["pricing"]),
            currency=str(truth["currency"]),
            impression_cost_micros=int(str(truth["impression_cost_micros"])),
            click_cost_micros=int(str(truth["click_cost_micros"])),
            duration_s=0,
            trackers=(
                *(Tracker(e.get("data-event"), 0, e.get("src")) for e in root.iterfind(".//img[@data-event]")),
                *(Tracker("click", 0, e.get("data-click")) for e in root.iterfind(".//a[@data-click]")),
            ),
        )
    except (etree.LxmlError, KeyError, ValueError) as e:
        raise UnreadableAd(f"banner: {type(e).__name__}: {e}") from e


def _url(element: etree._Element) -> str:
    return (element.text or "").strip().replace("[ERRORCODE]", _MEDIA_PROBLEM)


def _seconds(duration: str | None) -> int:
    """Seconds of VAST's HH:MM:SS[.mmm]."""
    if not duration:
        return _DEFAULT_DURATION_S
    hours, minutes, seconds = duration.strip().split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(float(seconds))
