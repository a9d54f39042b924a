"""`GET /vast`: a player's query as the OpenRTB request that it stands for, so that both doors decide alike."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from connectors.addresses import is_public, sender
from connectors.http_messages import TEXT, Request, Response, refusal
from schemas.ids import encode_id
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.context import DEVICE_CODES
from serving.adserver.openrtb.countries import alpha2, alpha3
from serving.adserver.openrtb.messages import (
    Audio,
    BadRequest,
    BidRequest,
    Content,
    Device,
    Geo,
    Imp,
    Publisher,
    Regs,
    User,
    Video,
)
from serving.adserver.openrtb.messages import Inventory as Place

#: Media types that a tag's player is taken to play.
MIMES = ("video/mp4", "video/webm", "application/vnd.apple.mpegurl")
AUDIO_MIMES = ("audio/mpeg", "audio/mp4", "audio/aac", "audio/ogg")
#: A section's id in `gpp_sid`, whose members are separated by `_` or `,`.
_REQUEST_ID_BYTES = 16
_SECTION_ID = re.compile(r"-?[0-9]{1,3}")
#: AdCOM's codes of a version, and of those before it, InLine and Wrapper.
_PROTOCOLS = {
    "2.0": (2, 5),
    "3.0": (2, 5, 3, 6),
    "4.0": (3, 6, 7, 8),
    "4.1": (3, 6, 7, 8, 11, 12),
    "4.2": (3, 6, 7, 8, 11, 12, 13, 14),
    "4.3": (3, 6, 7, 8, 11, 12, 13, 14, 15, 16),
}
_NEWEST = "4.2"
#: How a socket for both families writes an IPv4 address.
_MAPPED = "::ffff:"
#: Parameters that a browser sends as headers: W3C Global Privacy Control, Tracking Preference Expression.
_REFUSALS = {"gpc": b"sec-gpc", "dnt": b"dnt"}


@dataclass(frozen=True, slots=True)
class TagRules:
    """What tags do not say themselves. `forwarded_hops`: our own proxies in front of us; `secure`: whether players load
    nothing over plain HTTP (§3.2.4).
    """

    forwarded_hops: int = 0
    secure: bool = True


#: Nothing in front of us, secure players.
TAG_RULES = TagRules()


def asked_by(request: Request, inventory: Inventory, rules: TagRules = TAG_RULES) -> BidRequest | Response:
    """The bid request that a tag's HTTP request stands for, or what refuses it. Browsers refuse in headers: those count
    as the parameters do.

    The viewer's address is that of whoever asks, if it is one of the internet's: another is a proxy's that we were not
    told of.
    """
    address = sender(request, rules.forwarded_hops).removeprefix(_MAPPED)
    said = {} if rules.secure else {"secure": "0"}
    refused = {name: "1" for name, header in _REFUSALS.items() if request.header(header) == "1"}
    try:
        return to_request(
            said | request.params | refused,
            encode_id(os.urandom(_REQUEST_ID_BYTES)),
            inventory,
            request.header(b"user-agent"),
            request.header(b"accept-language"),
            address if is_public(address) else "",
        )
    except BadRequest as e:
        return refusal(400, e.reason, path=e.path)
    except ValueError as e:  # more parameters than a query may have
        return Response(400, str(e).encode(), TEXT)


def to_request(
    params: Mapping[str, str],
    request_id: str,
    inventory: Inventory,
    user_agent: str = "",
    language: str = "",
    address: str = "",
) -> BidRequest:
    """The request of a tag. Parameters that are not known are ignored.

    `user_agent`, `language` and `address` are the caller's own: a server that asks for a device says ua, lang and ip,
    and one that says ua is not taken for the device.
    Known: placement (required), user, device, platform, country, region, ip, ua, lang, session, content, live, w, h,
    secure (0: may load over plain HTTP), vast (newest version that the player knows: 2, 3, 4, 4.1, ...), skip,
    skip_after_s, pod_duration_s (asks for a pod) and max_ads, min_duration_s, max_duration_s (of each ad), tmax,
    opt_out, lmt, dnt, gpc, us_privacy, gpp, gpp_sid, coppa, gdpr, consent, test. Errors: BadRequest.
    """
    placement_id = params.get("placement", "")
    if not placement_id:
        raise BadRequest("placement", "is required")
    placement = inventory.placements.get(placement_id)
    place = Place(
        id=(placement.site_id or placement.app_id or "") if placement else "",
        cat=[placement.content_category] if placement and placement.content_category else [],
        publisher=Publisher(id=placement.publisher_id) if placement else None,
        content=Content(id=params.get("content", ""), livestream=int(_flag(params, "live"))),
    )
    is_app = placement is not None and placement.app_id is not None
    is_audio = placement is not None and placement.format == "audio"
    device = params.get("device", "")
    ip = params.get("ip") or (address if "ua" not in params else "")
    return BidRequest(
        id=request_id,
        imp=[
            Imp(
                id="1",
                tagid=placement_id,
                secure=int(params.get("secure") != "0"),
                **({"audio": _audio(params)} if is_audio else {"video": _video(params)}),
            )
        ],
        app=place if is_app else None,
        site=None if is_app else place,
        device=Device(
            devicetype=DEVICE_CODES.get(device, 0) if device else None,
            os=params.get("platform", "")[:32],
            ua=params.get("ua") or user_agent,
            language=params.get("lang") or language,
            ip=ip if ":" not in ip else "",
            ipv6=ip if ":" in ip else "",
            geo=Geo(country=alpha3(alpha2(params.get("country", ""))), region=params.get("region", "")[:16]),
            lmt=int(_flag(params, "lmt")),
            dnt=int(_flag(params, "dnt")),
        ),
        user=User(
            id=params.get("user", ""),
            consent=params.get("consent", ""),
            ext={"opt_out": int(_flag(params, "opt_out"))},
        ),
        regs=Regs(
            coppa=int(_flag(params, "coppa")),
            gdpr=int(_flag(params, "gdpr")),
            us_privacy=params.get("us_privacy", ""),
            gpp=params.get("gpp", ""),
            gpp_sid=[int(s) for s in re.split("[_,]", params.get("gpp_sid", "")) if _SECTION_ID.fullmatch(s)],
            ext={"gpc": int(_flag(params, "gpc"))},
        ),
        test=int(_flag(params, "test")),
        tmax=_number(params, "tmax") or 0,
        at=1,
        ext={"session": params.get("session", "")},
    )


def _protocols(params: Mapping[str, str]) -> list[int]:
    """OpenRTB's codes of the versions up to the one that the player says it knows. Errors: BadRequest."""
    text = params.get("vast", "")
    if not text:
        return list(_PROTOCOLS[_NEWEST])
    found = _PROTOCOLS.get(text if "." in text else f"{text}.0")
    if found is None:
        raise BadRequest("vast", f"expected one of {', '.join(_PROTOCOLS)}, got {text[:16]!r}")
    return list(found)


