"""What a viewer truly does with an ad: how long it plays, whether it is clicked, and what the network does to it.

Pure: world, ad and a random source in, a plan of beacons out. The click probability is the ground truth that a model
can only estimate: creative's appeal + user's taste + content + device + fatigue, on a logistic scale.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Literal

from infra.simulator.vast import ShownAd, Tracker
from infra.simulator.world import User, World
from schemas.errors import RejectReason
from schemas.events import LATENESS_MS, OLDEST_MS

Kind = Literal["normal", "duplicate", "late", "behind", "ahead", "flood", "expired", "forged", "absurd"]

#: Kinds that carry a genuine event; of all beacons with the same identity exactly one counts.
GENUINE: tuple[Kind, ...] = ("normal", "duplicate", "late", "behind", "ahead", "flood", "expired")
#: Kinds whose event is late to the platform: received more than the lateness limit after its client time.
LATE: tuple[Kind, ...] = ("late", "behind")

BASE_LOG_ODDS = -2.8
_DEVICE_LOG_ODDS = {"ctv": -1.0, "phone": 0.7, "tablet": 0.3, "desktop": 0.1}
_CONTENT_LOG_ODDS = {"IAB1": -0.5, "IAB8": 0.3, "IAB9": 0.6, "IAB12": -0.8, "IAB17": 0.4, "IAB19": 0.0}
_FATIGUE_LOG_ODDS = -0.25  # for each earlier impression of the campaign, up to 6
_COMPLETION = {"ctv": 0.93, "phone": 0.7, "tablet": 0.78, "desktop": 0.74}
_QUARTILES = ((25, "first_quartile"), (50, "midpoint"), (75, "third_quartile"), (100, "complete"))
#: Players step through their ads this long after the ad started, in seconds of the ad.
_VIEWABLE_AFTER_S = 2.0
_DAY_MS = 86_400_000


#: A day ahead is the most that the platform takes for a clock error: a second less, because timers may fire early.
_WRONG_CLOCKS: tuple[tuple[Kind, int], ...] = (("behind", -_DAY_MS), ("ahead", _DAY_MS - 1_000))


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of ads (or of beacons, where it says so) that something happens to."""

    duplicate_beacon: float = 0.03  # of beacons: fired a second time
    out_of_order: float = 0.05  # of ads: beacons overtake each other on the way
    offline: float = 0.02  # of ads: played offline, all beacons late
    wrong_clock: float = 0.01  # of ads: played by a device whose clock is a day behind, or ahead
    forged: float = 0.01  # of ads: one more beacon with a token that nobody issued
    expired: float = 0.01  # of ads: one more event, sent when its token has expired
    absurd: float = 0.004  # of ads: one more beacon from a clock that is years off
    never_shown: float = 0.02  # of ads: the viewer is gone before the ad starts
    broken_media: float = 0.015  # of ads: error instead of playback
    detailed_player: float = 0.35  # of ads: the player also reports every 10 % of progress


@dataclass(frozen=True, slots=True)
class Shot:
    """One beacon to be sent `after_s` (wall) seconds after the answer came, with a client time of
    `clock_shift_ms` beside the wall clock at `happened_s`."""

    after_s: float
    happened_s: float
    tracker: Tracker
    kind: Kind = "normal"
    clock_shift_ms: int = 0
    expected_reject: str = ""


def click_probability(world: World, user: User, ad: ShownAd, content_category: str, seen_before: int) -> float:
    """The truth that models estimate."""
    log_odds = (
        BASE_LOG_ODDS
        + world.appeal.get(ad.creative_id, 0.0)
        + user.tastes.get(content_category, 0.0)
        + _CONTENT_LOG_ODDS.get(content_category, 0.0)
        + _DEVICE_LOG_ODDS.get(user.device_type, 0.0)
        + _FATIGUE_LOG_ODDS * min(seen_before, 6)
    )
    return 1.0 / (1.0 + math.exp(-log_odds))


def plan(ad: ShownAd, user: User, p_click: float, speed_up: float, faults: Faults, rng: random.Random) -> list[Shot]:
    """Beacons of one shown ad, in order of sending.

    `speed_up`: seconds of the ad that pass in one second of wall time.
    """
    if rng.random() < faults.never_shown:
        return []
    planned = _video(ad, p_click, user, speed_up, faults, rng) if ad.duration_s else _banner(ad, p_click, user, rng)
    shots = [shot for shot in planned if shot is not None]
    offline = not user.bot and rng.random() < faults.offline
    if offline:
        shift_ms = -(LATENESS_MS + rng.randrange(60_000, 20 * 60_000))
        shots = [Shot(s.after_s, s.happened_s, s.tracker, "late", shift_ms) for s in shots]
    elif not user.bot and rng.random() < faults.wrong_clock:
        kind, shift_ms = rng.choice(_WRONG_CLOCKS)
        shots = [Shot(s.after_s, s.happened_s, s.tracker, kind, shift_ms) for s in shots]
    else:
        if rng.random() < faults.out_of_order:
            shots = [Shot(s.after_s + rng.uniform(0.0, 0.6), s.happened_s, s.tracker, s.kind) for s in shots]
        shots += [
            Shot(s.after_s + rng.uniform(0.05, 0.8), s.happened_s, s.tracker, "duplicate")
            for s in shots
            if rng.random() < faults.duplicate_beacon
        ]
        if user.bot:
            shots += _flood(shots, rng)
    shots += _hostile(shots, faults, rng)
    return sorted(shots, key=lambda s: s.after_s)


