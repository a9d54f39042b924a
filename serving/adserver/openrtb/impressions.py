"""What is for sale: an imp and everything below it.

Source: OpenRTB 2.6-202409; sections in the classes' docstrings. What `native.request` holds is in native_request.py.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from serving.adserver.openrtb.parts import Amount, Count, Flag, NonEmpty, Part, Positive, Whole


class Size(Part):
    """Format, §3.2.10: a size, or a ratio with a least width (flex ads)."""

    w: Count = 0
    h: Count = 0
    wratio: Count | None = None
    hratio: Count | None = None
    wmin: Count | None = None


class Banner(Part):
    """Banner, §3.2.6."""

    format: list[Size] = []
    w: Count | None = None
    h: Count | None = None
    btype: list[Whole] = []
    battr: list[Whole] = []
    pos: Whole | None = None
    mimes: list[str] = []
    topframe: Flag | None = None
    expdir: list[Whole] | None = None
    api: list[Whole] = []
    id: str | None = None
    vcm: Flag | None = None

    def sizes(self) -> set[tuple[int, int]]:
        """Sizes that may be shown; empty when any may, as ratios alone say nothing final."""
        found = {(f.w, f.h) for f in self.format if f.w and f.h}
        if self.w and self.h:
            found.add((self.w, self.h))
        return found


class DurationFloor(Part):
    """DurFloors, §3.2.35: the floor of creatives of these durations."""

    mindur: Count | None = None
    maxdur: Count | None = None
    bidfloor: Amount = 0.0


class Timed(Part):
    """What Video and Audio have in common: media types, durations, and their place in a pod."""

    mimes: Annotated[list[NonEmpty], msgspec.Meta(min_length=1)]
    minduration: Count = 0
    maxduration: Count | None = None
    poddur: Count | None = None
    maxseq: Count | None = None
    poddedupe: list[Whole] | None = None
    rqddurs: list[Positive] = []
    podid: str | Whole | None = None
    podseq: Whole = 0
    slotinpod: Whole = 0
    mincpmpersec: Amount | None = None
    startdelay: Whole | None = None
    protocols: list[Whole] = []
    battr: list[Whole] = []
    api: list[Whole] = []
    companiontype: list[Whole] | None = None
    companionad: list[Banner] | None = None
    delivery: list[Whole] | None = None
    sequence: Count | None = None
    maxextended: Whole | None = None
    minbitrate: Count | None = None
    maxbitrate: Count | None = None
    durfloors: list[DurationFloor] = []


class Video(Timed):
    """Video, §3.2.7."""

    w: Count | None = None
    h: Count | None = None
    linearity: Whole | None = None
    skip: Flag | None = None
    skipmin: Count = 0
    skipafter: Count = 0
    boxingallowed: Flag = 1
    placement: Whole | None = None
    plcmt: Whole | None = None
    playbackmethod: list[Whole] | None = None
    playbackend: Whole | None = None
    pos: Whole | None = None
    protocol: Whole | None = None


class Audio(Timed):
    """Audio, §3.2.8."""

    feed: Whole | None = None
    stitched: Flag | None = None
    nvol: Whole | None = None


class Native(Part):
    """Native, §3.2.9: `request` is JSON in a string."""

    request: NonEmpty
    ver: str = ""
    api: list[Whole] = []
    battr: list[Whole] = []


class Metric(Part):
    """Metric, §3.2.5."""

    type: NonEmpty
    value: float
    vendor: str = ""


class Deal(Part):
    """Deal, §3.2.12."""

    id: NonEmpty
    bidfloor: Amount = 0.0
    bidfloorcur: str = "USD"
    at: Whole | None = None
    wseat: list[str] = []
    wadomain: list[str] = []
    guar: Flag = 0
    mincpmpersec: Amount | None = None
    durfloors: list[DurationFloor] = []


class Pmp(Part):
    """Pmp, §3.2.11: with `private_auction` bids without a deal are not wanted."""

    private_auction: Flag = 0
    deals: list[Deal] = []


class Quantity(Part):
    """Qty, §3.2.31: how many impressions one imp is worth (DOOH). Its bound keeps what an ad costs within 64 bits."""

    multiplier: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    sourcetype: Whole | None = None
    vendor: str | None = None


class RefreshSettings(Part):
    """RefSettings, §3.2.34."""

    reftype: Whole = 0
    minint: Count | None = None


class Refresh(Part):
    """Refresh, §3.2.33."""

    count: Count | None = None
    refsettings: list[RefreshSettings] | None = None


class Imp(Part):
    """Imp, §3.2.4. `tagid` is our placement id."""

    id: NonEmpty
    metric: list[Metric] = []
    banner: Banner | None = None
    video: Video | None = None
    audio: Audio | None = None
    native: Native | None = None
    pmp: Pmp | None = None
    displaymanager: str | None = None
    displaymanagerver: str | None = None
    instl: Flag = 0
    tagid: str = ""
    bidfloor: Amount = 0.0
    bidfloorcur: str = "USD"
    clickbrowser: Flag | None = None
    secure: Flag | None = None
    iframebuster: list[str] | None = None
    rwdd: Flag = 0
    ssai: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    exp: Count | None = None
    qty: Quantity | None = None
    dt: float | None = None
    refresh: Refresh | None = None
