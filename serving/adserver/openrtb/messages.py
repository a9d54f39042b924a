"""OpenRTB 2.6 requests and responses (2.5 works), decoded and checked.

Source: IAB Tech Lab OpenRTB 2.6-202409, sections in the classes' docstrings. A wrong type, a broken range or a missing
required field is a `BadRequest` with its JSON path; an unknown field and any `ext` is ignored. Exchanges differ in how
they write what is not there and what is whole: null counts as absent, 300.0 as 300.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from serving.adserver.openrtb.impressions import Audio, Banner, DurationFloor, Imp, Native, Size, Video
from serving.adserver.openrtb.native_request import checked
from serving.adserver.openrtb.parts import Count, Flag, NonEmpty, Part, Whole, tidy
from serving.adserver.openrtb.places import Content, Device, Geo, Inventory, Publisher, Regs, Source, User

__all__ = [
    "Audio",
    "BadRequest",
    "Banner",
    "Bid",
    "BidRequest",
    "BidResponse",
    "BrokenBid",
    "Content",
    "Device",
    "Geo",
    "Imp",
    "Inventory",
    "Native",
    "Part",
    "Publisher",
    "Regs",
    "SeatBid",
    "Size",
    "Source",
    "User",
    "Video",
    "decode_request",
    "decode_response",
    "encode",
]

_PATH = re.compile(r" - at `(\$[^`]*)`$")
_LONGEST_MESSAGE = 300
#: Bids that a response has at most, and seats: four for each of the imps that a request has at most.
_MOST_BIDS = 256
#: Auction types of the specification; from 500 on they are an exchange's own.
_AUCTION_TYPES = (1, 2, 3)
_OWN_AUCTION_TYPES = 500
#: `qty.sourcetype` of a multiplier that a vendor measured, which is then named (§3.2.31).
_MEASURED = 1

_T = TypeVar("_T")


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
    at: Whole = 2
    tmax: Count = 0
    wseat: list[str] = []
    bseat: list[str] = []
    allimps: Flag = 0
    cur: list[str] = []
    wlang: list[str] = []
    wlangb: list[str] = []
    acat: list[str] = []
    bcat: list[str] = []
    cattax: Whole = 1
    badv: list[str] = []
    bapp: list[str] = []
    source: Source | None = None
    regs: Regs | None = None
    ext: Any = None


class Bid(Part):
    """Bid, §4.2.3."""

    id: str = ""
    impid: str = ""
    price: float | None = None
    nurl: str = ""
    burl: str = ""
    lurl: str = ""
    adm: str = ""
    adid: str = ""
    adomain: list[str] = []
    bundle: str = ""
    iurl: str = ""
    cid: str = ""
    crid: str = ""
    cattax: Whole = 1
    cat: list[str] = []
    attr: list[Whole] = []
    apis: list[Whole] = []
    api: Whole | None = None
    protocol: Whole | None = None
    qagmediarating: Whole | None = None
    language: str = ""
    langb: str = ""
    dealid: str = ""
    w: Whole | None = None
    h: Whole | None = None
    wratio: Whole | None = None
    hratio: Whole | None = None
    exp: Whole | None = None
    dur: Whole | None = None
    mtype: Whole | None = None
    slotinpod: Whole | None = None
    ext: Any = None


class BrokenBid(Bid):
    """A bid whose fields are not what the specification says: refused, without its neighbours."""


class SeatBid(Part):
    """SeatBid, §4.2.2. `group` 1: all bids of the seat win together or not at all."""

    bid: list[Bid] = []
    seat: str = ""
    group: Whole = 0


class BidResponse(Part):
    """BidResponse, §4.2.1."""

    id: str = ""
    seatbid: list[SeatBid] = []
    bidid: str = ""
    cur: str = "USD"
    nbr: Whole | None = None
    ext: Any = None


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
    except msgspec.ValidationError:
        request = _tidied(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadRequest("$", f"not JSON: {e}") from e
    check_request(request)
    return request


def _tidied(body: bytes) -> BidRequest:
    """The request of a body that is only wrong in how it writes absence and whole numbers. Errors: BadRequest."""
    try:
        data = tidy(body)
    except ValueError as e:  # msgspec's errors and undecodable text are such
        raise BadRequest("$", f"not JSON: {e}"[:_LONGEST_MESSAGE]) from e
    try:
        return msgspec.convert(data, BidRequest)
    except msgspec.ValidationError as e:
        found = _PATH.search(str(e))
        reason = _PATH.sub("", str(e))[:_LONGEST_MESSAGE]
        raise BadRequest(found.group(1) if found else "$", reason) from e


def check_request(request: BidRequest) -> None:
    """Rules that types do not say. Errors: BadRequest for the first that is broken."""
    if sum(x is not None for x in (request.site, request.app, request.dooh)) > 1:
        raise BadRequest("$", "at most one of site, app and dooh")
    for one, other in (("wseat", "bseat"), ("wlang", "wlangb")):
        if getattr(request, one) and getattr(request, other):
            raise BadRequest(f"$.{other}", f"at most one of {one} and {other}")
    if request.at not in _AUCTION_TYPES and request.at < _OWN_AUCTION_TYPES:
        raise BadRequest("$.at", f"expected 1, 2, 3 or one of an exchange's own from 500 on, got {request.at}")
    seen: set[str] = set()
    for i, imp in enumerate(request.imp):
        if imp.id in seen:
            raise BadRequest(f"$.imp[{i}].id", f"{imp.id!r} is given twice")
        seen.add(imp.id)
        if imp.banner is None and imp.video is None and imp.audio is None and imp.native is None:
            raise BadRequest(f"$.imp[{i}]", "one of banner, video, audio and native is required")
        if imp.video is not None and imp.video.protocol and not imp.video.protocols:
            imp.video.protocols = [imp.video.protocol]  # as 2.0 said it, and 2.5 still may
        if imp.qty is not None and imp.qty.sourcetype == _MEASURED and not imp.qty.vendor:
            raise BadRequest(f"$.imp[{i}].qty.vendor", "is required when sourcetype is 1")
        for name in ("video", "audio"):
            timed = getattr(imp, name)
            if timed is not None:
                _check_durations(timed, f"$.imp[{i}].{name}")
        for j, deal in enumerate(imp.pmp.deals if imp.pmp is not None else ()):
            if deal.durfloors:
                _check_floors(deal.durfloors, f"$.imp[{i}].pmp.deals[{j}]")
        if imp.native is not None:
            try:
                imp.native.request = checked(imp.native.request)
            except ValueError as e:
                raise BadRequest(f"$.imp[{i}].native.request", str(e)[:_LONGEST_MESSAGE]) from e


def _check_durations(timed: Video | Audio, path: str) -> None:
    """§3.2.7, §3.2.8: exact durations and a range of them exclude each other. Errors: BadRequest."""
    if timed.rqddurs and (timed.minduration or timed.maxduration is not None):
        raise BadRequest(f"{path}.rqddurs", "excludes minduration and maxduration")
    if timed.maxduration is not None and timed.minduration > timed.maxduration:
        raise BadRequest(f"{path}.minduration", f"{timed.minduration} is more than maxduration {timed.maxduration}")
    if timed.durfloors:
        _check_floors(timed.durfloors, path)


def _check_floors(floors: list[DurationFloor], path: str) -> None:
    """§3.2.35: a floor says for which durations it is. Errors: BadRequest."""
    for i, floor in enumerate(floors):
        if floor.mindur is None and floor.maxdur is None:
            raise BadRequest(f"{path}.durfloors[{i}]", "one of mindur and maxdur is required")


def decode_response(body: bytes) -> BidResponse:
    """A DSP's response; a bid that breaks the specification is a `BrokenBid`, and its neighbours are none the worse.

    Errors: ValueError (msgspec's are such) when there is no response to speak of, or one of more bids than anybody has:
    each is looked at, held against all others and told how it ended.
    """
    try:
        response = _responses.decode(body)
    except msgspec.ValidationError:
        return _bid_by_bid(tidy(body))
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    _check_number([seat.bid for seat in response.seatbid])
    return response


def _check_number(bids_of_seats: Sequence[Sequence[Any]]) -> None:
    """Errors: ValueError for too many."""
    if len(bids_of_seats) > _MOST_BIDS or sum(map(len, bids_of_seats)) > _MOST_BIDS:
        raise ValueError(f"more than {_MOST_BIDS} bids")


def _bid_by_bid(data: Any) -> BidResponse:
    """The response of JSON data, each bid judged alone. Errors: ValueError."""
    if not isinstance(data, dict) or not isinstance(seats := data.pop("seatbid", []), list):
        raise ValueError("not a bid response")
    given = [seat.get("bid") if isinstance(seat, dict) else None for seat in seats]
    _check_number([bids if isinstance(bids, list) else [] for bids in given])
    response = msgspec.convert(data, BidResponse)
    for seat in seats:
        bids = seat.pop("bid", []) if isinstance(seat, dict) else []
        if not isinstance(seat, dict) or not isinstance(bids, list):
            continue
        made = _converted(seat, SeatBid) or SeatBid()
        made.bid = [_converted(bid, Bid) or _broken(bid) for bid in bids]
        response.seatbid.append(made)
    return response


def _converted(data: Any, kind: type[_T]) -> _T | None:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError:
        return None


def _broken(data: Any) -> BrokenBid:
    names = ("id", "impid", "crid", "cid") if isinstance(data, dict) else ()
    return BrokenBid(**{n: data[n] for n in names if isinstance(data.get(n), str)})


def encode(part: Part) -> bytes:
    return _encoder.encode(part)
