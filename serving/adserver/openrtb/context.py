"""A request as the decision needs it: who may be known, where the ad would run, at which floor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from connectors.keys import KeyRing
from schemas.catalog import Placement
from schemas.money import to_micros
from serving.adserver.auction.deals import DealTerms, terms_of
from serving.adserver.auction.floors import DurationFloors, by_duration
from serving.adserver.experiments import NOBODY, Assignment
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.consent import Consent, consent_flags, read_consent
from serving.adserver.openrtb.countries import alpha2
from serving.adserver.openrtb.device import DeviceFields, device_fields
from serving.adserver.openrtb.messages import BidRequest, Imp
from serving.adserver.openrtb.messages import Inventory as Place
from serving.adserver.targeting import Audience, hour_of_week

#: AdCOM 1.0 "Device Types" in the contract's words.
_DEVICE_TYPES = {1: "phone", 2: "desktop", 3: "ctv", 4: "phone", 5: "tablet", 6: "ctv", 7: "ctv"}
_OTHER_DEVICE = "other"
DEVICE_CODES = {"desktop": 2, "ctv": 3, "phone": 4, "tablet": 5}


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What all imps of a request share: of the user only pseudonyms and `device_fields`, and those with consent.

    `body` is the request's JSON as it came, from which what DSPs get is made; empty for one that was no JSON.
    """

    request: BidRequest
    body: bytes
    signals: Consent
    now_ms: int
    opted_out: bool
    pseudonym: str | None
    household: str | None
    device_type: str | None
    platform: str | None
    country: str | None
    region: str | None
    site_id: str | None
    app_id: str | None
    content_id: str | None
    session_context: str | None
    consent: dict[str, str]
    device_fields: DeviceFields
    assignment: Assignment = NOBODY  # the viewer's cells of experiments

    @property
    def now_s(self) -> int:
        return self.now_ms // 1000


@dataclass(frozen=True, slots=True)
class Opportunity:
    """One imp and where it would run. `floor_cpm_micros` is in the catalogue's currency, and None when the imp's own is
    not known: nothing may be sold. With `private_auction` only deals are. The first of `duration_floors` that an ad's
    duration is in stands in for the floor.
    """

    imp: Imp
    formats: tuple[str, ...]
    placement_id: str
    publisher_id: str
    category: str | None
    floor_cpm_micros: int | None
    live: bool
    deals: dict[str, DealTerms] = field(default_factory=dict)
    private_auction: bool = False
    is_first: bool = True  # of its request
    duration_floors: DurationFloors = ()
    premium: bool = False  # every DSP is asked for it

    @property
    def quantity(self) -> float:
        """How many impressions one is worth (§3.2.31)."""
        return self.imp.qty.multiplier if self.imp.qty is not None else 1.0


def resolve(
    request: BidRequest, keys: KeyRing, now_ms: int, tcf_vendor_id: int = 0, body: bytes = b""
) -> RequestContext:
    """The request's context. `tcf_vendor_id` is our own. Of a user who may not be known there is nothing in it but
    `request` itself, which nobody but `outbound` may look into for that.
    """
    device, user = request.device, request.user
    signals = read_consent(request)
    unknown = not signals.for_vendor(tcf_vendor_id).ids
    place = _place(request)
    geo = device.geo if device is not None else None
    address = (device.ip or device.ipv6) if device is not None else ""
    ext = request.ext if isinstance(request.ext, dict) else {}
    return RequestContext(
        request=request,
        body=body,
        signals=signals,
        now_ms=now_ms,
        opted_out=unknown,
        pseudonym=keys.pseudonym(user.id) if user is not None and user.id and not unknown else None,
        household=keys.household(address) if address and not unknown else None,
        device_type=_DEVICE_TYPES.get(device.devicetype, _OTHER_DEVICE)
        if device is not None and device.devicetype is not None
        else None,
        platform=(device.os or None) if device is not None else None,
        country=alpha2(geo.country) if geo is not None else None,
        region=(geo.region or None) if geo is not None else None,
        site_id=request.site.id or None if request.site is not None else None,
        app_id=request.app.id or None if request.app is not None else None,
        content_id=place.content.id or None if place is not None and place.content is not None else None,
        session_context=str(session)[:64] if (session := ext.get("session")) else None,
        consent=consent_flags(request, unknown),
        device_fields=device_fields(request, unknown),
    )


