"""What a request allows us to know about its user. When in doubt the user counts as opted out.

Source: OpenRTB 2.6 §3.2.3 (regs), §3.2.18 (lmt); IAB US Privacy String 1.0; Global Privacy Control.
Reading TCF 2 purposes and GPP sections is not done here: under GDPR without a consent string nobody is known.
"""

from __future__ import annotations

from typing import Any

from serving.adserver.openrtb.messages import BidRequest

_SALE_OPT_OUT = 2  # position in "1YYN": version, notice given, opted out of sale, LSPA


def opted_out(request: BidRequest) -> bool:
    """Whether this user must stay unknown: no pseudonym, no features, no caps, nothing personal to DSPs."""
    regs, user, device = request.regs, request.user, request.device
    regs_ext = _mapping(regs.ext) if regs is not None else {}
    if regs is not None and (regs.coppa or _sold_out(regs.us_privacy)):
        return True
    if _set(regs_ext.get("gpc")) or _sold_out(regs_ext.get("us_privacy")):
        return True
    if device is not None and device.lmt:
        return True
    user_ext = _mapping(user.ext) if user is not None else {}
    if _set(user_ext.get("opt_out")):
        return True
    gdpr = (regs.gdpr if regs is not None else None) or regs_ext.get("gdpr")
    consent = (user.consent if user is not None else "") or user_ext.get("consent")
    return _set(gdpr) and not consent


def consent_flags(request: BidRequest, is_opted_out: bool) -> dict[str, str]:
    """What is kept with the ad: the decision, and under which regime it fell."""
    flags = {"opt_out": "1"} if is_opted_out else {}
    regs = request.regs
    if regs is not None:
        ext = _mapping(regs.ext)
        if _set(regs.gdpr or ext.get("gdpr")):
            flags["gdpr"] = "1"
        if regs.coppa:
            flags["coppa"] = "1"
        if isinstance(us_privacy := regs.us_privacy or ext.get("us_privacy"), str) and us_privacy:
            flags["us_privacy"] = us_privacy[:8]
    return flags


def _mapping(ext: Any) -> dict[str, Any]:
    return ext if isinstance(ext, dict) else {}


def _set(value: Any) -> bool:
    """Flags in `ext` come as 1, true and "1"."""
    return value in (1, "1", "true")


def _sold_out(us_privacy: Any) -> bool:
    return isinstance(us_privacy, str) and us_privacy[_SALE_OPT_OUT : _SALE_OPT_OUT + 1].upper() == "Y"
