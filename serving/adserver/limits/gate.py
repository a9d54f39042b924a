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

_ON_SCHEDULE = 1.0


def check(
    internal: Sequence[tuple[AdRow, Candidate]],
    caps: RequestCaps,
    kinds: Iterable[CapKind],
    budgets: Budgets,
    request_id: str,
) -> None:
    """Takes out who may not run, and tells guaranteed line items how urgent they are. `kinds` of the rows' caps."""
    headroom = budgets.headroom_micros if budgets.known else {}
    thresholds, urgency = budgets.thresholds, budgets.urgency
    seed = request_seed(request_id) if thresholds else 0
    runs = Outcome.LOST_TO_HIGHER_BID
    suspects = caps.suspects(kinds)
    for row, candidate in internal:
        if candidate.outcome is not runs:
            continue
        campaign_id = candidate.campaign_id
        if not _has_room(row, caps, suspects):
            candidate.outcome = Outcome.FREQUENCY_CAP
        elif headroom.get(campaign_id, 0) < row.win_price_micros:
            candidate.outcome = Outcome.BUDGET
        elif campaign_id in thresholds and not passes(seed, row.scopes[1], thresholds[campaign_id]):
            candidate.outcome = Outcome.PACING
        elif row.line_item.goal_impressions:
            candidate.urgency = urgency.get(row.line_item.id, _ON_SCHEDULE)


def check_again(internal: Sequence[tuple[AdRow, Candidate]], caps: RequestCaps) -> None:
    """Caps once more, with what earlier imps of this request have won: nothing else has changed since `check`."""
    if caps.has_won:
        suspects = caps.suspects(())
        for row, candidate in internal:
            if candidate.runs and not _has_room(row, caps, suspects):
                candidate.outcome = Outcome.FREQUENCY_CAP


def _has_room(row: AdRow, caps: RequestCaps, suspects: set[int] | None) -> bool:
    """Whether an ad's caps allow one more impression; they are looked at only when something speaks for it."""
    if not row.caps or (suspects is not None and row.watched is not None and suspects.isdisjoint(row.watched)):
        return True
    return caps.allowed(row.caps)


def claims(row: AdRow | None, caps: RequestCaps) -> tuple[Claim, ...]:
    """What a winner has to ask for; nothing for ads of DSPs and for ads whose scopes nothing caps."""
    if row is None or not (row.viewer_scopes or row.stream_scopes):
        return ()
    return caps.claims(row.viewer_scopes, row.stream_scopes, row.caps)


def note_win(row: AdRow | None, caps: RequestCaps) -> None:
    """Tells the caps of this request what it has won."""
    if row is not None:
        caps.won(row.cap_scopes)
