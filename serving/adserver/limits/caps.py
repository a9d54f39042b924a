"""Frequency caps: how many impressions of a scope a viewer has had, and whether one more is allowed.

A cap is a promise of at most `limit` in *any* window of `window_s`. Counters are kept in buckets, so the running
bucket and every bucket that the window touches are summed: up to a bucket more than fits, never one less. Windows up
to an hour are summed in minutes, up to two days in hours, up to 31 days in days; a lifetime is exact.
What has been won in this request but not yet counted (`pending`) counts too.
A viewer is the user or, of an unknown user, the household; an impression is counted for one of them, so the two are
never summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.catalog import FrequencyCap
from schemas.errors import ConfigError
from schemas.features import COUNTER_BY_NAME, LIFETIME_S, Counter, grain_of
from schemas.ids import scope_hash
from serving.adserver.features.counters import CounterBlob

SCOPES = ("creative", "campaign", "advertiser")


@dataclass(frozen=True, slots=True)
class CapRule:
    """A cap of one creative, ready to be checked. A household's counter has the code and buckets of the user's."""

    counter: Counter
    window_s: int
    scope: int
    limit: int


def cap_rules(caps: Sequence[FrequencyCap], ids: Mapping[str, str]) -> tuple[CapRule, ...]:
    """Rules of a campaign's caps for one of its creatives. `ids`: scope name to id.

    Errors: ConfigError for an unknown scope, or a window that no counter is kept long enough for.
    """
    return tuple(_rule(cap, ids) for cap in caps)


def _rule(cap: FrequencyCap, ids: Mapping[str, str]) -> CapRule:
    if cap.scope not in SCOPES or cap.limit < 0 or (cap.window_s is not None and cap.window_s <= 0):
        raise ConfigError(f"frequency cap {cap}: scope is one of {SCOPES}, limit >= 0, window_s > 0 or null")
    try:
        grain = grain_of(cap.window_s)
    except ValueError as e:
        raise ConfigError(f"frequency cap {cap}: {e}; null is a lifetime") from e
    counter = COUNTER_BY_NAME[f"user_{cap.scope}_impressions_{grain.name}"]
    return CapRule(counter, LIFETIME_S if cap.window_s is None else cap.window_s, scope_hash(ids[cap.scope]), cap.limit)


def seen(rule: CapRule, viewer: CounterBlob, now_s: int) -> int:
    """Impressions that count against a rule now."""
    return viewer.in_window(rule.counter, rule.scope, rule.window_s, now_s)


def allowed(rules: Sequence[CapRule], viewer: CounterBlob, pending: Mapping[int, int], now_s: int) -> bool:
    """Whether every rule leaves room for one more impression."""
    return all(seen(r, viewer, now_s) + pending.get(r.scope, 0) < r.limit for r in rules)
