"""The catalogue (advertisers, campaigns, line items, creatives, publishers, placements), and the files of bidders and
partners.

Plain JSON files that the ad server, the reporting API and the event handler read. Every problem in a file is
reported, with its JSON path, in one `ConfigError`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Generator
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from schemas.errors import ConfigError
from schemas.events import BY_NAME


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


def load_catalog(text: str) -> Catalog:
    """The catalogue of a JSON text. Errors: ConfigError lists every problem with its path."""
    steps = catalog_in_steps(_parse(text))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Catalog, end.value)


def catalog_in_steps(data: Any) -> Generator[None, None, Catalog]:
    """The catalogue of parsed JSON, built with a pause behind each item, for a process that must not stand still.

    Errors: ConfigError lists every problem with its path.
    """
    problems: list[str] = []
    types_of, _ = _fields(Catalog)
    built: dict[str, list[Any]] = {}
    for name, items in data.items() if isinstance(data, dict) else ():
        if isinstance(items, list) and get_origin(types_of.get(name)) is list:
            (kind,) = get_args(types_of[name])
            made = built[name] = []
            for i, item in enumerate(items):
                made.append(_build(kind, item, f"$.{name}[{i}]", problems))
                yield
    rest = data | {name: [] for name in built} if built else data
    catalog = _build(Catalog, rest, "$", problems)
    if not problems:
        catalog = replace(catalog, **built)
        problems += _dangling(catalog)
    if problems:
        raise ConfigError("catalogue: " + "; ".join(problems))
    return cast(Catalog, catalog)


def load_bidders(text: str) -> Bidders:
    """The bidders of a JSON text. Errors: ConfigError lists every problem with its path."""
    problems: list[str] = []
    bidders = _build(Bidders, _parse(text), "$", problems)
    if problems:
        raise ConfigError("bidders: " + "; ".join(problems))
    return bidders


def load_partners(text: str) -> Partners:
    """The partners of a JSON text. Errors: ConfigError lists every problem with its path."""
    problems: list[str] = []
    partners = _build(Partners, _parse(text), "$", problems)
    if problems:
        raise ConfigError("partners: " + "; ".join(problems))
    return partners


def dump(value: Catalog | Bidders | Partners) -> str:
    """JSON text that loads back to the same value."""
    return json.dumps(asdict(value), indent=1) + "\n"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise ConfigError(f"not JSON: {e}") from e


def _build(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    """`value` as `kind`; what does not fit is appended to `problems`."""
    origin = get_origin(kind)
    if origin is list:
        if not isinstance(value, list):
            problems.append(f"{path}: expected a list")
            return []
        (item,) = get_args(kind)
        return [_build(item, v, f"{path}[{i}]", problems) for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            problems.append(f"{path}: expected an object")
            return {}
        _, item = get_args(kind)
        return {k: _build(item, v, f"{path}.{k}", problems) for k, v in value.items()}
    if origin in (Union, types.UnionType):
        inner = next(a for a in get_args(kind) if a is not type(None))
        return None if value is None else _build(inner, value, path, problems)
    if kind in (str, int, bool):
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            problems.append(f"{path}: expected {kind.__name__}, got {type(value).__name__}")
        return value
    if not isinstance(value, dict):
        problems.append(f"{path}: expected an object")
        return None
    hints, known = _fields(kind)
    problems += [f"{path}.{name}: unknown field" for name in value.keys() - known.keys()]
    arguments = {}
    for name, f in known.items():
        if name in value:
            arguments[name] = _build(hints[name], value[name], f"{path}.{name}", problems)
        elif f.default is MISSING and f.default_factory is MISSING:
            problems.append(f"{path}.{name}: missing")
            arguments[name] = None
    return kind(**arguments)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(types, fields) of a dataclass by name: resolving its annotations costs more than a creative does otherwise."""
    return get_type_hints(kind), {f.name: f for f in fields(kind)}


def _dangling(catalog: Catalog) -> list[str]:
    """References that point nowhere, ids that are given twice, events that never happen."""
    problems = []
    ids: dict[str, set[str]] = {}
    for room in ("advertisers", "campaigns", "line_items", "creatives", "publishers", "placements", "experiments"):
        seen: set[str] = set()
        for i, item in enumerate(getattr(catalog, room)):
            if item.id in seen:
                problems.append(f"$.{room}[{i}].id: {item.id!r} is given twice")
            seen.add(item.id)
        ids[room] = seen
    references = (
        ("campaigns", "advertiser_id", "advertisers"),
        ("line_items", "campaign_id", "campaigns"),
        ("creatives", "line_item_id", "line_items"),
        ("placements", "publisher_id", "publishers"),
    )
    for room, column, target in references:
        for i, item in enumerate(getattr(catalog, room)):
            if getattr(item, column) not in ids[target]:
                problems.append(f"$.{room}[{i}].{column}: no such id {getattr(item, column)!r}")
    for i, experiment in enumerate(catalog.experiments):
        named = [("advertisers", a) for a in experiment.advertiser_ids]
        named += [("campaigns", c) for c in experiment.campaign_ids]
        named += [("line_items", x) for cell in experiment.cells for x in cell.off_line_items]
        problems += [f"$.experiments[{i}]: no such id {x!r} in {room}" for room, x in named if x not in ids[room]]
    for i, creative in enumerate(catalog.creatives):
        problems += [
            f"$.creatives[{i}].trackers.{name}: no such event type" for name in creative.trackers if name not in BY_NAME
        ]
    return problems
