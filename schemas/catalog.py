"""The catalogue (advertisers, campaigns, line items, creatives, publishers, placements), and the files of bidders and
partners: plain JSON that the ad server, the reporting API and the event handler read (`catalog_text.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Advertiser:
    """Conversions are credited to a click or view at most `click_lookback_s` or `view_lookback_s` before; 0: never.

    Two ads with an `exclusion_labels` entry in common, their line items' included, are never shown in one pod or page.
    """

    id: str
    name: str
    domain: str
    category: str = ""  # IAB content category of what it sells
    click_lookback_s: int = 7 * 86_400
    view_lookback_s: int = 86_400
    exclusion_labels: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most `limit` impressions per viewer in a rolling window. `scope`: creative, campaign or advertiser.

    `window_s` is up to 31 days; null is the viewer's lifetime. `per` pod or stream counts within one ad pod or one
    session instead, for as long as that lasts, and has no window. `strict` counts wins that are not shown yet as
    well; otherwise only impressions that the stream has counted.
    """

    scope: str
    limit: int
    window_s: int | None = None
    per: str = "viewer"  # viewer, pod, stream
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Campaign:
    """`daily_budget_micros` is of a UTC day, `lifetime_budget_micros` of all days together (0: no such limit).

    `pacing` says how the day's budget follows the day's traffic: evenly with it, frontloaded (a quarter ahead of it),
    or as it comes. `traffic_curve` is that forecast: 24 weights, one per UTC hour; empty is a flat day.
    """

    id: str
    advertiser_id: str
    name: str
    daily_budget_micros: int
    start_ms: int = 0
    end_ms: int = 2**53
    status: str = "active"  # active or paused
    pacing: str = "as_fast_as_possible"  # evenly, frontloaded, as_fast_as_possible
    frequency_caps: list[FrequencyCap] = field(default_factory=list)
    lifetime_budget_micros: int = 0
    traffic_curve: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Daypart:
    """Hours of days of the week: from `from_hour` (0-23) until before `to_hour` (1-24). Monday is 1, Sunday 7."""

    days: list[int]
    from_hour: int = 0
    to_hour: int = 24


@dataclass(frozen=True, slots=True)
class Targeting:
    """Empty lists mean any; what a request does not say is in no list that has entries.

    `countries` are ISO 3166-1 alpha-2, `regions` ISO 3166-2, `cities` names as the request has them, `platforms`
    operating systems, `genres` and `content_ids` of OpenRTB's `content`, `segments` ids of `user.data`, `deal_ids`
    deals of `imp.pmp`. `daypart_clock` viewer takes the hour where the viewer is (`geo.utcoffset`, else UTC).
    """

    countries: list[str] = field(default_factory=list)
    device_types: list[str] = field(default_factory=list)
    content_categories: list[str] = field(default_factory=list)
    placement_ids: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    cities: list[str] = field(default_factory=list)
    platforms: list[str] = field(default_factory=list)
    content_ids: list[str] = field(default_factory=list)
    genres: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    deal_ids: list[str] = field(default_factory=list)
    dayparts: list[Daypart] = field(default_factory=list)
    daypart_clock: str = "utc"  # utc or viewer


@dataclass(frozen=True, slots=True)
class LineItem:
    """`pricing` cpm: `bid_micros` per thousand impressions; cpc: per click; cpv: per completed view; guaranteed: per
    thousand of `goal_impressions` that were promised from `start_ms` until `end_ms`; house: shown only when nothing
    else is.

    `priority` orders guaranteed line items whose promise is worth the same: the lower number first.
    """

    id: str
    campaign_id: str
    pricing: str
    bid_micros: int
    targeting: Targeting = field(default_factory=Targeting)
    goal_impressions: int = 0
    start_ms: int = 0
    end_ms: int = 2**53
    priority: int = 8
    exclusion_labels: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Creative:
    """`trackers` maps an event type to third parties' URLs, with VAST macros, that are called when it happened.

    `assets` of a native creative: title, and by the names of Native 1.2's data types sponsored, desc, rating, ctatext
    and the like; its main image is `media_url`, its icon the asset `icon`, its video the asset `video` (an address; its
    media type is `video_mime`, else video/mp4) of `duration_s`.
    Publishers may block `attributes` (AdCOM's list "Creative Attributes"), the `language` (BCP 47), bitrates (0: any).
    """

    id: str
    line_item_id: str
    format: str  # video, audio, banner or native
    landing_url: str
    version: int = 1
    duration_s: int | None = None
    width: int = 0
    height: int = 0
    media_url: str = ""
    mime: str = ""
    review: str = "approved"
    trackers: dict[str, list[str]] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)
    attributes: list[int] = field(default_factory=list)
    language: str = ""
    bitrate_kbps: int = 0


