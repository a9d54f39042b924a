"""The check in front of ranking: who of the candidates may spend a viewer's attention and a campaign's money now.

Caps first, then money, then pacing: a candidate's outcome is the first that speaks against it. What passes here is
checked again where all servers meet when it has won (`store.commit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.decisions import Outcome
from serving.adserver.auction.rules import Candidate
from serving.adserver.inventory import AdRow
from serving.adserver.limits.budgets import Budgets
from serving.adserver.limits.caps import CapKind, RequestCaps
from serving.adserver.limits.pacing import passes, request_seed
from serving.adserver.limits.pending import Claim

_RUNS = Outcome.LOST_TO_HIGHER_BID
_ON_SCHEDULE = 1.0


def check(
    internal: Sequence[tuple[AdRow, Candidate]],
    caps: RequestCaps,
    kinds: Iterable[CapKind],
    budgets: Budgets,
    request_id: str,
) -> list[tuple[AdRow, Candidate]]:
    """Takes out who may not run, tells guaranteed line items how urgent they are, and gives back who is left. `kinds`
    of the rows' caps.
    """
    headroom = budgets.headroom_micros if budgets.known else {}
    thresholds, urgency = budgets.thresholds, budgets.urgency
    seed = request_seed(request_id) if thresholds else 0
    _take_out_capped(internal, caps, kinds)
    running = []
    for entry in internal:
        row, candidate = entry
        if candidate.outcome is not _RUNS:
            continue
        campaign_id = candidate.campaign_id
        if headroom.get(campaign_id, 0) < row.win_price_micros:
            candidate.outcome = Outcome.BUDGET
        elif campaign_id in thresholds and not passes(seed, row.scopes[1], thresholds[campaign_id]):
            candidate.outcome = Outcome.PACING
        else:
            if row.line_item.goal_impressions:
                candidate.urgency = urgency.get(row.line_item.id, _ON_SCHEDULE)
            running.append(entry)
    return running


def check_again(internal: Sequence[tuple[AdRow, Candidate]], caps: RequestCaps) -> None:
    """Caps once more, with what earlier imps of this request have won: nothing else has changed since `check`."""
    if caps.has_won:
        _take_out_capped(internal, caps, ())


def _take_out_capped(internal: Sequence[tuple[AdRow, Candidate]], caps: RequestCaps, kinds: Iterable[CapKind]) -> None:
    """Takes out ads whose caps leave no room for one more impression; caps are looked at only where something speaks
    for it.
    """
    suspects = caps.suspects(kinds)
    for row, candidate in internal:
        watched = row.watched
        if watched is not None and suspects is not None and suspects.isdisjoint(watched):
            continue
        if candidate.outcome is _RUNS and not caps.allowed(row.caps):
            candidate.outcome = Outcome.FREQUENCY_CAP


def claims(row: AdRow | None, caps: RequestCaps) -> tuple[Claim, ...]:
    """What a winner has to ask for; nothing for ads of DSPs and for ads whose scopes nothing caps."""
    if row is None or not (row.viewer_scopes or row.stream_scopes):
        return ()
    return caps.claims(row.viewer_scopes, row.stream_scopes, row.caps)


def note_win(row: AdRow | None, caps: RequestCaps) -> None:
    """Tells the caps of this request what it has won."""
    if row is not None:
        caps.won(row.cap_scopes)
