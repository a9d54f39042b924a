"""Scores the internal candidates of an imp: inputs, click probability, probability of a completed view."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.decisions import Degraded
from schemas.errors import ContractError
from serving.adserver.auction.contest import Contest
from serving.adserver.auction.entrants import places_of
from serving.adserver.auction.rules import Candidate
from serving.adserver.features.columns import COLUMNS
from serving.adserver.features.reader import Asked, FeatureReader
from serving.adserver.features.snapshot import EntityCounters
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.openrtb.context import RequestContext
from serving.adserver.scoring.model import Scorer, SmoothedRates
from serving.adserver.store import Standing

_COMPLETION = COLUMNS.row["creative_completion_rate_1h"]
_RATES = SmoothedRates()


def score(
    reader: FeatureReader,
    scorer: Scorer,
    contest: Contest,
    running: Sequence[tuple[AdRow, Candidate]],
    standing: Standing,
    counters: EntityCounters,
    inventory: Inventory,
    context: RequestContext,
) -> None:
    """Sets `p_ctr` and `p_view` of the candidates, and what the decision says about it. A model that fails has the
    rates in its place. `contest.inputs` is borrowed from then on.
    """
    decision, place = contest.decision, contest.opportunity
    asked = Asked(
        placement_id=place.placement_id,
        category=place.category,
        live=place.live,
        device_type=context.device_type,
        country=context.country,
        publisher_id=place.publisher_id,
        platform=context.platform,
        region=context.region,
    )
    everyone = len(running) == len(contest.internal)
    own = contest.places if everyone else places_of([row for row, _ in running])
    inputs, decision.feature_status = reader.read(inventory, own, asked, standing.user, counters, context.now_s)
    contest.inputs = inputs
    if standing.cold:
        decision.reasons.add(Degraded.FEATURES_CIRCUIT_OPEN)
    try:
        clicks = scorer.p_ctr(inputs, asked)
    except ContractError:
        scorer = _RATES
        clicks = scorer.p_ctr(inputs, asked)
    if scorer.version is None:
        decision.reasons.add(Degraded.MODEL_UNAVAILABLE)
    decision.model_version = scorer.version
    views = inputs.values[_COMPLETION, : inputs.candidates]
    for (_, candidate), p_ctr, p_view in zip(running, clicks.tolist(), views.tolist(), strict=True):
        candidate.p_ctr = p_ctr
        candidate.p_view = p_view
