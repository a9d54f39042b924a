"""Which users are so busy that one partition should not have all of them, and the Kafka keys of their ads.

`ad-events-v1` is keyed by pseudonym. Bots, proxies of whole households and test accounts put a great share of the
traffic under one key, and thereby into one partition. Such a key is spread over `salts` keys `pseudonym#k`, where k
derives from the record id: all events of an ad share one key. The salt is in the Kafka key alone.
Source: Misra & Gries, "Finding repeated elements", 1982; pruning in batches after Agarwal et al., "Mergeable
Summaries", PODS 2012.
"""

from __future__ import annotations

from zlib import crc32

#: Counters kept for each that could be hot: an estimate is too low by at most a quarter of the hot share.
_COUNTERS_PER_HOT_KEY = 4
#: A key is no longer hot when its share is below this part of the limit, so that it does not change sides all the time.
_COLD_BELOW = 0.5


class HotKeys:
    """Counts ads by key over the latest `window_ads` to twice as many, and gives each ad its Kafka key.

    Ads are counted, not events: an ad's events stay together whatever their number, so ads are what can be spread.
    Memory: at most 16 / `share` counters. The same ads in the same order give the same keys.
    """

    def __init__(self, share: float, salts: int, window_ads: int) -> None:
        self._share = share
        self._salts = salts
        self._window_ads = window_ads
        self._capacity = int(_COUNTERS_PER_HOT_KEY / share) + 1
        self._counts: dict[str, int] = {}
        self._total = 0
        self._before: dict[str, int] = {}
        self._before_total = 0
        self._hot: set[str] = set()
        self.salted_ads = 0

    @property
    def hot(self) -> int:
        """How many keys are being spread."""
        return len(self._hot)

    def key(self, pseudonym: str | None, record_id: str) -> bytes:
        """The Kafka key of an ad's events: its user's, salted if that is hot; its own id without a user.

        Counts the ad: ask once per ad and keep the answer, or the ad's later events may go elsewhere.
        """
        if pseudonym is None:
            return record_id.encode()
        self._count(pseudonym)
        if self._salts < 2 or not self._is_hot(pseudonym):
            return pseudonym.encode()
        self.salted_ads += 1
        return f"{pseudonym}#{crc32(record_id.encode()) % self._salts}".encode()

    def _is_hot(self, key: str) -> bool:
        seen = self._counts.get(key, 0) + self._before.get(key, 0)
        # A share of few ads says nothing: the window has to have at least half of its ads.
        total = max(self._total + self._before_total, self._window_ads / 2)
        limit = self._share * (_COLD_BELOW if key in self._hot else 1.0)
        if seen < limit * total:
            self._hot.discard(key)
            return False
        self._hot.add(key)
        return True

    def _count(self, key: str) -> None:
        if self._total >= self._window_ads:
            self._before, self._before_total = self._counts, self._total
            self._counts, self._total = {}, 0
            self._hot &= self._before.keys()
        self._counts[key] = self._counts.get(key, 0) + 1
        self._total += 1
        if len(self._counts) > 2 * self._capacity:
            self._prune()

    def _prune(self) -> None:
        """Takes the count of the largest key beyond the capacity off all, and forgets those that have none left."""
        level = sorted(self._counts.values(), reverse=True)[self._capacity]
        self._counts = {key: count - level for key, count in self._counts.items() if count > level}