def expired_shot(ad: ShownAd, shots: list[Shot], token_life_s: float, rng: random.Random) -> Shot | None:
    """A viewer who comes back to a player that was left paused: a mute after the token's life, genuine all the same.

    None when the answer has no tracker for it, or the viewer had muted the ad before.
    """
    if any(shot.tracker.event == "mute" for shot in shots):
        return None
    shot = _shot(ad, "mute", token_life_s + rng.uniform(2.0, 4.0))
    return None if shot is None else replace(shot, kind="expired")


def _video(
    ad: ShownAd, p_click: float, user: User, speed_up: float, faults: Faults, rng: random.Random
) -> list[Shot | None]:
    if rng.random() < faults.broken_media:
        return [_shot(ad, "error", 0.05)]
    completes = user.bot or rng.random() < _COMPLETION[user.device_type]
    watched = 100.0 if completes else rng.uniform(3.0, 99.0)  # percent
    length_s = ad.duration_s / speed_up
    shots = [_shot(ad, "impression", 0.0), _shot(ad, "start", 0.01)]
    if watched / 100 * ad.duration_s >= _VIEWABLE_AFTER_S:
        shots.append(_shot(ad, "viewable", _VIEWABLE_AFTER_S / speed_up))
    shots += [_shot(ad, name, length_s * q / 100) for q, name in _QUARTILES if watched >= q]
    if rng.random() < faults.detailed_player:
        shots += [_shot(ad, "progress", length_s * p / 100, p) for p in range(10, 101, 10) if watched >= p]
    if not completes and rng.random() < 0.5:
        shots.append(_shot(ad, "skip", length_s * watched / 100))
    if rng.random() < 0.05:
        shots.append(_shot(ad, "mute", length_s * rng.uniform(0.0, watched / 100)))
    if rng.random() < 0.02:
        shots.append(_shot(ad, "engage", length_s * rng.uniform(0.0, watched / 100)))
    if rng.random() < (0.6 if user.bot else p_click):
        shots.append(_shot(ad, "click", length_s * rng.uniform(0.0, watched / 100)))
    return shots


def _banner(ad: ShownAd, p_click: float, user: User, rng: random.Random) -> list[Shot | None]:
    shots = [_shot(ad, "impression", 0.0)]
    if rng.random() < 0.7:
        shots.append(_shot(ad, "viewable", 0.3))
    if rng.random() < (0.6 if user.bot else p_click):
        shots.append(_shot(ad, "click", rng.uniform(0.1, 1.0)))
    return shots


def _shot(ad: ShownAd, event: str, at_s: float, ordinal: int = 0) -> Shot | None:
    """The beacon of an event; None when the answer has no tracker for it."""
    tracker = next((t for t in ad.of(event) if t.ordinal == ordinal), None)
    return None if tracker is None else Shot(at_s, at_s, tracker)


def _flood(shots: list[Shot], rng: random.Random) -> list[Shot]:
    """A bot's click fired over and over."""
    clicks = [s for s in shots if s.tracker.event == "click" and s.kind == "normal"]
    return [
        Shot(s.after_s + 0.01 * i, s.happened_s, s.tracker, "flood")
        for s in clicks
        for i in range(1, rng.randrange(10, 30))
    ]


def _hostile(shots: list[Shot], faults: Faults, rng: random.Random) -> list[Shot]:
    """Beacons that must be refused, each with the reason that its dead letter has to name."""
    extra = []
    if shots and rng.random() < faults.forged:
        victim = rng.choice(shots)
        url, reason = forge(victim.tracker.url, rng)
        tracker = Tracker(victim.tracker.event, victim.tracker.ordinal, url)
        extra.append(Shot(victim.after_s + 0.02, victim.happened_s, tracker, "forged", 0, reason))
    if shots and rng.random() < faults.absurd:
        victim = rng.choice(shots)
        shift_ms = -(OLDEST_MS + rng.randrange(1, 2000) * 86_400_000)
        extra.append(
            Shot(
                victim.after_s + 0.02,
                victim.happened_s,
                victim.tracker,
                "absurd",
                shift_ms,
                RejectReason.ABSURD_TIME,
            )
        )
    return extra


def forge(url: str, rng: random.Random) -> tuple[str, str]:
    """A URL whose token was tampered with, and the reason it must be refused for."""
    address, mark, query = url.partition("?")  # of an error: ?code=405, which anybody may change
    base, _, token = address.rpartition("/")
    if rng.random() < 0.5:
        # never the last characters: their low bits may be padding that carries nothing
        at = rng.randrange(len(token) // 2, len(token) - 4)
        swapped = "A" if token[at] != "A" else "B"
        return f"{base}/{token[:at]}{swapped}{token[at + 1 :]}{mark}{query}", RejectReason.TOKEN_FORGED
    return f"{base}/{rng.getrandbits(64):016x}{mark}{query}", RejectReason.TOKEN_MALFORMED
