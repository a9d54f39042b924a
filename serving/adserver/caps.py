"""Frequency caps: how many impressions of a scope a user has had, and whether one more is allowed.

A cap is a promise of at most `limit` in *any* window of `window_s`. Counters are kept in buckets, so the running
bucket and every bucket that the window touches are summed: a bucket more than fits, never one less. What has been
won in this request but not yet counted (`pending`) counts too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.catalog import FrequencyCap
from schemas.errors import ConfigError
from schemas.features import COUNTER_BY_NAME, DAY_S, HOUR_S, Counter
from schemas.ids import scope_hash
from serving.adserver.counters import CounterBlob

SCOPES = ("creative", "campaign", "advertiser")


@dataclass(frozen=True, slots=True)
class CapRule:
    """A cap of one creative, ready to be checked: which counter, how far back, which scope."""

    counter: Counter
    reach_s: int  # the oldest bucket summed starts this long before the running one
    scope: int
    limit: int


def cap_rules(caps: Sequence[FrequencyCap], ids: Mapping[str, str]) -> tuple[CapRule, ...]:
    """Rules of a campaign's caps for one of its creatives. `ids`: scope name to id.

    Errors: ConfigError for an unknown scope, or a window that no counter is kept long enough for.
    """
    return tuple(_rule(cap, ids) for cap in caps)


def _rule(cap: FrequencyCap, ids: Mapping[str, str]) -> CapRule:
    if cap.scope not in SCOPES or cap.limit < 0 or cap.window_s <= 0:
        raise ConfigError(f"frequency cap {cap}: scope is one of {SCOPES}, limit >= 0, window_s > 0")
    grain, bucket_s = ("hour", HOUR_S) if cap.window_s <= DAY_S else ("day", DAY_S)
    counter = COUNTER_BY_NAME[f"user_{cap.scope}_impressions_{grain}"]
    reach_s = -(-cap.window_s // bucket_s) * bucket_s
    if reach_s > counter.retention_s:
        raise ConfigError(f"frequency cap {cap}: counters are kept for {counter.retention_s} s only")
    return CapRule(counter, reach_s, scope_hash(ids[cap.scope]), cap.limit)


def seen(rule: CapRule, blob: CounterBlob, now_s: int) -> int:
    """Impressions that count against a rule now."""
    last = now_s - now_s % rule.counter.bucket_s
    return blob.sums(rule.counter.code, last - rule.reach_s, last).get(rule.scope, 0)


def allowed(rules: Sequence[CapRule], blob: CounterBlob, pending: Mapping[int, int], now_s: int) -> bool:
    """Whether every rule leaves room for one more impression."""
    return all(seen(r, blob, now_s) + pending.get(r.scope, 0) < r.limit for r in rules)
