"""Calls of one request in flight: collected until all have answered or their time is over.

There is no task, future or timer per call: one of each serves all calls of a request, and a DSP without a bid costs no
object at all. What comes late is measured and never used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from schemas.catalog import Bidder
from schemas.decisions import Outcome
from schemas.errors import ConnectorError, TimedOut
from serving.adserver.dsps.desk import Desk, Turn
from serving.adserver.openrtb.messages import BidResponse, decode_response

if TYPE_CHECKING:
    from serving.adserver.auction.rules import Candidate
    from serving.adserver.decision import Decision

#: (imp, a bid for it that the auction would have let in), of a response.
Judge = Callable[[BidResponse, Bidder], Iterable[tuple[str, "Candidate"]]]

_HELD_UP_S = 0.005
_LAST_LOOK_S = 0.001
_NEVER_S = float("inf")


class Fanout:
    """Calls in flight. `due_s` is the monotonic time at which each DSP's answer is no longer waited for."""

    __slots__ = (
        *("_due_s", "_finished", "_judge", "_late", "_looked_again", "_pending", "_shown", "_timer", "_turns"),
        "calls",
    )

    def __init__(self, calls: Sequence[Desk] = (), due_s: Sequence[float] = ()) -> None:
        self.calls = calls
        #: Priority of what each imp showed and what for, CPM micros, once that is known: late bids are held against it.
        self._shown: dict[str, tuple[int, int]] = {}
        self._judge: Judge | None = None
        self._late: list[tuple[Desk, BidResponse]] = []  # came before the auction was over
        self._due_s = due_s
        self._turns: list[Turn | None] = [None] * len(calls)
        self._pending = len(calls)
        self._finished: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked_again = False

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come."""
        return self._pending > 0

    async def collect(self) -> list[Turn]:
        """Every DSP's turn, once all have answered or their time is over."""
        if self._pending:
            loop = asyncio.get_running_loop()
            self._finished = loop.create_future()
            self._look(loop, time.monotonic())
            await self._finished
        return [turn for turn in self._turns if turn is not None]

    def answered(self, tag: int, status: int, body: bytes, latency_s: float) -> None:
        """An exchange has ended with an answer."""
        desk = self.calls[tag]
        desk.observe(latency_s)
        if self._turns[tag] is not None:
            if status == 200:
                self._measure_late(desk, body)
            return
        desk.heard()
        self._take(tag, _turn(desk, status, body))

    def failed(self, tag: int, error: ConnectorError, latency_s: float) -> None:
        """An exchange has ended without one."""
        desk = self.calls[tag]
        if isinstance(error, TimedOut):
            desk.observe(latency_s)
        if self._turns[tag] is None:
            self._take(tag, desk.failed(Outcome.EXPIRED if isinstance(error, TimedOut) else Outcome.DSP_ERROR))

    def settled(self, decisions: Iterable[Decision], judge: Judge) -> None:
        """Tells who won, and by how much: what a DSP is worth is what would be missed without it. `judge` says which
        bids of a response could have won; those that came late are held against what was shown, or against nothing.
        """
        self._judge = judge
        for decision in decisions:
            winner, imp_id = decision.winner, decision.opportunity.imp.id
            shown = (winner.priority, winner.bid_cpm_micros) if winner is not None else (0, 0)
            self._shown[imp_id] = min(shown, self._shown.get(imp_id, shown))  # of several ads, the one to replace
            if winner is None or winner.bidder_id is None:
                continue
            desk = next((d for d in self.calls if d.bidder.id == winner.bidder_id), None)
            if desk is not None:
                next_best = max((c.bid_cpm_micros for c in decision.candidates if c.runs), default=0)
                desk.tally.wins += 1
                desk.tally.won_cpm_micros += winner.bid_cpm_micros
                desk.tally.gained_cpm_micros += max(0, winner.bid_cpm_micros - next_best)
        late, self._late = self._late, []
        for desk, response in late:
            self._hold_against_shown(desk, response)

    def _take(self, tag: int, turn: Turn) -> None:
        self._turns[tag] = turn
        self._pending -= 1
        if not self._pending:
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _look(self, loop: asyncio.AbstractEventLoop, expected_s: float) -> None:
        """Gives up DSPs whose time is over; finishes, or looks again when the next one's is.

        A loop that was held up runs its timers before it reads its sockets: then it looks once more, because an
        answer that came in time must not be lost to our own delay.
        """
        now_s = time.monotonic()
        if now_s - expected_s > _HELD_UP_S and not self._looked_again:
            self._looked_again = True
            self._timer = loop.call_later(_LAST_LOOK_S, self._look, loop, expected_s)
            return
        next_s = _NEVER_S
        for tag, turn in enumerate(self._turns):
            if turn is None:
                due_s = self._due_s[tag]
                if due_s <= now_s + _LAST_LOOK_S:
                    self._take(tag, self.calls[tag].failed(Outcome.EXPIRED))
                elif due_s < next_s:
                    next_s = due_s
        if next_s < _NEVER_S:
            self._timer = loop.call_later(next_s - now_s, self._look, loop, next_s)

    def _measure_late(self, desk: Desk, body: bytes) -> None:
        """Counts late bids, and what the best for each imp would have brought above what was shown. None is used."""
        try:
            response = decode_response(body)
        except ValueError:
            return
        desk.tally.late_bids += sum(len(seat.bid) for seat in response.seatbid)
        if self._judge is None:
            self._late.append((desk, response))
        else:
            self._hold_against_shown(desk, response)

    def _hold_against_shown(self, desk: Desk, response: BidResponse) -> None:
        best: dict[str, int] = {}
        for imp_id, bid in self._judge(response, desk.bidder) if self._judge is not None else ():
            priority, shown_micros = self._shown.get(imp_id, (0, 0))
            if bid.priority >= priority:
                best[imp_id] = max(best.get(imp_id, 0), bid.bid_cpm_micros - shown_micros)
        desk.tally.late_lost_cpm_micros += sum(best.values())


def _turn(desk: Desk, status: int, body: bytes) -> Turn:
    if status == 204 or (status == 200 and not body.strip()):  # §4.2.1 wants 204, and an empty body says as much
        desk.tally.no_bids += 1
        return desk.no_bid
    if status != 200:
        return desk.failed(Outcome.DSP_ERROR)
    try:
        response: BidResponse = decode_response(body)
    except ValueError:  # msgspec's errors and undecodable text are such
        return desk.failed(Outcome.INVALID_RESPONSE)
    if not any(seat.bid for seat in response.seatbid):
        desk.tally.no_bids += 1
        return desk.no_bid
    desk.tally.bids += 1
    return Turn(desk.bidder, None, response)
