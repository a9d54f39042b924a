"""Frequency caps: how many impressions of a scope a viewer has had, and whether one more is allowed.

A cap is a promise of at most `limit` in *any* window of `window_s`. Counters are kept in buckets, so the running
bucket and every bucket that the window touches are summed: up to a bucket more than fits, never one less. Windows up
to an hour are summed in minutes, up to two days in hours, up to 31 days in days; a lifetime is exact.
What has been won but not yet counted counts too: of this request from memory, of others from Valkey (`pending.py`).
A cap that is not strict counts, of other requests, only what the stream has counted.
A viewer is the user or, of an unknown user, the household; an impression is counted for one of them, so the two are
never summed.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schemas.catalog import FrequencyCap
from schemas.counters import COUNTER_BY_NAME, LIFETIME_S, Counter, grain_of
from schemas.errors import ConfigError
from schemas.ids import scope_hash
from serving.adserver.features.counters import CounterBlob
from serving.adserver.limits.pending import NO_LIMIT, SCOPE_CODES, Claim, PendingWins, Scope, counted_ever, scope_of

SCOPES = tuple(SCOPE_CODES)
PER_VIEWER, PER_POD, PER_STREAM = "viewer", "pod", "stream"
_NOTHING_PENDING = PendingWins()


class CapKind(NamedTuple):
    """What rules of many ads have in common. A household's counter has the code and buckets of the user's."""

    counter: Counter
    window_s: int
    limit: int

    @property
    def number(self) -> int:
        """To be mixed with a scope's hash."""
        return hash((self.counter.code, self.window_s, self.limit))


@dataclass(frozen=True, slots=True)
class CapRule:
    """A cap of one creative, ready to be checked."""

    counter: Counter
    window_s: int
    scope: int
    limit: int
    per: str = PER_VIEWER
    strict: bool = True
    field: str = ""  # of the scope, in pending wins

    @property
    def kind(self) -> CapKind:
        return CapKind(self.counter, self.window_s, self.limit)

    @property
    def pending_scope(self) -> Scope:
        return Scope(SCOPE_CODES[self.counter.scope], self.scope)


def cap_rules(caps: Sequence[FrequencyCap], ids: Mapping[str, str]) -> tuple[CapRule, ...]:
    """Rules of a campaign's caps for one of its creatives. `ids`: scope name to id.

    Errors: ConfigError for an unknown scope or unit, or a window that no counter is kept long enough for.
    """
    return tuple(_rule(cap, ids) for cap in caps)


def _rule(cap: FrequencyCap, ids: Mapping[str, str]) -> CapRule:
    if cap.scope not in SCOPES or cap.limit < 0 or (cap.window_s is not None and cap.window_s <= 0):
        raise ConfigError(f"frequency cap {cap}: scope is one of {SCOPES}, limit >= 0, window_s > 0 or null")
    if cap.per not in (PER_VIEWER, PER_POD, PER_STREAM) or (cap.per != PER_VIEWER and cap.window_s is not None):
        raise ConfigError(f"frequency cap {cap}: per is viewer, pod or stream, and only a viewer's has a window_s")
    try:
        grain = grain_of(cap.window_s)
    except ValueError as e:
        raise ConfigError(f"frequency cap {cap}: {e}; null is a lifetime") from e
    counter = COUNTER_BY_NAME[f"user_{cap.scope}_impressions_{grain.name}"]
    scope = scope_hash(ids[cap.scope])
    window_s = LIFETIME_S if cap.window_s is None else cap.window_s
    field = Scope(SCOPE_CODES[cap.scope], scope).field
    return CapRule(counter, window_s, scope, cap.limit, cap.per, cap.strict, field)


def capped_scopes(rules: Sequence[CapRule], per: str) -> set[Scope]:
    """Scopes whose wins have to be kept for these rules to be strict."""
    return {r.pending_scope for r in rules if r.strict and r.per == per}


def watched(rules: Sequence[CapRule]) -> frozenset[int] | None:
    """What of `RequestCaps.suspects` speaks for looking at an ad's rules one by one; None: they always are."""
    if any(r.per != PER_VIEWER or r.limit < 1 for r in rules):
        return None
    return frozenset(number for r in rules for number in (r.scope, r.kind.number ^ r.scope))


def seen(rule: CapRule, viewer: CounterBlob, now_s: int) -> int:
    """Impressions that the stream has counted against a viewer's rule now."""
    return viewer.counts(rule.counter, rule.window_s, now_s).get(rule.scope, 0)


