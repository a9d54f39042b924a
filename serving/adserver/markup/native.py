"""Native answers: our own creatives' assets for those asked for, and DSPs' with our trackers in them.

A video asset of ours is VAST in the newest version that the request's player knows. It reports how it plays and that it
was clicked on; that the ad was seen is reported by the native ad around it.
Source: OpenRTB Native Ads 1.2 §4.5, §5 (response), §7.4 (data asset types), §7.3 (image types), §7.6-7.7 (event
trackers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from schemas.catalog import Creative
from serving.adserver.markup import vast
from serving.adserver.markup.trackers import Trackers
from serving.adserver.markup.vast_versions import newest_of
from serving.adserver.openrtb.native_request import (
    NativeAsset,
    NativeImage,
    NativeRequest,
    NativeVideo,
    native_request,
)

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
#: Events of a native ad that its video does not report as well.
_REPORTED_BY_THE_PAGE = ("impression", "viewable")
#: Names of a creative's assets that are its video: address, media type.
_VIDEO, _VIDEO_MIME = "video", "video_mime"
_DEFAULT_MIME = "video/mp4"
#: Instead of assets an answer may say where they are, when the request takes that.
_ELSEWHERE = ("assetsurl", "dcourl")
_KINDS = ("title", "img", "video", "data")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class NotNative(Exception):
    """A DSP's markup that is no native answer; the message says why."""


def fills(creative: Creative, asked: NativeRequest) -> bool:
    """Whether a creative has all the assets that are required of it."""
    return all(_asset(creative, asset) is not None for asset in asked.assets if asset.required)


def plays_video(creative: Creative, request: str) -> bool:
    """Whether our own creative's answer has a video in it."""
    if _VIDEO not in creative.assets:
        return False
    return any(a.video is not None and _video(creative, a.video) for a in native_request(request).assets)


def own(creative: Creative, request: str, identity: vast.AdIdentity, title: str, trackers: Trackers) -> str:
    """Our own creative as the request wants it. Shape: JSON, in an object `native` if the request was in one."""
    asked = native_request(request)

    def vast_tag(video: NativeVideo, media: Creative) -> str:
        version = newest_of(video.protocols)
        player = vast.Player(version) if version is not None else vast.ANY_PLAYER
        inside = {name: url for name, url in trackers.urls.items() if name not in _REPORTED_BY_THE_PAGE}
        return vast.inline(identity, media, title, Trackers(inside, trackers.progress), player)

    assets = [made for asset in asked.assets if (made := _asset(creative, asset, vast_tag)) is not None]
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
    answer = _without_nulls(answer) | {"link": _without_nulls(answer["link"])}
    for name in ("assets", "imptrackers", "eventtrackers"):
        if not isinstance(answer.get(name, []), list):
            raise NotNative(f"{name} is no list")
    if not isinstance(answer["link"].get("clicktrackers", []), list):
        raise NotNative("link.clicktrackers is no list")
    asked = native_request(request)
    if not any(answer.get(name) for name in _ELSEWHERE):
        _check_required(answer.get("assets", []), asked)
    return _finished(answer, wrapped, asked, trackers)


def _without_nulls(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if value is not None}


def _check_required(assets: list[Any], asked: NativeRequest) -> None:
    """§4.2 `required`: the exchange accepts no answer without these. Errors: NotNative."""
    given = {a.get("id"): a for a in assets if isinstance(a, dict) and isinstance(a.get("id"), int)}
    for asset in asked.assets:
        if not asset.required:
            continue
        kind = next(name for name in _KINDS if getattr(asset, name) is not None)  # checked on its way in
        if not isinstance(given.get(asset.id, {}).get(kind), dict):
            raise NotNative(f"asset {asset.id} ({kind}) is required")


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


def _asset(
    creative: Creative, asked: NativeAsset, vast_tag: Callable[[NativeVideo, Creative], str] = lambda _asked, _media: ""
) -> dict[str, Any] | None:
    """A creative's answer to an asset; None when it has none that fits. `vast_tag` makes the document of a video."""
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
    if asked.video is not None and (media := _video(creative, asked.video)) is not None:
        return made | {"video": {"vasttag": vast_tag(asked.video, media)}}
    return None


def _video(creative: Creative, asked: NativeVideo) -> Creative | None:
    """The video of a native creative as a creative of its own; None when it has none, or none that fits."""
    address, mime = creative.assets.get(_VIDEO), creative.assets.get(_VIDEO_MIME) or _DEFAULT_MIME
    seconds = creative.duration_s or 0
    if not address or mime not in asked.mimes or not asked.minduration <= seconds <= asked.maxduration:
        return None
    if newest_of(asked.protocols) is None:
        return None
    return replace(creative, format="video", media_url=address, mime=mime)


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
