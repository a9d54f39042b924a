"""OpenRTB as far as the straightforward ad server reads it, in pydantic."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Video(BaseModel):
    mimes: list[str]
    minduration: int = 0
    maxduration: int | None = None
    w: int | None = None
    h: int | None = None
    protocols: list[int] = []
    linearity: int | None = None


class Imp(BaseModel):
    id: str
    tagid: str = ""
    video: Video
    bidfloor: float = 0.0
    bidfloorcur: str = "USD"
    secure: int | None = None


class Geo(BaseModel):
    country: str = ""
    region: str = ""


class Device(BaseModel):
    ua: str = ""
    ip: str = ""
    devicetype: int | None = None
    os: str = ""
    language: str = ""
    geo: Geo | None = None


class User(BaseModel):
    id: str = ""


class BidRequest(BaseModel):
    id: str
    imp: list[Imp] = Field(min_length=1)
    site: dict[str, Any] | None = None
    device: Device | None = None
    user: User | None = None
    at: int = 2
    tmax: int = 150
    cur: list[str] = []
    badv: list[str] = []
    bcat: list[str] = []


class Bid(BaseModel):
    id: str
    impid: str
    price: float
    adm: str = ""
    crid: str = ""
    cid: str = ""
    adomain: list[str] = []
    cat: list[str] = []


class SeatBid(BaseModel):
    bid: list[Bid]
    seat: str = ""


class DspResponse(BaseModel):
    id: str
    seatbid: list[SeatBid] = []
    cur: str = "USD"
