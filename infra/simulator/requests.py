"""Ad requests as players send them: `GET /vast` for a player, `POST /openrtb2/auction` for a page or an exchange."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from infra.simulator.vast import ShownAd, UnreadableAd, read_banner, read_vast
from infra.simulator.world import User
from schemas.catalog import Placement

#: OpenRTB 2.6 / AdCOM 1.0 "Device Types".
_DEVICE_CODES = {"desktop": 2, "ctv": 3, "phone": 4, "tablet": 5}
_ALPHA_3 = {"US": "USA", "CA": "CAN", "GB": "GBR", "DE": "DEU", "FR": "FRA"}
_TMAX_MS = 200


def vast_path(user: User, placement: Placement, session_id: str) -> str:
    """Path and query of a player's request."""
    query = {
        "placement": placement.id,
        "user": user.id,
        "device": user.device_type,
        "platform": user.platform,
        "country": user.country,
        "region": user.region,
        "ip": user.household_ip,
        "session": session_id,
    }
    if user.opted_out:
        query["opt_out"] = "1"
    return f"/vast?{urlencode(query)}"


def openrtb_request(user: User, placement: Placement, request_id: str) -> bytes:
    """An OpenRTB 2.6 bid request for one impression."""
    imp: dict[str, Any] = {
        "id": "1",
        "tagid": placement.id,
        "secure": 1,
        "bidfloor": placement.floor_cpm_micros / 1_000_000,
        "bidfloorcur": "USD",
    }
    if placement.format == "video":
        imp["video"] = {
            "mimes": ["video/mp4"],
            "minduration": 5,
            "maxduration": 60,
            "protocols": [7, 8, 11, 12],
            "w": 1920,
            "h": 1080,
        }
    else:
        imp["banner"] = {"format": [{"w": 300, "h": 250}], "w": 300, "h": 250}
    inventory = {
        "id": placement.site_id or placement.app_id,
        "publisher": {"id": placement.publisher_id},
        "cat": [placement.content_category],
    }
    body = {
        "id": request_id,
        "imp": [imp],
        "site" if placement.site_id else "app": inventory,
        "device": {
            "devicetype": _DEVICE_CODES[user.device_type],
            "os": user.platform,
            "ip": user.household_ip,
            "geo": {"country": _ALPHA_3[user.country], "region": user.region},
            "lmt": int(user.opted_out),
        },
        "user": {"id": user.id, **({"ext": {"opt_out": True}} if user.opted_out else {})},
        "at": 1,
        "cur": ["USD"],
        "tmax": _TMAX_MS,
    }
    return msgspec.json.encode(body)


def read_openrtb(body: bytes) -> ShownAd | None:
    """The ad of a bid response; None when it holds none. Errors: UnreadableAd."""
    try:
        response = msgspec.json.decode(body)
        bids = [bid for seat in response.get("seatbid", ()) for bid in seat["bid"]]
        if not bids:
            return None
        markup = bids[0]["adm"]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as e:
        raise UnreadableAd(f"not an OpenRTB response: {type(e).__name__}: {e}") from e
    if "<VAST" in markup[:200]:
        return read_vast(markup.encode())
    return read_banner(markup, (bids[0].get("ext") or {}).get("headwater") or {})
