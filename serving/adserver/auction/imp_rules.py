"""What an ad must be like to run in one imp, for our own creatives and for DSPs' bids alike.

Built once per imp, as sets, and asked once per candidate. Pure: no clock, no network.
Source: OpenRTB 2.6 §3.2.1 (bcat, badv, bapp, acat, wlang), §3.2.4-3.2.9, §4.2.3; AdCOM 1.0 lists "Creative Attributes",
"Creative Subtypes - Banner/Display", "API Frameworks", "Creative Subtypes - Audio/Video" (protocols).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from hashlib import blake2b

import msgspec

from schemas.decisions import Outcome
from serving.adserver.inventory import AdRow
from serving.adserver.markup import banner, media, native
from serving.adserver.markup.insecure import loads_insecurely
from serving.adserver.markup.vast_versions import newest_of
from serving.adserver.openrtb.context import Opportunity
from serving.adserver.openrtb.impressions import Audio, Banner, Video
from serving.adserver.openrtb.messages import Bid, BidRequest
from serving.adserver.openrtb.native_request import native_request

#: Protocol codes of AdCOM -> major version of VAST (DAAST, 9 and 10, is none).
_MAJOR_OF_PROTOCOL = {1: 1, 4: 1, 2: 2, 5: 2, 3: 3, 6: 3, 7: 4, 8: 4, 11: 4, 12: 4, 13: 4, 14: 4, 15: 4, 16: 4}
_VPAID = (1, 2)
#: `video.linearity` of an overlay beside the content (AdCOM 1.0 "Linearity Modes").
_NON_LINEAR = 2
_CONTENT_TAXONOMY_1 = 1
_NO_LANGUAGE = "xx"
_VAST_VERSION = re.compile(r"<(?:\w++:)?VAST\b[^<>]*?\bversion\s*+=\s*+[\"'](\d)")
_VPAID_MEDIA = re.compile(r"apiFramework\s*+=\s*+[\"']VPAID")

#: Bytes of a request's lists from which their hash stands for them.
_LONG_SHAPE = 1_024

_encode = msgspec.msgpack.Encoder().encode


class RequestRules:
    """What a request says for all its imps: they share it, since its lists may be as long as the request."""

    def __init__(self, request: BidRequest) -> None:
        listed = (request.badv, request.bcat, request.acat, request.cattax, request.wlang, request.wlangb)
        lists = _encode(listed)
        #: Equal for requests that refuse the same creatives of ours.
        self.shape = lists if len(lists) < _LONG_SHAPE else blake2b(lists, digest_size=16).digest()
        self.request_id = request.id
        self.blocked_domains = frozenset(d.lower() for d in request.badv)
        self.blocked_categories = frozenset(request.bcat)
        self.allowed_categories = frozenset(request.acat)
        self.taxonomy = request.cattax
        self.blocked_apps = frozenset(request.bapp)
        self.languages = frozenset(x.lower() for x in (*request.wlang, *request.wlangb))
        self.wseat = frozenset(request.wseat)
        self.bseat = frozenset(request.bseat)


class ImpRules:
    """The rules of one imp. `formats` are those that may be shown in it."""

    def __init__(self, place: Opportunity, shared: RequestRules) -> None:
        imp = place.imp
        #: Equal for imps that refuse the same creatives of ours.
        self.shape = _encode((imp.video, imp.audio, imp.banner, imp.native, imp.secure, imp.instl)) + shared.shape
        self.place = place
        self.imp = imp
        self.formats = place.formats
        self.request_id = shared.request_id
        self.secure = imp.secure == 1
        self.blocked_domains = self._blocked_set = shared.blocked_domains
        self._blocked_categories = shared.blocked_categories
        self._allowed_categories = shared.allowed_categories
        self._taxonomy = shared.taxonomy
        self._blocked_apps = shared.blocked_apps
        self._languages = shared.languages
        self.wseat = shared.wseat
        self.bseat = shared.bseat
        self._sizes = imp.banner.sizes() if imp.banner is not None else set()
        self._ratios = _ratios(imp.banner)
        self._interstitial = imp.instl == 1
        self._blocked_types = frozenset(imp.banner.btype) if imp.banner is not None else frozenset()
        self._native = native_request(imp.native.request) if imp.native is not None else None

    def refuses(self, row: AdRow) -> Outcome | None:
        """Why a targeted creative of ours can't run here; None when it can."""
        advertiser, creative = row.advertiser, row.creative
        if self._blocked_set and self.blocks_domain(advertiser.domain):
            return Outcome.ADVERTISER_EXCLUDED
        if advertiser.category and self.blocks_category([advertiser.category], _CONTENT_TAXONOMY_1):
            return Outcome.CATEGORY_EXCLUDED
        if self._languages and not self._speaks(creative.language):
            return Outcome.LANGUAGE_EXCLUDED
        part, timed = getattr(self.imp, creative.format), self.timed(creative.format)
        if part is not None and not set(creative.attributes).isdisjoint(part.battr):
            return Outcome.ATTRIBUTE_EXCLUDED
        if timed is not None:
            if not _lasts(timed, creative.duration_s or 0) or not media.own_fits(creative, timed):
                return Outcome.FORMAT
            if newest_of(timed.protocols) is None or (isinstance(timed, Video) and timed.linearity == _NON_LINEAR):
                return Outcome.FORMAT  # ours are Linear, in VAST 2.0 to 4.2
        elif creative.format == "banner":
            if banner.IMAGE in self._blocked_types:
                return Outcome.AD_TYPE_EXCLUDED
            if not self.size_allowed(creative.width, creative.height) or not self._shows(creative.mime):
                return Outcome.FORMAT
        elif self._native is None or not native.fills(creative, self._native):
            return Outcome.FORMAT
        if self.secure and any(a.startswith("http://") for a in (creative.media_url, *creative.assets.values())):
            return Outcome.NOT_SECURE
        return None

    def timed(self, ad_format: str) -> Video | Audio | None:
        return self.imp.video if ad_format == "video" else self.imp.audio if ad_format == "audio" else None

    def blocks_domain(self, domain: str) -> bool:
        """A blocked domain blocks its subdomains."""
        rest = domain.lower()
        while rest and self._blocked_set:
            if rest in self._blocked_set:
                return True
            rest = rest.partition(".")[2]
        return False

    def blocks_category(self, categories: Sequence[str], taxonomy: int) -> bool:
        """Whether a category is blocked, or not among those allowed. Codes of another taxonomy say nothing.

        In content taxonomy 1.0 a category contains those that begin with it (IAB7 contains IAB7-39).
        """
        if not categories or taxonomy != self._taxonomy or not (self._blocked_categories or self._allowed_categories):
            return False
        parents = taxonomy == _CONTENT_TAXONOMY_1
        for category in categories:
            if _listed(category, self._blocked_categories, parents):
                return True
        allowed = self._allowed_categories
        return bool(allowed) and not all(_listed(c, allowed, parents) for c in categories)

    def size_allowed(self, w: int | None, h: int | None) -> bool:
        """Whether a banner of this size fits. A bid that says no size is taken at its word to fit."""
        if not self._sizes and not self._ratios:
            return True
        if not w or not h or (w, h) in self._sizes:
            return bool(not w or not h or (w, h) in self._sizes)
        if any(w * rh == h * rw and w >= least for rw, rh, least in self._ratios):
            return True
        return self._interstitial and any(w <= sw and h <= sh for sw, sh in self._sizes)

    def _ratio_allowed(self, bid: Bid) -> bool:
        """Whether a bid that gives its size as a ratio (§4.2.3 `wratio`, `hratio`) fits."""
        w, h = bid.wratio, bid.hratio
        if not w or not h or (bid.w and bid.h) or not (self._sizes or self._ratios):
            return True
        return any(w * fh == h * fw for fw, fh in (*((rw, rh) for rw, rh, _ in self._ratios), *self._sizes))

    def _shows(self, mime: str) -> bool:
        """Whether a banner of this media type may be shown (§3.2.6 `mimes`), as far as both are said."""
        mimes = self.imp.banner.mimes if self.imp.banner is not None else ()
        return not mimes or not mime or mime in mimes

    def _speaks(self, said: str) -> bool:
        """Whether a creative is in one of the languages wanted, as far as it says; `xx` is in none, and fits anywhere.

        A tag contains those that begin with it (RFC 4647 §3.3.1): pt contains pt-BR.
        """
        tag = said.lower()
        if not tag or tag == _NO_LANGUAGE:
            return True
        return any(f"{tag}-".startswith(f"{x}-") or f"{x}-".startswith(f"{tag}-") for x in self._languages)

    def refuses_bid(self, bid: Bid, ad_format: str) -> Outcome | None:
        """Why a bid's creative can't run here, as far as it tells; None when it can."""
        if ad_format not in self.formats:
            return Outcome.INCORRECT_FORMAT
        for domain in bid.adomain:
            if self._blocked_set and self.blocks_domain(domain):
                return Outcome.ADVERTISER_EXCLUDED
        if bid.cat and self.blocks_category(bid.cat, bid.cattax):
            return Outcome.CATEGORY_EXCLUDED
        if bid.bundle and bid.bundle in self._blocked_apps:
            return Outcome.APP_EXCLUDED
        if self._languages and not self._speaks(bid.langb or bid.language):
            return Outcome.LANGUAGE_EXCLUDED
        if self.imp.exp and bid.exp and bid.exp < self.imp.exp:
            return Outcome.EXPIRED
        return self._refuses_creative(bid, ad_format)

    def _refuses_creative(self, bid: Bid, ad_format: str) -> Outcome | None:
        part = getattr(self.imp, ad_format)
        if bid.attr and part.battr and not set(bid.attr).isdisjoint(part.battr):
            return Outcome.ATTRIBUTE_EXCLUDED
        if self._blocked_types and ad_format == "banner" and _banner_type(bid) in self._blocked_types:
            return Outcome.AD_TYPE_EXCLUDED
        if ad_format == "banner" and not (self.size_allowed(bid.w, bid.h) and self._ratio_allowed(bid)):
            return Outcome.SIZE_NOT_ALLOWED
        if self.secure and loads_insecurely(bid.adm or bid.nurl, ad_format):
            return Outcome.NOT_SECURE
        frameworks = bid.apis or ([bid.api] if bid.api else [])
        if frameworks and part.api and set(frameworks).isdisjoint(part.api):
            return Outcome.INCORRECT_FORMAT
        timed = self.timed(ad_format)
        if timed is None:
            return None
        if bid.dur is not None and not _lasts(timed, bid.dur):
            return Outcome.INCORRECT_FORMAT
        return None if _playable(bid, timed) and media.another_fits(bid.adm, timed) else Outcome.INCORRECT_FORMAT


