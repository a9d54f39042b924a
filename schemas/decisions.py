"""Numbered reasons of the ad server: why a candidate lost, and why a decision was degraded.

Codes travel in logs, metrics and OpenRTB loss notices, and are never reused. OpenRTB's own loss reasons
(2.6 §5.25 list) are 0-999 as the specification has them; ours begin at 1000.
"""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """Why a candidate won (0) or lost."""

    WON = 0
    INTERNAL_ERROR = 1
    EXPIRED = 2  # "impression opportunity expired": the answer came after the deadline
    INVALID_RESPONSE = 3
    INVALID_DEAL = 4
    INVALID_AUCTION_ID = 5
    INVALID_ADVERTISER_DOMAIN = 6
    MISSING_MARKUP = 7
    MISSING_CREATIVE_ID = 8
    MISSING_PRICE = 9
    BELOW_FLOOR = 100
    BELOW_DEAL_FLOOR = 101
    LOST_TO_HIGHER_BID = 102
    LOST_TO_DEAL = 103
    BUYER_BLOCKED = 104
    CREATIVE_FILTERED = 200
    CREATIVE_PENDING = 201
    CREATIVE_DISAPPROVED = 202
    SIZE_NOT_ALLOWED = 203
    INCORRECT_FORMAT = 204
    ADVERTISER_EXCLUDED = 205
    APP_EXCLUDED = 206
    NOT_SECURE = 207
    LANGUAGE_EXCLUDED = 208
    CATEGORY_EXCLUDED = 209
    ATTRIBUTE_EXCLUDED = 210
    AD_TYPE_EXCLUDED = 211
    NOT_ALLOWED_IN_DEAL = 213
    NO_BID = 1000
    TARGETING = 1001
    FREQUENCY_CAP = 1002
    BUDGET = 1003
    PACING = 1004
    NOT_ACTIVE = 1005
    FORMAT = 1006
    DSP_ERROR = 1007
    RESERVATION_LOST = 1008
    CURRENCY_UNKNOWN = 1009
    DUPLICATE_BID = 1010
    GROUPED_BIDS = 1011  # its seat's bids win together or not at all (`group` 1), and another of them did not
    CREATIVE_BROKEN = 1020  # what its VAST wraps can't be shown: known since it was unwrapped
    GHOST = 1021  # would have won, but its viewer is held out: a ghost impression, which costs nothing
    HELD_OUT = 1022  # of a campaign that its viewer is held out from, and would not have won
    EXPERIMENT_OFF = 1023  # its line item is switched off in the viewer's cell
    POD_SEPARATION = 1024  # kept apart from a winner of the same pod
    POD_DURATION = 1025  # nothing says how long it lasts


class Degraded(IntEnum):
    """Why a decision was made with less than everything; each has a fallback, and the player still gets an answer."""

    FEATURES_UNAVAILABLE = 2001
    CAPS_UNAVAILABLE = 2002
    BUDGET_UNAVAILABLE = 2003
    MODEL_UNAVAILABLE = 2004
    ALL_DSPS_FAILED = 2005
    REGISTRY_UNAVAILABLE = 2006
    DECISION_LOG_UNAVAILABLE = 2007
    NO_CANDIDATE = 2008
    HOUSE_AD = 2009
    FEATURES_CIRCUIT_OPEN = 2020  # the store is slow: nobody is asked for the user's features
    OVERLOADED = 2030  # refused before it was read, because it could not be answered in time
    FAILED = 2031  # what nobody foresaw, and the process's log describes: the house ad without trackers
    NO_CURRENCY = 2032  # none that the request takes has a rate
    TRAFFIC_DATA_CENTER = 2101
    TRAFFIC_BOT = 2102
    TRAFFIC_ADDRESS_RATE = 2103
    TRAFFIC_USER_RATE = 2104
    TRAFFIC_INCONSISTENT = 2105
    TRAFFIC_VERDICT = 2106
