"""A replay's files against every hop: totals, spend, repeated lines, and each malformed line by file and line."""

from __future__ import annotations

from connectors.endpoints import Endpoints
from infra.demo.drain import Say, drain_hops
from infra.demo.hops import ByCampaign, Snapshot
from infra.demo.reconcile import Check, Report, compare
from infra.replay.truth import ReplayTruth
from schemas.errors import RejectReason

_ALL = "all campaigns"


def reconcile_replay(ends: Endpoints, truth: ReplayTruth, before: Snapshot, say: Say) -> Report:
    """Drains the stack and compares it with the files. Blocks. Errors: ConnectorError when a part stays away."""
    wanted: ByCampaign = {
        _ALL: {
            "impressions": truth.impressions,
            "clicks": truth.clicks,
            "spend_micros": truth.spend_micros,
        }
    }
    found = drain_hops(ends, wanted, before, say, shape=_together, with_sessions=False)
    lines = tuple(line for line in compare(wanted, found.hops) if line.measure in wanted[_ALL])
    tally = found.tally
    malformed = {o for o, reason in tally.dead_letter_origins.items() if reason == RejectReason.MALFORMED_LINE}
    return Report(
        lines,
        (
            Check("distinct events", truth.events, tally.distinct_events),
            Check("conversions", truth.conversions, tally.by_type["conversion"]),
            Check("repeated lines", truth.duplicates, tally.duplicates),
            Check("malformed lines as dead letters", len(truth.malformed), tally.dead_letters.total()),
            Check(
                "malformed lines named by file and line",
                len(truth.malformed),
                len(malformed & truth.malformed),
            ),
        ),
    )


def _together(counts: ByCampaign) -> ByCampaign:
    """One entry for all campaigns: a log's own ids are the parser's business, the totals are not."""
    totals: dict[str, int] = {}
    for measures in counts.values():
        for name, value in measures.items():
            totals[name] = totals.get(name, 0) + value
    return {_ALL: totals}