def _video(params: Mapping[str, str]) -> Video:
    return Video(
        mimes=list(MIMES),
        protocols=_protocols(params),
        w=_number(params, "w"),
        h=_number(params, "h"),
        linearity=1,
        minduration=_number(params, "min_duration_s") or 0,
        maxduration=_number(params, "max_duration_s"),
        poddur=_number(params, "pod_duration_s") or None,
        maxseq=1 if params.get("vast", "").startswith("2") else _number(params, "max_ads") or None,
        skip=1 if _flag(params, "skip") else None,
        skipafter=_number(params, "skip_after_s") or 0,
    )


def _audio(params: Mapping[str, str]) -> Audio:
    """What an audio placement's tag asks for."""
    return Audio(
        mimes=list(AUDIO_MIMES),
        protocols=_protocols(params),
        minduration=_number(params, "min_duration_s") or 0,
        maxduration=_number(params, "max_duration_s"),
        poddur=_number(params, "pod_duration_s") or None,
        maxseq=_number(params, "max_ads") or None,
    )


def _flag(params: Mapping[str, str], name: str) -> bool:
    return params.get(name, "") in ("1", "true")


def _number(params: Mapping[str, str], name: str) -> int | None:
    """A whole number that is not negative. Errors: BadRequest."""
    text = params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise BadRequest(name, f"expected a whole number, got {text[:16]!r}")
    return int(text)
