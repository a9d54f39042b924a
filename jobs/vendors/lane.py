"""One partner's queue of one partition: what waits, what is on the wire, what is tried again, and when.

Nothing here waits, connects or looks at a clock. A call is in flight from its sending until its end is written down,
so no more than `max_in_flight` calls of a partner can be answered and not written down at any time. A lane holds a
bounded part of its partner's calls; the rest stays in Kafka, from `behind_from` on. Pacing is a token bucket of one
second. A partner that fails several times in a row is only probed: one call at a time, ever less often, until one is
answered.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from jobs.vendors.device import Device
from jobs.vendors.retry import backoff_s
from schemas.catalog import Partner

#: Rounds of failures in a row after which a partner is only probed.
PROBE_AFTER = 3


@dataclass(slots=True, eq=False)
class Call:
    """One record of tracker-calls-v1. `queued_ms` is when Kafka got it; times in s are the loop's."""

    offset: int
    key: str
    record: dict[str, Any]
    raw: bytes
    queued_ms: int
    device: Device | None = None
    failures: int = 0
    in_flight: bool = False
    sent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the pauses between attempts."""

    first_s: float = 0.5
    most_s: float = 60.0


class Lane:
    """The calls of one partner. `outstanding` are those that are in memory and not over."""

    def __init__(self, partner: Partner, backoff: Backoff, rng: random.Random) -> None:
        self.partner = partner
        self.behind_from: int | None = None
        self.outstanding: OrderedDict[int, Call] = OrderedDict()
        self.in_flight = 0
        self._backoff = backoff
        self._rng = rng
        self._waiting: deque[Call] = deque()
        self._retrying: list[tuple[float, int, Call]] = []
        self._failures = 0  # rounds in a row: calls that were sent side by side count once
        self._failed_s = 0.0
        self._resting_until_s = 0.0
        self._tokens = float(partner.max_per_s)
        self._filled_s = 0.0

    @property
    def probing(self) -> bool:
        """Whether the partner seems to be down."""
        return self._failures >= PROBE_AFTER

    @property
    def idle(self) -> bool:
        """Whether nothing is known of it that another lane would not begin with."""
        return not self.outstanding and self.behind_from is None and not self._failures

    def cursor(self, head: int) -> int:
        """The offset before which all of this partner's calls are over. `head`: where the partition is read to."""
        if self.outstanding:
            return next(iter(self.outstanding))
        return head if self.behind_from is None else self.behind_from

    def hold(self, call: Call) -> None:
        """Takes a call in, not yet to be sent; offsets must go up."""
        self.outstanding[call.offset] = call

    def put(self, call: Call) -> None:
        """Lets a call that is held wait for its turn."""
        self._waiting.append(call)

    def take(self, now_s: float) -> Call | None:
        """The next call to be sent, which is then in flight; None when it is not its time."""
        at_s = self.due_s(now_s)
        if at_s is None or at_s > now_s:
            return None
        # A probe is a call that was not tried yet, if there is one: one that fails for itself says nothing of the rest.
        if self._waiting and (self.probing or not self._retrying or self._retrying[0][0] > now_s):
            call = self._waiting.popleft()
        else:
            call = heapq.heappop(self._retrying)[2]
        self._fill(now_s)
        self._tokens -= 1.0
        self.in_flight += 1
        call.in_flight, call.sent_s = True, now_s
        return call

    def due_s(self, now_s: float) -> float | None:
        """From when on `take` gives a call, if nothing else happens; None: not before something does."""
        if self.in_flight >= (1 if self.probing else self.partner.max_in_flight):
            return None
        if self._waiting or (self._retrying and self.probing):
            ready_s = now_s
        elif self._retrying:
            ready_s = self._retrying[0][0]
        else:
            return None
        self._fill(now_s)
        paced_s = now_s if self._tokens >= 1.0 else now_s + (1.0 - self._tokens) / self.partner.max_per_s
        return max(ready_s, paced_s, self._resting_until_s)

    def answered(self) -> None:
        """A call got an answer that settles it. It stays in flight until that is written down, and it is `over`."""
        self._failures = 0
        self._resting_until_s = 0.0

    def failed(self, call: Call, now_s: float, wait_s: float | None) -> None:
        """A call in flight is to be tried again; `wait_s` is what the partner asked for, and holds for all calls."""
        self._land(call)
        call.failures += 1
        if call.sent_s >= self._failed_s:
            self._failures += 1
            self._failed_s = now_s
            if self.probing:
                rounds = self._failures - PROBE_AFTER + 1
                pause_s = backoff_s(rounds, self._backoff.first_s, self._backoff.most_s, self._rng)
                self._resting_until_s = max(self._resting_until_s, now_s + pause_s)
        pause_s = backoff_s(call.failures, self._backoff.first_s, self._backoff.most_s, self._rng)
        if wait_s is not None:
            self._resting_until_s = max(self._resting_until_s, now_s + wait_s)
            pause_s = wait_s
        heapq.heappush(self._retrying, (now_s + pause_s, call.offset, call))

    def over(self, call: Call) -> None:
        """A call is done with, and that is written down."""
        self.outstanding.pop(call.offset, None)
        self._land(call)

    def _land(self, call: Call) -> None:
        if call.in_flight:
            call.in_flight = False
            self.in_flight -= 1

    def _fill(self, now_s: float) -> None:
        most = float(self.partner.max_per_s)
        self._tokens = min(most, self._tokens + max(0.0, now_s - self._filled_s) * most)
        self._filled_s = now_s
