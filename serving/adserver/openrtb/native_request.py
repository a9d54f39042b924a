"""What `imp.native.request` asks for: JSON in a string, of any version of Native Ads 1.x.

Source: OpenRTB Native Ads 1.2 §4 (request); sections in the classes' docstrings.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from serving.adserver.openrtb.parts import Count, Flag, NonEmpty, Part, Positive, Whole, any_json, tidy


class NativeTitle(Part):
    """Title request, §4.3."""

    len: Positive


class NativeImage(Part):
    """Image request, §4.4."""

    type: Whole | None = None
    w: Count | None = None
    h: Count | None = None
    wmin: Count | None = None
    hmin: Count | None = None
    mimes: list[str] = []


class NativeVideo(Part):
    """Video request, §4.5: all four are required."""

    mimes: Annotated[list[NonEmpty], msgspec.Meta(min_length=1)]
    minduration: Count
    maxduration: Count
    protocols: Annotated[list[Whole], msgspec.Meta(min_length=1)]


class NativeData(Part):
    """Data request, §4.6."""

    type: Whole
    len: Count | None = None


class NativeAsset(Part):
    """Asset request, §4.2: one of title, img, video and data. `id` is the exchange's to give, which we do."""

    id: Whole | None = None
    required: Flag = 0
    title: NativeTitle | None = None
    img: NativeImage | None = None
    video: NativeVideo | None = None
    data: NativeData | None = None


class NativeTracker(Part):
    """Event tracker request, §4.7."""

    event: Whole
    methods: Annotated[list[Whole], msgspec.Meta(min_length=1)]


class NativeRequest(Part):
    """Native Markup Request, §4.1."""

    assets: Annotated[list[NativeAsset], msgspec.Meta(min_length=1)]
    ver: str = "1.2"
    context: Count | None = None
    contextsubtype: Count | None = None
    plcmttype: Count | None = None
    plcmtcnt: Positive = 1
    seq: Count = 0
    aurlsupport: Flag = 0
    durlsupport: Flag = 0
    eventtrackers: list[NativeTracker] = []
    privacy: Flag = 0


class _Wrapped(Part):
    """Native 1.0 and 1.1 put the request into an object of one field."""

    native: NativeRequest


_bare = msgspec.json.Decoder(NativeRequest)


def native_request(text: str) -> NativeRequest:
    """The request in `native.request`. Errors: ValueError."""
    try:
        return _bare.decode(text)
    except msgspec.ValidationError:
        data = tidy(text)
        if isinstance(data, dict) and "native" in data and "assets" not in data:
            return msgspec.convert(data, _Wrapped).native
        return msgspec.convert(data, NativeRequest)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def checked(text: str) -> str:
    """A request that breaks no rule, with ids of its assets if it came without any. Errors: ValueError."""
    asked = native_request(text)
    seen: set[int] = set()
    for i, asset in enumerate(asked.assets):
        kinds = sum(kind is not None for kind in (asset.title, asset.img, asset.video, asset.data))
        if kinds > 1 or (asset.required and not kinds):
            raise ValueError(f"expected one of title, img, video and data - at `$.assets[{i}]`")
        if asset.id in seen:
            raise ValueError(f"{asset.id} is given twice - at `$.assets[{i}].id`")
        if asset.id is not None:
            seen.add(asset.id)
    if len(seen) == len(asked.assets):
        return text
    if seen:
        raise ValueError("ids are for all assets or for none of them - at `$.assets`")
    return _numbered(text)


def _numbered(text: str) -> str:
    """A request's assets counted from 1."""
    data = any_json(text)
    asked: dict[str, Any] = data if "assets" in data else data["native"]
    asked["assets"] = [{"id": i, **{k: v for k, v in a.items() if k != "id"}} for i, a in enumerate(asked["assets"], 1)]
    return msgspec.json.encode(data).decode()
