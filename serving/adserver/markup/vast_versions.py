"""What differs between VAST 2.0, 3.0 and 4.x: elements and their order, and which version a player knows.

The order is the one of the versions' XML schemas (`xs:sequence`; where 4.0 and 4.1 allow any order, the one of 4.2).
What a version does not know is left out of our own documents.
Source: IAB VAST 2.0.1, 3.0, 4.0, 4.1, 4.2 schemas; AdCOM 1.0 "Creative Subtypes - Audio/Video" (`protocols`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lxml import etree

NAMESPACE = "http://www.iab.com/VAST"
NEWEST = "4.2"

#: Documents of each protocol: InLine and Wrapper. DAAST (9, 10) and VAST 1 (1, 4) are not answered.
_OF_PROTOCOL = {
    2: "2.0",
    5: "2.0",
    3: "3.0",
    6: "3.0",
    7: "4.0",
    8: "4.0",
    11: "4.1",
    12: "4.1",
    13: "4.2",
    14: "4.2",
    15: "4.2",  # 4.3 adds to 4.2, so a player of it knows 4.2
    16: "4.2",
}

_LINEAR_2 = ("Icons", "CreativeExtensions", "Duration", "TrackingEvents", "AdParameters", "VideoClicks", "MediaFiles")
_CLICKS_2 = ("ClickThrough", "ClickTracking", "CustomClick")
_NON_LINEAR_ADS = ("TrackingEvents", "NonLinear")
_ORDER_2: dict[str, tuple[str, ...]] = {
    "InLine": (
        *("AdSystem", "AdTitle", "Description", "Survey"),
        *("Error", "Impression", "Creatives", "Extensions"),
    ),
    "Wrapper": ("AdSystem", "VASTAdTagURI", "Error", "Impression", "Creatives", "Extensions"),
    "Linear": tuple(n for n in _LINEAR_2 if n not in ("Icons", "CreativeExtensions")),
    "VideoClicks": _CLICKS_2,
    "NonLinearAds": _NON_LINEAR_ADS,
    "Creative": ("Linear", "CompanionAds", "NonLinearAds"),
}
_ORDER_3: dict[str, tuple[str, ...]] = _ORDER_2 | {
    "InLine": (
        *("AdSystem", "AdTitle", "Description", "Advertiser", "Pricing", "Survey"),
        *("Error", "Impression", "Creatives", "Extensions"),
    ),
    "Linear": _LINEAR_2,
}
_BASE_4 = ("AdSystem", "Error", "Extensions", "Impression", "Pricing", "ViewableImpression")
_ORDER_4: dict[str, tuple[str, ...]] = {
    "InLine": (
        *_BASE_4,
        *("AdServingId", "AdTitle", "AdVerifications", "Advertiser", "Category", "Creatives"),
        *("Description", "Expires", "Survey"),
    ),
    "Wrapper": (*_BASE_4, "AdVerifications", "BlockedAdCategories", "Creatives", "VASTAdTagURI"),
    "Linear": ("Icons", "TrackingEvents", "AdParameters", "Duration", "MediaFiles", "VideoClicks"),
    "VideoClicks": ("ClickTracking", "ClickThrough", "CustomClick"),
    "NonLinearAds": _NON_LINEAR_ADS,
    "Creative": ("CompanionAds", "CreativeExtensions", "Linear", "NonLinearAds", "UniversalAdId"),
}
#: Elements of InLine that came with 4.1.
_NEW_IN_4_1 = ("AdServingId", "Expires")
_LINEAR_EVENTS_2 = frozenset(
    {"creativeView", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "mute", "acceptInvitation"}
)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of VAST."""

    name: str
    order: Mapping[str, tuple[str, ...]]

    @property
    def root(self) -> str:
        """The root's start tag, without its closing bracket."""
        namespace = f' xmlns="{NAMESPACE}"' if self.name >= "4.0" else ""
        return f'<VAST version="{self.name}"{namespace}'

    def knows(self, parent: str, name: str) -> bool:
        return name in self.order[parent]

    def knows_event(self, name: str) -> bool:
        """Whether a Linear may have this tracking event. `skip` and `progress` came with 3.0."""
        return self.name >= "3.0" or name in _LINEAR_EVENTS_2

    @property
    def has_pods(self) -> bool:
        """`Ad@sequence` came with 3.0."""
        return self.name >= "3.0"

    def joined(self, parent: str, parts: Mapping[str, str]) -> str:
        """Children of an element as text, in their order, without what this version does not know."""
        return "".join([parts[n] for n in self.order[parent] if n in parts])


VERSIONS = {
    "2.0": Version("2.0", _ORDER_2),
    "3.0": Version("3.0", _ORDER_3),
    "4.0": Version("4.0", _ORDER_4 | {"InLine": tuple(n for n in _ORDER_4["InLine"] if n not in _NEW_IN_4_1)}),
    "4.1": Version("4.1", _ORDER_4),
    "4.2": Version("4.2", _ORDER_4),
}


def newest_of(protocols: Collection[int]) -> Version | None:
    """The newest version that a player of these protocols knows; None when it knows none of ours.

    Without protocols (OpenRTB: nothing is said) the newest.

    Example:
    >>> newest_of([2, 3, 6]).name, newest_of([]).name, newest_of([9])
    ('3.0', '4.2', None)
    """
    if not protocols:
        return VERSIONS[NEWEST]
    known = [_OF_PROTOCOL[p] for p in protocols if p in _OF_PROTOCOL]
    return VERSIONS[max(known)] if known else None


def version_of(root: etree._Element) -> Version:
    """The version that a document says it has, or the nearest that we know.

    Example:
    >>> version_of(etree.fromstring('<VAST version="4.3"/>')).name, version_of(etree.fromstring("<VAST/>")).name
    ('4.2', '2.0')
    """
    said = (root.get("version") or "")[:3]
    return VERSIONS[max((name for name in VERSIONS if name <= said), default="2.0")]


def name_of(element: etree._Element) -> str:
    """Name without namespace; documents come with and without one."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def put(parent: etree._Element, child: etree._Element, version: Version) -> None:
    """Inserts a child where the version wants it: after the last one that may stand before it. One that the version
    does not know goes last.
    """
    parent.insert(_place_of(parent, name_of(child), version), child)


def put_all(parent: etree._Element, children: Iterable[etree._Element], version: Version) -> None:
    """Inserts children, those of one name together and in their order: strangers may have thousands of them."""
    by_name: dict[str, list[etree._Element]] = {}
    for child in children:
        by_name.setdefault(name_of(child), []).append(child)
    for name, alike in by_name.items():
        at = _place_of(parent, name, version)
        parent[at:at] = alike


def _place_of(parent: etree._Element, name: str, version: Version) -> int:
    order = version.order.get(name_of(parent), ())
    if name not in order:
        return len(parent)
    before = frozenset(order[: order.index(name) + 1])
    last = 0
    for position, other in enumerate(parent, 1):
        if name_of(other) in before:
            last = position
    return last
