"""Tracking URLs of one ad: an opaque token per event. What an event means is in the registry, never in its URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.tokens import TokenMinter
from schemas.events import BY_NAME

#: VAST tracking events in the order in which a player fires them, less progress (which has offsets).
LINEAR_EVENTS = (
    "start",
    "first_quartile",
    "midpoint",
    "third_quartile",
    "complete",
    "skip",
    "mute",
    "engage",
)
PROGRESS_PERCENT = tuple(range(10, 101, 10))
VIDEO_EVENTS = ("impression", "viewable", "click", "error", *LINEAR_EVENTS)
BANNER_EVENTS = ("impression", "viewable", "click")
#: (event code, ordinal) of everything that a video player reports, and a page.
_VIDEO = [(BY_NAME[n].code, 0) for n in VIDEO_EVENTS] + [(BY_NAME["progress"].code, p) for p in PROGRESS_PERCENT]
_BANNER = [(BY_NAME[n].code, 0) for n in BANNER_EVENTS]


@dataclass(frozen=True, slots=True)
class Trackers:
    """URLs by event type, and by percent for progress. Empty when an ad may not be counted."""

    urls: dict[str, str]
    progress: dict[int, str]

    def linear(self) -> list[tuple[str, str]]:
        """(VAST event name, URL) of the plain tracking events."""
        return [(BY_NAME[e].vast_event or e, self.urls[e]) for e in LINEAR_EVENTS if e in self.urls]


NO_TRACKERS = Trackers({}, {})


class TrackerMaker:
    """Mints trackers that live for `ttl_s`. `collector_url` is the address that devices reach."""

    def __init__(self, minter: TokenMinter, collector_url: str, ttl_s: int) -> None:
        self._minter = minter
        self._prefix = collector_url.rstrip("/") + "/t/"
        self._ttl_s = ttl_s

    def of(self, ad_format: str, record_id: bytes, now_s: int) -> Trackers:
        """Everything that whoever shows an ad of this format can report."""
        return (self.video if ad_format in ("video", "audio") else self.banner)(record_id, now_s)

    def video(self, record_id: bytes, now_s: int) -> Trackers:
        """Everything that a video player can report."""
        made = self._urls(record_id, _VIDEO, now_s)
        urls = dict(zip(VIDEO_EVENTS, made, strict=False))
        return Trackers(urls, dict(zip(PROGRESS_PERCENT, made[len(urls) :], strict=True)))

    def banner(self, record_id: bytes, now_s: int) -> Trackers:
        """Everything that a page can report."""
        return Trackers(dict(zip(BANNER_EVENTS, self._urls(record_id, _BANNER, now_s), strict=True)), {})

    def one(self, record_id: bytes, event: str, ordinal: int, now_s: int) -> str:
        """The tracker of a single event."""
        return self._urls(record_id, ((BY_NAME[event].code, ordinal),), now_s)[0]

    def _urls(self, record_id: bytes, events: Sequence[tuple[int, int]], now_s: int) -> list[str]:
        """An address for each (event code, ordinal)."""
        prefix = self._prefix
        return [prefix + token for token in self._minter.mint_all(record_id, events, now_s, self._ttl_s)]
