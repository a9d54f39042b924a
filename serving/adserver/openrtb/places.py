"""Where an ad would run and who would see it: site, app or screen, content, device, user, and what the law says.

Source: OpenRTB 2.6-202409; sections in the classes' docstrings.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from serving.adserver.openrtb.parts import Amount, Count, Flag, Latitude, Longitude, NonEmpty, Part, Whole


class Segment(Part):
    """Segment, §3.2.22."""

    id: str = ""
    name: str = ""
    value: str = ""


class Data(Part):
    """Data, §3.2.21."""

    id: str = ""
    name: str = ""
    segment: list[Segment] = []
    cids: list[str] | None = None


class Business(Part):
    """Publisher §3.2.15, Producer §3.2.17, Network §3.2.23 and Channel §3.2.24."""

    id: str = ""
    name: str = ""
    cat: list[str] = []
    cattax: Whole = 1
    domain: str = ""


class Publisher(Business):
    """Publisher, §3.2.15."""


class Content(Part):
    """Content, §3.2.16."""

    id: str = ""
    episode: Whole | None = None
    title: str = ""
    series: str = ""
    season: str = ""
    artist: str = ""
    album: str = ""
    isrc: str = ""
    genre: str = ""
    genres: list[Whole] = []
    gtax: Whole = 9
    producer: Business | None = None
    network: Business | None = None
    channel: Business | None = None
    url: str = ""
    cat: list[str] = []
    cattax: Whole = 1
    prodq: Whole | None = None
    context: Whole | None = None
    contentrating: str = ""
    userrating: str = ""
    qagmediarating: Whole | None = None
    keywords: str = ""
    kwarray: list[str] | None = None
    livestream: Flag = 0
    realtime: Whole | None = None
    firstbroadcast: Whole | None = None
    sourcerelationship: Flag | None = None
    len: Whole | None = None
    language: str = ""
    langb: str = ""
    embeddable: Flag | None = None
    data: list[Data] = []


class Inventory(Part):
    """Site §3.2.13, App §3.2.14 or DOOH §3.2.28: the fields of all three."""

    id: str = ""
    name: str = ""
    domain: str = ""
    cattax: Whole = 1
    cat: list[str] = []
    sectioncat: list[str] | None = None
    pagecat: list[str] | None = None
    page: str = ""
    ref: str = ""
    search: str = ""
    mobile: Flag | None = None
    amp: Flag | None = None
    privacypolicy: Flag | None = None
    publisher: Publisher | None = None
    content: Content | None = None
    keywords: str = ""
    kwarray: list[str] | None = None
    inventorypartnerdomain: str = ""
    bundle: str = ""
    storeurl: str = ""
    ver: str = ""
    paid: Flag | None = None
    venuetype: list[str] | None = None
    venuetypetax: Whole | None = None
    fixed: Whole | None = None


class Geo(Part):
    """Geo, §3.2.19. `country` is ISO 3166-1 alpha-3."""

    lat: Latitude | None = None
    lon: Longitude | None = None
    type: Whole | None = None
    accuracy: Count | None = None
    lastfix: Count | None = None
    ipservice: Whole | None = None
    country: str = ""
    region: str = ""
    regionfips104: str = ""
    metro: str = ""
    city: str = ""
    zip: str = ""
    utcoffset: Whole | None = None


class BrandVersion(Part):
    """BrandVersion, §3.2.30."""

    brand: str
    version: list[str] | None = None


class UserAgent(Part):
    """UserAgent, §3.2.29: structured client hints."""

    browsers: list[BrandVersion] | None = None
    platform: BrandVersion | None = None
    mobile: Flag | None = None
    architecture: str | None = None
    bitness: str | None = None
    model: str | None = None
    source: Whole = 0


class Device(Part):
    """Device, §3.2.18."""

    geo: Geo | None = None
    dnt: Flag = 0
    lmt: Flag = 0
    ua: str = ""
    sua: UserAgent | None = None
    ip: str = ""
    ipv6: str = ""
    devicetype: Count | None = None
    make: str = ""
    model: str = ""
    os: str = ""
    osv: str = ""
    hwv: str = ""
    h: Count | None = None
    w: Count | None = None
    ppi: Count | None = None
    pxratio: Amount | None = None
    js: Flag | None = None
    geofetch: Flag | None = None
    flashver: str = ""
    language: str = ""
    langb: str = ""
    carrier: str = ""
    mccmnc: str = ""
    connectiontype: Count | None = None
    ifa: str = ""
    didsha1: str = ""
    didmd5: str = ""
    dpidsha1: str = ""
    dpidmd5: str = ""
    macsha1: str = ""
    macmd5: str = ""
    ext: Any = None


class ExtendedUid(Part):
    """UID, §3.2.28 of EIDs."""

    id: str = ""
    atype: Whole | None = None


class ExtendedId(Part):
    """EID, §3.2.27."""

    source: str = ""
    inserter: str = ""
    matcher: str = ""
    mm: Whole | None = None
    uids: list[ExtendedUid] = []


class User(Part):
    """User, §3.2.20."""

    id: str = ""
    buyeruid: str = ""
    yob: Whole | None = None
    gender: str = ""
    keywords: str = ""
    kwarray: list[str] | None = None
    customdata: str = ""
    geo: Geo | None = None
    data: list[Data] = []
    consent: str = ""
    eids: list[ExtendedId] = []
    ext: Any = None


class Regs(Part):
    """Regs, §3.2.3. 2.5 has these under `ext`."""

    coppa: Flag = 0
    gdpr: Flag | None = None
    us_privacy: str = ""
    gpp: str = ""
    gpp_sid: list[Whole] = []
    ext: Any = None


class SupplyChainNode(Part):
    """SupplyChainNode, §3.2.26."""

    asi: NonEmpty
    sid: NonEmpty
    rid: str = ""
    name: str = ""
    domain: str = ""
    hp: Whole | None = None


class SupplyChain(Part):
    """SupplyChain, §3.2.25."""

    complete: Flag
    nodes: Annotated[list[SupplyChainNode], msgspec.Meta(min_length=1)]
    ver: str


class Source(Part):
    """Source, §3.2.2. 2.5 has `schain` under `ext`."""

    fd: Flag | None = None
    tid: str = ""
    pchain: str = ""
    schain: SupplyChain | None = None
    ext: Any = None
