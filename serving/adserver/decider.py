"""Decides a request: reads once, asks the DSPs meanwhile, holds one auction per imp, writes the win down, answers.

Every part may be missing; what that costs is a numbered reason (`schemas.decisions.Degraded`), never an error:

| missing | then |
| --- | --- |
| Valkey (read) | cold features; campaigns with caps or budgets can't run (fail closed) |
| model | smoothed rates |
| every DSP | internal campaigns alone |
| Valkey (write) | nothing that costs money is shown: the house ad, without trackers |
| Kafka | the decision is not logged, the ad is shown |
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from connectors.keys import KeyRing
from schemas.decisions import Degraded, Outcome
from schemas.ids import encode_id
from serving.adserver import metrics, podding
from serving.adserver.auction import rules, together
from serving.adserver.auction.contest import Contest, contests_of, could_win, reservation, shown_as
from serving.adserver.auction.notices import billing_url, macro_values
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import Decision, ad_record, expires_s, identity
from serving.adserver.decision_log import DecisionLog
from serving.adserver.dsps.bidders import Bidders
from serving.adserver.dsps.fanout import Fanout
from serving.adserver.fallback import enter_house, show_uncounted
from serving.adserver.features.reader import FeatureReader
from serving.adserver.features.snapshot import EntityCounters
from serving.adserver.inventory import Inventory
from serving.adserver.limits import gate
from serving.adserver.markup.shown import Look, Unshowable, shown, tracked_as
from serving.adserver.markup.trackers import NO_TRACKERS, TrackerMaker
from serving.adserver.openrtb.context import Opportunity, RequestContext, in_cells, opportunities, resolve
from serving.adserver.openrtb.messages import BidRequest
from serving.adserver.openrtb.outbound import Outbound
from serving.adserver.own_time import OwnTime
from serving.adserver.reports import Reports
from serving.adserver.scoring.model import Scorer, SmoothedRates
from serving.adserver.scoring.service import score
from serving.adserver.settings import Settings
from serving.adserver.store import Commit, Standing, Store
from serving.adserver.traffic.integrity import Integrity

logger = logging.getLogger(__name__)

#: Winners that may lose their budget or turn out to be unshowable before the imp goes to the house.
MAX_WINNERS = 32
_RECORD_BYTES = 16


@dataclass(slots=True)
class Serving:
    """What requests are decided with; swapped piece by piece while requests run."""

    inventory: Inventory
    scorer: Scorer = field(default_factory=SmoothedRates)
    challenger: Scorer | None = None  # for the cells of experiments that name its alias
    challenger_alias: str = ""

    def scorer_of(self, alias: str) -> Scorer:
        """The model of an experiment's cell; the one in service while there is none of that alias."""
        return self.challenger if alias and alias == self.challenger_alias and self.challenger else self.scorer


