"""One DSP as the server deals with it: its connections, what it is given, what it has done, whether it is asked."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from urllib.parse import urlsplit

from connectors.http_client import HttpPool
from schemas.catalog import Bidder
from schemas.decisions import Outcome
from serving.adserver.dsps.latency import AdaptiveTimeout
from serving.adserver.openrtb.messages import BidResponse

_HEADERS = "Content-Type: application/json\r\nAccept: application/json\r\nx-openrtb-version: 2.6\r\n"
#: Upper bounds of the histogram of latencies, seconds.
LATENCY_BOUNDS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
#: Turns in a row without an answer in time after which a DSP is left alone, and for how long at first and at most.
FAILURES = 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


@dataclass(slots=True)
class Turn:
    """What came of calling one DSP for one request. `outcome` is None when it answered with bids to look at."""

    bidder: Bidder
    outcome: Outcome | None
    response: BidResponse | None = None


@dataclass(slots=True)
class Tally:
    """What a DSP did, counted. Money is CPM micros summed over imps: a thousandth of it is micros."""

    calls: int = 0
    no_bids: int = 0
    bids: int = 0
    expired: int = 0
    errors: int = 0
    invalid: int = 0
    late_bids: int = 0
    late_lost_cpm_micros: int = 0  # what late bids would have brought above what was shown
    wins: int = 0
    won_cpm_micros: int = 0
    gained_cpm_micros: int = 0  # of wins: the price above the next bid, which is what its absence would have cost
    sent_bytes: int = 0
    answers: int = 0  # exchanges that ended, in time or late
    latency_ms: int = 0  # of all of them
    skipped_tier: int = 0
    skipped_limit: int = 0
    skipped_breaker: int = 0

    def since(self, before: Tally) -> Tally:
        """What was added after `before`."""
        return Tally(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(Tally)))


_FIELD_OF = {Outcome.EXPIRED: "expired", Outcome.DSP_ERROR: "errors", Outcome.INVALID_RESPONSE: "invalid"}


class Desk:
    """A DSP of the bidders file. Turns without bids are made once: most of an auction's are such."""

    def __init__(self, bidder: Bidder, pool: HttpPool, timeout: AdaptiveTimeout, workers: int) -> None:
        self.bidder = bidder
        self.pool = pool
        self.timeout = timeout
        self.tally = Tally()
        self.tier = 1
        self.score_cpm_micros = 0  # as it was judged last
        self._latency_counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._latency_sum_s = 0.0
        self._observed_s: list[float] = []  # latencies that nothing has been made of yet
        self._enough = timeout.changes_after
        self.no_bid = Turn(bidder, Outcome.NO_BID)
        self._failures_of = {o: Turn(bidder, o) for o in _FIELD_OF}
        parts = urlsplit(bidder.endpoint)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.head = pool.request_bytes("POST", path, _HEADERS) + b"Content-Length: "
        self._rate_per_s = bidder.max_qps / workers
        self._tokens = self._burst = max(1.0, self._rate_per_s / 10)
        self._filled_s = 0.0
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._resume_s = 0.0

    def may_ask(self, now_s: float) -> bool:
        """Whether breaker and rate limit let a call through; takes the call's share of the limit.

        An open breaker lets one call through after each pause: the answer to it decides.
        """
        if self._failures >= FAILURES:
            if now_s < self._resume_s:
                self.tally.skipped_breaker += 1
                return False
            self._resume_s = now_s + self._pause_s
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        if self._rate_per_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._rate_per_s)
            self._filled_s = now_s
            if self._tokens < 1:
                self.tally.skipped_limit += 1
                return False
            self._tokens -= 1
        return True

    @property
    def open_breaker(self) -> bool:
        return self._failures >= FAILURES

    def observe(self, latency_s: float) -> None:
        """An exchange has ended, in time or not. Latencies are taken in many at once: when the timeout is to follow
        them, or somebody looks.
        """
        self._observed_s.append(latency_s)
        if len(self._observed_s) >= self._enough:
            self._take_in()

    @property
    def latency_counts(self) -> Sequence[int]:
        """Exchanges by latency: one number for each of LATENCY_BOUNDS_S, and of what took longer."""
        self._take_in()
        return self._latency_counts

    @property
    def latency_sum_s(self) -> float:
        self._take_in()
        return self._latency_sum_s

    def _take_in(self) -> None:
        observed_s, self._observed_s = self._observed_s, []
        for latency_s in observed_s:
            self.timeout.observe(latency_s)
            self._latency_sum_s += latency_s
            self._latency_counts[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        self._enough = self.timeout.changes_after

    def counted(self) -> Tally:
        """What it did until now. Latencies are added up where they are observed, for /metrics."""
        return replace(self.tally, answers=sum(self.latency_counts), latency_ms=round(self.latency_sum_s * 1000))

    def heard(self) -> None:
        """It answered in time: whatever it said, it is alive."""
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S

    def failed(self, outcome: Outcome) -> Turn:
        """Counts a turn that came to nothing, by the reason."""
        name = _FIELD_OF[outcome]
        setattr(self.tally, name, getattr(self.tally, name) + 1)
        if outcome is not Outcome.INVALID_RESPONSE:
            self._failures += 1
            if self._failures == FAILURES:
                self._resume_s = time.monotonic() + self._pause_s
        return self._failures_of[outcome]