def _listed(category: str, listed: Collection[str], parents: bool) -> bool:
    return category in listed or (parents and category.partition("-")[0] in listed)


def _banner_type(bid: Bid) -> int:
    """AdCOM's type of a bid's banner; one that is served on the win notice is framed."""
    return banner.type_of(bid.adm) if bid.adm else banner.FRAME


def _ratios(part: Banner | None) -> list[tuple[int, int, int]]:
    """(width, height, least width) of flexible formats."""
    if part is None:
        return []
    return [(f.wratio, f.hratio, f.wmin or 0) for f in part.format if f.wratio and f.hratio]


def _lasts(timed: Video | Audio, duration_s: int) -> bool:
    """Whether a duration is one of those asked for; a pod's ads are not longer than the pod."""
    if timed.rqddurs:
        return duration_s in timed.rqddurs
    longest = timed.maxduration if timed.maxduration is not None else timed.poddur
    return duration_s >= timed.minduration and (not longest or duration_s <= longest)


def _playable(bid: Bid, timed: Video | Audio) -> bool:
    """Whether a player that knows these protocols and frameworks can play the markup, as far as that tells."""
    if timed.protocols:
        if newest_of(timed.protocols) is None:
            return False
        if bid.protocol and bid.protocol not in timed.protocols:
            return False
        found = _VAST_VERSION.search(bid.adm, 0, 1024)
        major = int(found.group(1)) if found else 0
        if major and all(_MAJOR_OF_PROTOCOL.get(p) not in (major, None) for p in timed.protocols):
            return False
    if not timed.api or any(a in timed.api for a in _VPAID):
        return True
    return "VPAID" not in bid.adm or _VPAID_MEDIA.search(bid.adm) is None