def in_cells(context: RequestContext, inventory: Inventory) -> RequestContext:
    """The context with the viewer's cells of the catalogue's experiments."""
    if not inventory.experiments:
        return context
    return replace(context, assignment=inventory.experiments.assign(context.pseudonym or context.household))


def opportunities(request: BidRequest, inventory: Inventory, floor_percent: int = 100) -> list[Opportunity]:
    """The request's imps. A placement of the catalogue adds its floor, category and publisher.

    `floor_percent` is an experiment's, of the placement's floor; the request's own is never undercut.
    """
    place = _place(request)
    found = []
    for imp in request.imp:
        placement = inventory.placements.get(imp.tagid)
        content = place.content if place is not None else None
        categories = (content.cat if content is not None else []) or (place.cat if place is not None else [])
        least = placement.floor_cpm_micros * floor_percent // 100 if placement is not None else 0
        floor = inventory.rates.floor_to_ours(to_micros(repr(imp.bidfloor)), imp.bidfloorcur) if imp.bidfloor else 0
        if floor is not None:
            floor = max(floor, least)
        publisher = place.publisher if place is not None else None
        publisher_id = placement.publisher_id if placement else (publisher.id if publisher else "")
        timed = imp.video or imp.audio
        found.append(
            Opportunity(
                imp=imp,
                formats=_formats(imp, placement),
                placement_id=imp.tagid,
                publisher_id=publisher_id,
                category=placement.content_category if placement else (categories[0] if categories else None),
                floor_cpm_micros=floor,
                live=placement.live if placement else bool(content is not None and content.livestream),
                deals=terms_of(imp, inventory.deals_of(imp.tagid), inventory.rates),
                private_auction=imp.pmp is not None and imp.pmp.private_auction == 1,
                is_first=imp is request.imp[0],
                duration_floors=by_duration(timed.durfloors, imp.bidfloorcur, inventory.rates, least) if timed else (),
                premium=inventory.is_premium(imp.tagid, publisher_id, floor),
            )
        )
    return found


def viewer_of(context: RequestContext) -> Audience:
    """What all imps of a request have in common for targeting; `audience` adds a place. Of a user who may not be known,
    neither segments nor city.
    """
    request = context.request
    device, where = request.device, _place(request)
    geo = device.geo if device is not None else None
    content = where.content if where is not None else None
    user = request.user if not context.opted_out else None
    region = context.region
    if region is not None and context.country is not None and "-" not in region:
        region = f"{context.country}-{region}"
    offset = geo.utcoffset if geo is not None else None
    return Audience(
        None,
        context.country,
        region,
        (geo.city or None) if geo is not None and user is not None else None,
        context.device_type,
        context.platform,
        None,
        context.content_id,
        (content.genre or None) if content is not None else None,
        frozenset(s.id for data in user.data for s in data.segment if s.id) if user is not None else frozenset(),
        frozenset(),
        hour_of_week(context.now_ms),
        hour_of_week(context.now_ms, offset or 0),
    )


def audience(viewer: Audience, place: Opportunity) -> Audience:
    """An opportunity as line items target it."""
    return viewer._replace(placement_id=place.placement_id, category=place.category, deal_ids=frozenset(place.deals))


def _formats(imp: Imp, placement: Placement | None) -> tuple[str, ...]:
    """What may be shown: the formats asked for, and of those a known placement's own."""
    asked = (("video", imp.video), ("audio", imp.audio), ("banner", imp.banner), ("native", imp.native))
    return tuple(f for f, part in asked if part is not None and (placement is None or f == placement.format))


def _place(request: BidRequest) -> Place | None:
    return request.site or request.app or request.dooh