@dataclass(frozen=True, slots=True)
class PendingRead:
    """Wins that were read with the counters, and where a new one is added; a key is None when nobody is known."""

    viewer_key: bytes | None = None
    viewer: PendingWins = _NOTHING_PENDING
    stream_key: bytes | None = None
    stream: PendingWins = _NOTHING_PENDING


@dataclass(frozen=True, slots=True)
class Lives:
    """How long wins are kept, ms, and until when (epoch ms) the stream has told everything."""

    win_ms: int
    stream_ms: int
    settled_ms: int


class RequestCaps:
    """The caps of one request: who has seen what, what is under way, what this request has won so far."""

    __slots__ = ("_lives", "_now_ms", "_pending", "_viewer", "_won")

    def __init__(self, viewer: CounterBlob | None, pending: PendingRead, lives: Lives, now_ms: int) -> None:
        self._viewer = viewer
        self._pending = pending
        self._lives = lives
        self._now_ms = now_ms
        self._won: Tally[str] = Tally()

    @property
    def has_won(self) -> bool:
        return bool(self._won)

    def won(self, scopes: Sequence[Scope]) -> None:
        """Notes a win of this request: creative, campaign and advertiser of its ad."""
        self._won.update(scope.field for scope in scopes)

    def suspects(self, kinds: Iterable[CapKind]) -> set[int] | None:
        """Scopes that a win is under way for, and (kind, scope) of what this viewer has seen as often as a rule of that
        kind allows, as hashes. Ads that watch none of them have room. None: nobody knows, so look at every rule.
        """
        if self._viewer is None:
            return None
        found = {*self._pending.viewer.scopes(), *map(scope_of, self._won)}
        for kind in kinds:
            number, limit = kind.number, kind.limit
            counted = self._viewer.counts(kind.counter, kind.window_s, self._now_ms // 1000)
            found.update([number ^ scope for scope, count in counted.items() if count >= limit])
        return found

    def allowed(self, rules: Sequence[CapRule]) -> bool:
        """Whether every rule leaves room for one more impression. A viewer or a stream that may not be known can't
        be counted: then there is none."""
        return all(self._room(rule) > self._won.get(rule.field, 0) for rule in rules)

    def claims(
        self, viewer_scopes: Sequence[Scope], stream_scopes: Sequence[Scope], rules: Sequence[CapRule]
    ) -> tuple[Claim, ...]:
        """What a win must ask for, for its check to be made again where all requests meet."""
        found = []
        lives, pending = self._lives, self._pending
        if viewer_scopes and pending.viewer_key is not None and self._viewer is not None:
            asked = []
            for scope in viewer_scopes:
                counted = counted_ever(self._viewer, scope.code, scope.scope)
                now_s = self._now_ms // 1000
                room = [r.limit - seen(r, self._viewer, now_s) for r in rules if _is_strict(r, PER_VIEWER, scope)]
                asked.append((scope.field, counted, min(room, default=NO_LIMIT)))
            found.append(Claim(pending.viewer_key, lives.win_ms, lives.settled_ms, tuple(asked)))
        if stream_scopes and pending.stream_key is not None:
            asked = []
            for scope in stream_scopes:
                limits = [r.limit for r in rules if _is_strict(r, PER_STREAM, scope)]
                asked.append((scope.field, 0, min(limits, default=NO_LIMIT)))
            found.append(Claim(pending.stream_key, lives.stream_ms, self._now_ms, tuple(asked)))
        return tuple(found)

    def _room(self, rule: CapRule) -> int:
        """Impressions that a rule allows, before those that this request has won."""
        if rule.per == PER_POD:
            return rule.limit
        if rule.per == PER_STREAM:
            if self._pending.stream_key is None:
                return 0
            return rule.limit - self._pending.stream.waiting(rule.field, 0, self._now_ms)
        if self._viewer is None:
            return 0
        room = rule.limit - seen(rule, self._viewer, self._now_ms // 1000)
        if rule.strict and self._pending.viewer:
            counted = counted_ever(self._viewer, SCOPE_CODES[rule.counter.scope], rule.scope)
            over_ms = min(self._now_ms, self._lives.settled_ms)
            room -= self._pending.viewer.waiting(rule.field, counted, over_ms)
        return room


def _is_strict(rule: CapRule, per: str, scope: Scope) -> bool:
    return rule.strict and rule.per == per and rule.field == scope.field
