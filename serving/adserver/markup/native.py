"""Native answers: our own creatives' assets for those asked for, and DSPs' with our trackers in them.

Source: OpenRTB Native Ads 1.2 §5 (response), §7.4 (data asset types), §7.3 (image types), §7.6-7.7 (event trackers).
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.catalog import Creative
from serving.adserver.markup.trackers import Trackers
from serving.adserver.openrtb.impressions import NativeAsset, NativeImage, NativeRequest, native_request

_ICON, _MAIN = 1, 3
_IMPRESSION, _VIEWABLE = 1, 2  # event types: impression, MRC viewable
_PIXEL = 1  # event tracking method
#: Data asset types -> names of a creative's assets.
_DATA = {
    1: "sponsored",
    2: "desc",
    3: "rating",
    4: "likes",
    5: "downloads",
    6: "price",
    7: "saleprice",
    8: "phone",
    9: "address",
    10: "desc2",
    11: "displayurl",
    12: "ctatext",
}
_VERSION = "1.2"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class NotNative(Exception):
    """A DSP's markup that is no native answer; the message says why."""


def fills(creative: Creative, asked: NativeRequest) -> bool:
    """Whether a creative has all the assets that are required of it."""
    return all(_asset(creative, asset) is not None for asset in asked.assets if asset.required)


def own(creative: Creative, request: str, trackers: Trackers) -> str:
    """Our own creative as the request wants it. Shape: JSON, in an object `native` if the request was in one."""
    asked = native_request(request)
    assets = [made for asset in asked.assets if (made := _asset(creative, asset)) is not None]
    answer: dict[str, Any] = {"ver": _VERSION, "assets": assets, "link": {"url": creative.landing_url}}
    return _finished(answer, _is_wrapped(_decode(request)), asked, trackers)


def with_trackers(markup: str, request: str, trackers: Trackers) -> str:
    """A DSP's answer with our trackers in it. Errors: NotNative."""
    try:
        data = _decode(markup)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise NotNative(f"not JSON: {e}") from e
    wrapped = _is_wrapped(data)
    answer = data["native"] if wrapped else data
    if not isinstance(answer, dict) or not isinstance(answer.get("link"), dict):
        raise NotNative("no link in it")
    for name in ("assets", "imptrackers", "eventtrackers"):
        if not isinstance(answer.get(name, []), list):
            raise NotNative(f"{name} is no list")
    if not isinstance(answer["link"].get("clicktrackers", []), list):
        raise NotNative("link.clicktrackers is no list")
    return _finished(answer, wrapped, native_request(request), trackers)


def _finished(answer: dict[str, Any], wrapped: bool, asked: NativeRequest, trackers: Trackers) -> str:
    """Trackers where the request's own version wants them: events if it takes pixels of them, else the old list."""
    takes = {t.event for t in asked.eventtrackers if _PIXEL in t.methods}
    events = []
    for event, name in ((_IMPRESSION, "impression"), (_VIEWABLE, "viewable")):
        if event in takes and name in trackers.urls:
            events.append({"event": event, "method": _PIXEL, "url": trackers.urls[name]})
    if events:
        answer["eventtrackers"] = [*(answer.get("eventtrackers") or ()), *events]
    if _IMPRESSION not in takes and "impression" in trackers.urls:
        answer["imptrackers"] = [*(answer.get("imptrackers") or ()), trackers.urls["impression"]]
    if "click" in trackers.urls:
        clicks = [*(answer["link"].get("clicktrackers") or ()), trackers.urls["click"]]
        answer["link"] = answer["link"] | {"clicktrackers": clicks}
    return _encode({"native": answer} if wrapped else answer).decode()


def _is_wrapped(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("native"), dict)


def _asset(creative: Creative, asked: NativeAsset) -> dict[str, Any] | None:
    """A creative's answer to an asset; None when it has none that fits."""
    made: dict[str, Any] = {"id": asked.id}
    if asked.required:
        made["required"] = 1
    if asked.title is not None:
        text = creative.assets.get("title", "")
        if not text or len(text) > asked.title.len:
            return None
        return made | {"title": {"text": text}}
    if asked.img is not None:
        image = _image(creative, asked.img)
        return None if image is None else made | {"img": image}
    if asked.data is not None:
        value = creative.assets.get(_DATA.get(asked.data.type, ""), "")
        if not value or (asked.data.len and len(value) > asked.data.len):
            return None
        return made | {"data": {"type": asked.data.type, "value": value}}
    return None


def _image(creative: Creative, asked: NativeImage) -> dict[str, Any] | None:
    if asked.type == _ICON:
        icon = creative.assets.get("icon")
        return {"type": _ICON, "url": icon} if icon else None
    if not creative.media_url or (asked.mimes and creative.mime and creative.mime not in asked.mimes):
        return None
    if (asked.wmin and creative.width < asked.wmin) or (asked.hmin and creative.height < asked.hmin):
        return None
    if not asked.wmin and asked.w and asked.h and (creative.width, creative.height) != (asked.w, asked.h):
        return None
    return {"type": asked.type or _MAIN, "url": creative.media_url, "w": creative.width, "h": creative.height}