class Decider:
    """One per process. Clock and randomness are parameters."""

    def __init__(
        self,
        serving: Serving,
        settings: Settings,
        keys: KeyRing,
        store: Store,
        counters: Callable[[Inventory], EntityCounters],
        bidders: Bidders,
        trackers: TrackerMaker,
        log: DecisionLog,
        clock: Callable[[], float] = time.time,
        notify: Callable[[str], None] = lambda _url: None,
        rng: random.Random | None = None,
        integrity: Integrity | None = None,
        look: Look = lambda _creative_id, _markup: None,
    ) -> None:
        self._serving = serving
        self._settings = settings
        self._keys = keys
        self._store = store
        self._counters = counters
        self._bidders = bidders
        self._trackers = trackers
        self._clock = clock
        self._reports = Reports(log, notify)
        self._integrity = integrity
        self._look = look
        self._draw = (rng or random.Random()).randrange
        self._features = FeatureReader(settings.counters_expired_s)
        self._own_time = OwnTime(settings.margin_ms / 1000)

    async def decide(
        self,
        request: BidRequest,
        arrived_s: float,
        body: bytes = b"",
        connected: Callable[[], bool] = lambda: True,
    ) -> list[Decision]:
        """A decision per imp. `arrived_s` is the monotonic time at which the request was complete, `body` its JSON as
        it came, `connected` whether its client is still there.

        Decisions are logged, and bidders told, in the loop's next round: the answer goes first, if it is made at once.
        """
        await asyncio.sleep(0)  # auctions that end are due, one that begins is not: their answers leave first
        inventory = self._serving.inventory
        context = resolve(request, self._keys, int(self._clock() * 1000), self._settings.tcf_vendor_id, body)
        context = in_cells(context, inventory)
        asked = opportunities(request, inventory, context.assignment.floor_percent)
        doubt = self._integrity.doubts(context) if self._integrity is not None else None
        if doubt is not None and self._integrity is not None and self._integrity.refuses(doubt):
            return self._refuse(context, asked, doubt, inventory, (time.monotonic() - arrived_s) * 1000)
        tmax_ms = min(request.tmax or self._settings.default_tmax_ms, self._settings.max_tmax_ms)
        answer_by_s = arrived_s + tmax_ms / 1000
        due_s = answer_by_s - self._own_time.of(tmax_ms / 1000, arrived_s, len(asked))

        fanout = self._ask_dsps(context, asked, inventory, due_s)
        contests = contests_of(asked, inventory, context, answer_by_s)
        session = context.session_context if inventory.has_stream_caps else None
        standing = await self._store.read(
            context.pseudonym,
            context.household,
            session,
            context.now_ms,
            lambda: fanout.waits,
            lambda: any(row.caps for contest in contests for row, _ in contest.internal),
            due_s,
        )
        for contest in contests:
            if fanout.waits:
                await asyncio.sleep(0)  # there is time: whoever has none goes first
            self._enter(contest, standing, inventory, context)
        turns = await fanout.collect()
        collected_s = min(time.monotonic(), due_s)

        for contest in contests:
            contest.enter_bids(turns, context, inventory.rates, self._settings.dsp_vast_bytes)
        decisions: list[Decision] = []
        labels = podding.PageLabels(self._settings.apart_in_pods)
        breaks = list(podding.groups(contests))
        single = [group[0] for group in breaks if not podding.is_pod(group)]
        groups = together.standing(turns, contests, single, lambda contest: self._prepare(contest, standing))
        for group in breaks:
            labels.keep_apart(group)
            settled = await self._settle_group(group, standing, inventory, context)
            labels.note(settled)
            decisions += settled
        for bids in (g for g in groups if not g.won):  # one of them could not be shown
            bids.falls()
            for contest in bids.contests:
                if contest.decision.winner is None:
                    await self._settle(contest, standing, inventory, context)
        for contest in contests:
            contest.release()
        if doubt is not None:
            for decision in decisions:
                decision.reasons.add(doubt)
        most_chars = self._settings.dsp_vast_bytes
        fanout.settled(decisions, lambda said, bidder: could_win(contests, said, bidder, inventory.rates, most_chars))
        ended_s = time.monotonic()
        self._own_time.observe(ended_s - collected_s, ended_s, len(asked))
        latency_ms = (ended_s - arrived_s) * 1000
        metrics.DECISION_SECONDS.observe(latency_ms / 1000)
        for decision in decisions:
            if decision.winner is not None:
                rules.mark_losers(decision.candidates, decision.winner)
        delivered = connected if ended_s <= answer_by_s else _never
        self._reports.soon(decisions, context, inventory, latency_ms, delivered)
        return decisions

    def refuse(self, request: BidRequest, reason: Degraded, arrived_s: float, body: bytes = b"") -> list[Decision]:
        """Decisions of a request that can't be answered, as `decide` gives and logs them."""
        inventory, context = self._outside_of_auctions(request, body)
        return self._refuse(context, opportunities(request, inventory), reason, inventory, _ms_since(arrived_s))

    def fall_back(self, request: BidRequest, reason: Degraded, arrived_s: float, body: bytes = b"") -> list[Decision]:
        """The house alone, without trackers: for a request whose auction failed. Waits for nobody; logged as usual."""
        inventory, context = self._outside_of_auctions(request, body)
        decisions = []
        for contest in contests_of(opportunities(request, inventory), inventory, context):
            contest.decision = Decision(contest.opportunity, reasons={reason})
            if (house := enter_house(contest, context.now_ms, self._draw)) is not None:
                show_uncounted(contest, house, inventory)
            decisions.append(contest.decision)
        self._reports.soon(decisions, context, inventory, _ms_since(arrived_s), _never)
        return decisions

    def _outside_of_auctions(self, request: BidRequest, body: bytes) -> tuple[Inventory, RequestContext]:
        inventory = self._serving.inventory
        context = resolve(request, self._keys, int(self._clock() * 1000), self._settings.tcf_vendor_id, body)
        return inventory, in_cells(context, inventory)

    def _refuse(
        self,
        context: RequestContext,
        asked: Sequence[Opportunity],
        doubt: Degraded,
        inventory: Inventory,
        latency_ms: float,
    ) -> list[Decision]:
        """Nothing is shown, nobody asked; the reason is logged."""
        decisions = [Decision(place, reasons={doubt}) for place in asked]
        self._reports.soon(decisions, context, inventory, latency_ms, _never)
        return decisions

    def _ask_dsps(
        self, context: RequestContext, asked: Sequence[Opportunity], inventory: Inventory, due_s: float
    ) -> Fanout:
        """The calls in flight. Nothing is asked that could not be shown: no sale without the registry."""
        sold = [o for o in asked if o.formats and o.floor_cpm_micros is not None]
        if not sold or not len(self._bidders) or not self._store.connected:
            return Fanout()
        left_ms = int((due_s - asyncio.get_running_loop().time()) * 1000)
        if left_ms <= 0:
            return Fanout()
        outbound = Outbound(context, sold, inventory.rates, left_ms, self._settings.exchange_domain)
        return self._bidders.call(outbound.body, context.country, due_s, outbound.must_ask)

    def _enter(self, contest: Contest, standing: Standing, inventory: Inventory, context: RequestContext) -> None:
        """Checks caps and budgets of the internal candidates, scores and prices those that stay."""
        decision = contest.decision
        if not standing.read:
            decision.reasons |= {Degraded.FEATURES_UNAVAILABLE, Degraded.CAPS_UNAVAILABLE}
        if contest.internal and not self._store.budgets.known:
            decision.reasons.add(Degraded.BUDGET_UNAVAILABLE)
        context.assignment.switch_off(contest.internal)
        budgets, request_id = self._store.budgets, context.request.id
        running = gate.check(contest.internal, standing.caps, inventory.cap_kinds, budgets, request_id)
        if not running:
            return
        counters = self._counters(inventory)
        score(
            self._features,
            self._serving.scorer_of(context.assignment.model_alias),
            contest,
            running,
            standing,
            counters,
            inventory,
            context,
        )
        rules.price([candidate for _, candidate in running])

    async def _settle_group(
        self, group: Sequence[Contest], standing: Standing, inventory: Inventory, context: RequestContext
    ) -> list[Decision]:
        """Decisions of one imp, or of the imps of one pod."""
        if not podding.is_pod(group):
            return [await self._settle(contest, standing, inventory, context) for contest in group]
        steps = podding.Steps(
            prepare=lambda contest: self._prepare(contest, standing),
            attempt=lambda winner, contest: self._try(winner, contest, standing, inventory, context),
            house=lambda contest: self._show_house(contest, standing, inventory, context),
        )
        return await podding.settle(group, inventory.rates, self._settings.apart_in_pods, steps)

    def _prepare(self, contest: Contest, standing: Standing) -> None:
        """Takes out bids below the floor, and caps that earlier imps of this request have filled."""
        place = contest.opportunity
        rules.apply_floor(contest.decision.candidates, place.floor_cpm_micros, place.duration_floors)
        gate.check_again(contest.internal, standing.caps)

    async def _settle(
        self, contest: Contest, standing: Standing, inventory: Inventory, context: RequestContext
    ) -> Decision:
        """Holds the auction: the best that can be shown, paid for and written down wins, else the house."""
        decision = contest.decision
        self._prepare(contest, standing)
        for _ in range(MAX_WINNERS):
            choice = rules.choose(decision.candidates, self._draw)
            if choice is None:
                break
            winner = choice.candidate
            committed = await self._try(winner, contest, standing, inventory, context)
            if committed is Commit.DONE:
                decision.propensity = choice.propensity
                return decision
            if committed is Commit.NOT_REGISTERED:
                winner.outcome = Outcome.INTERNAL_ERROR
                decision.reasons.add(Degraded.REGISTRY_UNAVAILABLE)
                break
        await self._show_house(contest, standing, inventory, context)
        return decision

    async def _try(
        self, winner: Candidate, contest: Contest, standing: Standing, inventory: Inventory, context: RequestContext
    ) -> Commit | None:
        """Makes a winner's markup and writes it down; on `DONE` the contest's decision shows it.

        None when its markup can't be shown.
        """
        if context.assignment.becomes_ghost(winner, contest.internal):
            return None
        decision, place = contest.decision, contest.opportunity
        is_test = context.request.test == 1
        raw_id = os.urandom(_RECORD_BYTES)
        record_id = encode_id(raw_id)
        ad_format = shown_as(winner)
        reported = tracked_as(winner, ad_format, place.imp)
        trackers = NO_TRACKERS if is_test else self._trackers.of(reported, raw_id, context.now_s)
        macros = macro_values(decision, winner, context.request.id, inventory.rates)
        decision.expires_s = expires_s(winner, place.imp.exp, self._settings.reservation_s)
        named = identity(winner, record_id, inventory.currency, decision.expires_s)
        try:
            markup = shown(
                winner, ad_format, place.imp, named, trackers, self._settings.dsp_vast_bytes, macros, self._look
            )
        except Unshowable as e:
            winner.outcome = e.outcome
            return None
        if is_test:  # shown, and nowhere written down: it is no traffic, and costs nothing
            winner.outcome = Outcome.WON
            decision.keep_inputs(contest.inputs_of(winner))
            decision.winner, decision.markup, decision.markup_format = winner, markup, ad_format
            return Commit.DONE
        record = ad_record(
            winner,
            record_id,
            place,
            context,
            inventory.currency,
            ad_format,
            decision.model_version,
            billing_url(winner, macros),
        )
        claims = gate.claims(winner.row, standing.caps)
        committed = await self._store.commit(record, reservation(winner, place.quantity), claims, contest.answer_by_s)
        if committed is Commit.DONE:
            gate.note_win(winner.row, standing.caps)
            winner.outcome = Outcome.WON
            decision.keep_inputs(contest.inputs_of(winner))
            decision.winner, decision.record = winner, record
            decision.markup, decision.markup_format, decision.trackers = markup, ad_format, trackers.urls
        elif committed is Commit.NO_BUDGET:
            winner.outcome = Outcome.RESERVATION_LOST
            metrics.LOST_RESERVATIONS.inc()
        elif committed is Commit.CAPPED:
            winner.outcome = Outcome.FREQUENCY_CAP
            metrics.LOST_CAPS.inc()
        elif committed is Commit.BUDGET_UNKNOWN:
            winner.outcome = Outcome.BUDGET
            decision.reasons.add(Degraded.BUDGET_UNAVAILABLE)
        return committed

    async def _show_house(
        self, contest: Contest, standing: Standing, inventory: Inventory, context: RequestContext
    ) -> None:
        """The house ad, counted if the registry takes it, else without trackers. Nothing, if there is none."""
        decision = contest.decision
        house = enter_house(contest, context.now_ms, self._draw)
        if house is None:
            return
        if Degraded.REGISTRY_UNAVAILABLE not in decision.reasons:
            if await self._try(house, contest, standing, inventory, context) is Commit.DONE:
                return
            decision.reasons.add(Degraded.REGISTRY_UNAVAILABLE)
        show_uncounted(contest, house, inventory)


def _never() -> bool:
    return False


def _ms_since(arrived_s: float) -> float:
    return (time.monotonic() - arrived_s) * 1000
