"""What a request allows us, and each bidder, to know about its user. When in doubt the user stays unknown.

| signal | where | what it takes away |
| --- | --- | --- |
| COPPA | `regs.coppa` | ids and place up to the town, from everybody |
| LMT, DNT | `device.lmt`, `device.dnt` | ids and exact place, from everybody |
| GPC | `regs.ext.gpc`, `device.ext.gpc`, GPP US sections; a tag's `Sec-GPC` | the same |
| US Privacy | `regs.us_privacy` (2.5: `regs.ext`), GPP section 6 | the same when sale is opted out of |
| GPP US sections 7-27 | `regs.gpp`, those in `regs.gpp_sid` | the same if sale, sharing or targeting is; of children |
| opt-out | `user.ext.opt_out` | the same |
| GDPR | `regs.gdpr` (2.5: `regs.ext`), GPP section 2 | ids from whom TCF purposes 1, 2, 3, 4, 7 are not allowed; \
the exact place without special feature 1 as well |

"ids": `user` but for its consent, `device.ifa` and hashed device ids, the address (cut to /24 or /48). "Exact place":
coordinates finer than two decimals, about a kilometre, and what names a place that small. "Place up to the town": all
coordinates, town and metro area as well. User agent and language stay: they say what can be shown.
A string that is broken, or a section that is in force and not there or not known here, counts as no consent.
Source: OpenRTB 2.6 §3.2.3, §3.2.18; IAB US Privacy String 1.0; GPP Core; TCF v2.2; Global Privacy Control.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from serving.adserver.openrtb import gpp
from serving.adserver.openrtb.messages import BidRequest, Regs
from serving.adserver.openrtb.tcf import TcfConsent, decode_tcf

_US_PRIVACY = re.compile(r"1[YN-]{3}", re.IGNORECASE)
_SALE_OPT_OUT = 2  # position in "1YYN": version, notice given, opted out of sale, LSPA
#: `gpp_sid` of a request to which no section applies.
_NOT_APPLICABLE = (0, -1)


class Permission(NamedTuple):
    """What somebody may be told: who the user is, where exactly, and in which town."""

    ids: bool
    place: bool
    town: bool = True


_EVERYTHING, _NOTHING, _CHILD = Permission(True, True), Permission(False, False), Permission(False, False, town=False)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a request's signals come to. `tcf` is None when GDPR applies and there is no consent that can be read."""

    child: bool
    restricted: bool
    gdpr: bool
    tcf: TcfConsent | None

    def for_vendor(self, vendor_id: int) -> Permission:
        """What a vendor of the Global Vendor List may be told; 0 is one that is not in it."""
        if self.child:
            return _CHILD
        if self.restricted:
            return _NOTHING
        if not self.gdpr:
            return _EVERYTHING
        if self.tcf is None:
            return _NOTHING
        return Permission(self.tcf.identifies(vendor_id), self.tcf.locates(vendor_id))


def read_consent(request: BidRequest) -> Consent:
    """All privacy signals of a request, read once."""
    regs, user, device = request.regs, request.user, request.device
    regs_ext = _mapping(regs.ext) if regs is not None else {}
    user_ext = _mapping(user.ext) if user is not None else {}
    sids = _sids(regs)
    in_force = [s for s in sids if s not in _NOT_APPLICABLE]
    string = (regs.gpp if regs is not None else "") or _text(regs_ext.get("gpp"))
    found = gpp.sections(string) if string else {}
    gdpr = gpp.TCF_EU in in_force or _set(regs.gdpr if regs is not None else None) or _set(regs_ext.get("gdpr"))
    restricted = (
        (device is not None and (device.lmt == 1 or device.dnt == 1))
        or _set(regs_ext.get("gpc"))
        or (device is not None and _set(_mapping(device.ext).get("gpc")))
        or _set(user_ext.get("opt_out"))
        or _sold_out(regs.us_privacy if regs is not None else "")
        or _sold_out(regs_ext.get("us_privacy"))
        or _restricted_by_gpp(in_force, found, bool(sids))
    )
    text = (user.consent if user is not None else "") or _text(user_ext.get("consent"))
    if not text and found and gdpr:
        text = found.get(gpp.TCF_EU, "")
    child = regs is not None and regs.coppa == 1
    return Consent(child, restricted, gdpr, decode_tcf(text) if gdpr and text else None)


def _restricted_by_gpp(in_force: list[int], found: dict[int, str] | None, sids_given: bool) -> bool:
    """Whether GPP's US sections say no. Without a list of those in force, all that are there count."""
    if found is None:
        return bool(in_force) or not sids_given  # a broken string
    for section_id in in_force if sids_given else found:
        if section_id == gpp.TCF_EU:
            continue
        text = found.get(section_id)
        if section_id == gpp.US_PRIVACY:
            if text is None or _sold_out(text):
                return True
        elif (sids_given or gpp.is_us_section(section_id)) and (text is None or gpp.opted_out_of_us(section_id, text)):
            return True
    return False


def consent_flags(request: BidRequest, is_opted_out: bool) -> dict[str, str]:
    """What is kept with the ad: the decision, and under which regime it fell."""
    flags = {"opt_out": "1"} if is_opted_out else {}
    regs = request.regs
    if regs is not None:
        ext = _mapping(regs.ext)
        sids = _sids(regs)
        if _set(regs.gdpr) or _set(ext.get("gdpr")) or gpp.TCF_EU in sids:
            flags["gdpr"] = "1"
        if regs.coppa:
            flags["coppa"] = "1"
        if us_privacy := regs.us_privacy or _text(ext.get("us_privacy")):
            flags["us_privacy"] = us_privacy[:8]
        if sids:
            flags["gpp_sid"] = ",".join(str(s) for s in sids[:8])
    return flags


def _sids(regs: Regs | None) -> list[int]:
    """Ids of the GPP sections in force, wherever the version puts them."""
    if regs is None:
        return []
    found = regs.gpp_sid or _mapping(regs.ext).get("gpp_sid")
    return [s for s in found if type(s) is int] if isinstance(found, list) else []


def _mapping(ext: Any) -> dict[str, Any]:
    return ext if isinstance(ext, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _set(value: Any) -> bool:
    """Flags in `ext` come as 1, true and "1"."""
    return value in (1, "1", "true")


def _sold_out(us_privacy: Any) -> bool:
    """Whether a US Privacy string opts out of sale, which a broken one does."""
    if not isinstance(us_privacy, str) or not us_privacy:
        return us_privacy is not None and us_privacy != ""
    return not _US_PRIVACY.fullmatch(us_privacy) or us_privacy[_SALE_OPT_OUT].upper() == "Y"
