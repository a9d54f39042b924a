"""Event types and the limits of time: the vocabulary that every room shares.

A type's code is its byte in a token and in an event id; codes are never reused. A consumer that does not name a
new type must go on working, so types travel as strings (an Avro enum would break old readers).
Source: VAST 4.2 §3.14 (tracking events), IAB MRC viewability guidelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of ad event.

    `vast_event` is the tracking event's name in VAST, if it is one; `quartile` is the share of the ad that was
    played when it fires (percent), used by sessions.
    """

    name: str
    code: int
    vast_event: str | None = None
    quartile: int | None = None


EVENT_TYPES: tuple[EventType, ...] = (
    EventType("impression", 1),
    EventType("viewable", 2, "viewable"),
    EventType("start", 3, "start", 0),
    EventType("first_quartile", 4, "firstQuartile", 25),
    EventType("midpoint", 5, "midpoint", 50),
    EventType("third_quartile", 6, "thirdQuartile", 75),
    EventType("complete", 7, "complete", 100),
    EventType("progress", 8, "progress"),  # ordinal = percent watched: 10, 20, ..., 100
    EventType("click", 9),
    EventType("engage", 10, "acceptInvitation"),
    EventType("pause_ad", 11),
    EventType("qr_scan", 12),
    EventType("skip", 13, "skip"),
    EventType("mute", 14, "mute"),
    EventType("error", 15),
    EventType("opt_out", 16),
    EventType("conversion", 17),
    EventType("post_view_conversion", 18),
    EventType("custom", 19),  # an event of an outside ad server's own: ordinal = which of the ad's, attribute `name`
)

BY_NAME: dict[str, EventType] = {t.name: t for t in EVENT_TYPES}
BY_CODE: dict[int, EventType] = {t.code: t for t in EVENT_TYPES}

#: An event whose received time is later than its event time by more than this is late: counted in its own minute,
#: and copied to the late topic.
LATENESS_MS = 5 * 60_000
#: A client clock may be ahead of ours by this much; the event time is then set to the received time.
CLOCK_AHEAD_MS = 24 * 3_600_000
#: Ahead by less than this is the ordinary skew of clocks: set to the received time without a quality reason.
CLOCK_SKEW_MS = 1_000
#: Older (or further ahead than CLOCK_AHEAD_MS) than this is not a clock error but nonsense: dead letter `absurd_time`.
OLDEST_MS = 7 * 24 * 3_600_000

#: What those quality reasons begin with that say that no person caused the event.
INVALID_TRAFFIC = "ivt_"

#: The flag of a `consent` map that says that the user opted out, and the values of flags that mean yes.
OPT_OUT = "opt_out"
YES = ("1", "true", "yes")


def opted_out(consent: Mapping[str, str]) -> bool:
    """Whether flags say that the user opted out.

    Example:
    >>> opted_out({"opt_out": "1"}), opted_out({"opt_out": "0"}), opted_out({"us_privacy": "1YNN"})
    (True, False, False)
    """
    return consent.get(OPT_OUT) in YES


#: Sources of telemetry: who sent it.
SOURCES = ("video_player", "display_logger", "ssai", "server")