@dataclass(frozen=True, slots=True)
class Publisher:
    """`premium`: all of its placements are."""

    id: str
    name: str
    domain: str
    premium: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """For a `premium` placement every DSP is asked, whatever its tier."""

    id: str
    publisher_id: str
    format: str  # video, audio, banner or native
    content_category: str
    floor_cpm_micros: int = 0
    site_id: str | None = None
    app_id: str | None = None
    live: bool = False
    premium: bool = False


@dataclass(frozen=True, slots=True)
class Deal:
    """A deal of ours with buyers, offered on placements; empty lists mean any.

    `type`: private (an auction among its buyers, above its floor), preferred (a fixed price) or guaranteed (fixed, and
    it goes before everything). Bids of a higher `priority` win over those of a lower one, whatever they pay; 0 is that
    of the open auction.
    """

    id: str
    type: str
    floor_cpm_micros: int
    bidder_ids: list[str] = field(default_factory=list)
    seat_ids: list[str] = field(default_factory=list)
    placement_ids: list[str] = field(default_factory=list)
    advertiser_domains: list[str] = field(default_factory=list)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ExperimentCell:
    """One cell: `weight` of the viewers that are not held out; what is different for them.

    `floor_percent` multiplies placements' floors, `model_alias` names a challenger model, `off_line_items` do not run.
    """

    name: str
    weight: int = 1
    floor_percent: int = 100
    model_alias: str = ""
    off_line_items: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Experiment:
    """`hold_out_basis_points` (of 10,000 viewers) are not shown the campaigns, nor any of the advertisers."""

    id: str
    salt: str
    cells: list[ExperimentCell] = field(default_factory=list)
    hold_out_basis_points: int = 0
    campaign_ids: list[str] = field(default_factory=list)
    advertiser_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Catalog:
    """`rates`: micros of `currency` for one unit of another currency. `{}` is a catalogue: of an exchange that only
    sells what its DSPs bid on. An imp with a floor from `premium_floor_cpm_micros` on (0: no such rule) is premium
    wherever it is.
    """

    version: int = 1
    currency: str = "USD"
    advertisers: list[Advertiser] = field(default_factory=list)
    campaigns: list[Campaign] = field(default_factory=list)
    line_items: list[LineItem] = field(default_factory=list)
    creatives: list[Creative] = field(default_factory=list)
    publishers: list[Publisher] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    deals: list[Deal] = field(default_factory=list)
    rates: dict[str, int] = field(default_factory=dict)
    experiments: list[Experiment] = field(default_factory=list)
    premium_floor_cpm_micros: int = 0


@dataclass(frozen=True, slots=True)
class Bidder:
    """One DSP. `timeout_ms` is the most that it is ever given, `tcf_vendor_id` its number in the Global Vendor List (0:
    it is not in it, and learns of nobody in the EEA who they are), `max_qps` the most requests a second (0: any).
    """

    id: str
    endpoint: str
    seat_ids: list[str] = field(default_factory=list)
    currency: str = "USD"
    regions: list[str] = field(default_factory=list)
    timeout_ms: int = 120
    tcf_vendor_id: int = 0
    max_qps: int = 0


@dataclass(frozen=True, slots=True)
class Bidders:
    version: int = 1
    bidders: list[Bidder] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Partner:
    """A verification or measurement partner that trackers lead to.

    `addresses` are `host[:port][/path]` prefixes of its URLs. With `consent_required` it is not called for users who
    opted out; without, it is called, and gets nothing of their device. With `valid_traffic_only` it is not told of
    events that are marked as invalid traffic when they are published: most want all, to judge for themselves.
    """

    id: str
    addresses: list[str]
    max_per_s: int = 200
    max_in_flight: int = 16
    timeout_ms: int = 5_000
    headers: dict[str, str] = field(default_factory=dict)
    consent_required: bool = False
    valid_traffic_only: bool = False


@dataclass(frozen=True, slots=True)
class Partners:
    version: int
    partners: list[Partner]
