"""OpenRTB 2.6 (2.5 requests work) as far as decisions use it; what is not named here is ignored, also in `ext`.

Source: IAB Tech Lab OpenRTB 2.6, sections in the classes' docstrings. Decoding is msgspec's: a wrong type raises
`msgspec.ValidationError`, whose text ends in the JSON path.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

_PATH = re.compile(r" - at `(\$[^`]*)`$")

NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]


class Part(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of all objects: what has its default is not written."""


class Size(Part):
    """Format, §3.2.10."""

    w: int = 0
    h: int = 0


class Banner(Part):
    """Banner, §3.2.6."""

    w: int | None = None
    h: int | None = None
    format: list[Size] = []


class Video(Part):
    """Video, §3.2.7."""

    mimes: Annotated[list[str], msgspec.Meta(min_length=1)]
    minduration: int = 0
    maxduration: int | None = None
    protocols: list[int] = []
    w: int | None = None
    h: int | None = None
    linearity: int | None = None
    skip: int | None = None


class Imp(Part):
    """Imp, §3.2.4. `tagid` is our placement id. Audio and native are known, so that they are no error."""

    id: NonEmpty
    banner: Banner | None = None
    video: Video | None = None
    audio: Any = None
    native: Any = None
    tagid: str = ""
    bidfloor: Amount = 0.0
    bidfloorcur: str = "USD"
    secure: Flag | None = None


class Publisher(Part):
    """Publisher, §3.2.15."""

    id: str = ""


class Content(Part):
    """Content, §3.2.16."""

    id: str = ""
    cat: list[str] = []
    livestream: Flag = 0


class Inventory(Part):
    """Site §3.2.13, App §3.2.14 or DOOH §3.2.28: what they have in common."""

    id: str = ""
    cat: list[str] = []
    publisher: Publisher | None = None
    content: Content | None = None
    domain: str = ""
    bundle: str = ""


class Geo(Part):
    """Geo, §3.2.19. `country` is ISO 3166-1 alpha-3."""

    country: str = ""
    region: str = ""


class Device(Part):
    """Device, §3.2.18."""

    devicetype: int | None = None
    os: str = ""
    ua: str = ""
    language: str = ""
    ip: str = ""
    ipv6: str = ""
    geo: Geo | None = None
    lmt: Flag = 0


class User(Part):
    """User, §3.2.20."""

    id: str = ""
    consent: str = ""
    ext: Any = None


class Regs(Part):
    """Regs, §3.2.3. 2.5 has these under `ext`."""

    coppa: Flag = 0
    gdpr: Flag | None = None
    us_privacy: str = ""
    ext: Any = None


class BidRequest(Part):
    """BidRequest, §3.2.1."""

    id: NonEmpty
    imp: Annotated[list[Imp], msgspec.Meta(min_length=1, max_length=64)]
    site: Inventory | None = None
    app: Inventory | None = None
    dooh: Inventory | None = None
    device: Device | None = None
    user: User | None = None
    test: Flag = 0
    at: int = 2
    tmax: Annotated[int, msgspec.Meta(ge=0)] = 0
    cur: list[str] = []
    bcat: list[str] = []
    badv: list[str] = []
    regs: Regs | None = None
    ext: Any = None


class Bid(Part):
    """Bid, §4.2.3."""

    id: str = ""
    impid: str = ""
    price: float | None = None
    adm: str = ""
    adomain: list[str] = []
    cat: list[str] = []
    cid: str = ""
    crid: str = ""
    burl: str = ""
    dealid: str = ""
    w: int | None = None
    h: int | None = None
    dur: int | None = None
    mtype: int | None = None
    ext: Any = None


class SeatBid(Part):
    """SeatBid, §4.2.2."""

    bid: list[Bid] = []
    seat: str = ""


class BidResponse(Part):
    """BidResponse, §4.2.1."""

    id: str = ""
    seatbid: list[SeatBid] = []
    cur: str = "USD"
    nbr: int | None = None


class BadRequest(Exception):
    """A request that breaks the specification: the JSON path and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


_requests = msgspec.json.Decoder(BidRequest)
_responses = msgspec.json.Decoder(BidResponse)
_encoder = msgspec.json.Encoder()


def decode_request(body: bytes) -> BidRequest:
    """A checked request. Errors: BadRequest."""
    try:
        request = _requests.decode(body)
    except msgspec.ValidationError as e:
        found = _PATH.search(str(e))
        reason = _PATH.sub("", str(e))
        raise BadRequest(found.group(1) if found else "$", reason) from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadRequest("$", f"not JSON: {e}") from e
    check_request(request)
    return request


def check_request(request: BidRequest) -> None:
    """Rules that types do not say. Errors: BadRequest for the first that is broken."""
    if sum(x is not None for x in (request.site, request.app, request.dooh)) > 1:
        raise BadRequest("$", "at most one of site, app and dooh")
    seen: set[str] = set()
    for i, imp in enumerate(request.imp):
        if imp.id in seen:
            raise BadRequest(f"$.imp[{i}].id", f"{imp.id!r} is given twice")
        seen.add(imp.id)
        if imp.banner is None and imp.video is None and imp.audio is None and imp.native is None:
            raise BadRequest(f"$.imp[{i}]", "one of banner, video, audio and native is required")


def decode_response(body: bytes) -> BidResponse:
    """A DSP's response. Errors: ValueError (msgspec's are such)."""
    return _responses.decode(body)


def encode(part: Part) -> bytes:
    return _encoder.encode(part)
