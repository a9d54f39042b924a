"""Every hop against the truth: campaign by campaign, to the micro, with what was planted and what was refused.

The truth is a ledger's (or, for a replay, an own parse of the files). A hop is exact when each measure of each
campaign is equal; the match share says how close it is when not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from infra.demo.hops import HELD, MEASURES, ByCampaign
from infra.simulator.ledger import Truth


@dataclass(frozen=True, slots=True)
class Line:
    """One measure at one hop. `wrong_campaigns` names those that differ."""

    hop: str
    measure: str
    truth: int
    found: int
    wrong_campaigns: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return self.truth == self.found and not self.wrong_campaigns

    @property
    def match_share(self) -> float:
        """1 is exact; 0 when nothing of it was found or as much too much.

        Example:
        >>> Line("Druid", "clicks", 10, 9, ("cmp-1",)).match_share
        0.9
        """
        if self.truth == self.found:
            return 1.0
        return max(0.0, 1.0 - abs(self.found - self.truth) / max(self.truth, 1))


@dataclass(frozen=True, slots=True)
class Check:
    """A single number that must agree: duplicates, late events, dead letters of a reason."""

    name: str
    planted: int
    found: int

    @property
    def exact(self) -> bool:
        return self.planted == self.found


@dataclass(frozen=True, slots=True)
class Report:
    """The whole comparison."""

    lines: tuple[Line, ...]
    checks: tuple[Check, ...] = field(default=())

    @property
    def exact(self) -> bool:
        return all(line.exact for line in self.lines) and all(check.exact for check in self.checks)

    @property
    def differences(self) -> list[str]:
        """One sentence for each number that is wrong."""
        wrong = [
            f"{line.hop} has {line.found:,} {line.measure}, the truth is {line.truth:,}"
            f" (campaigns: {', '.join(line.wrong_campaigns[:5])})"
            for line in self.lines
            if not line.exact
        ]
        return wrong + [
            f"{check.name}: {check.found:,} found, {check.planted:,} planted"
            for check in self.checks
            if not check.exact
        ]


def truth_by_campaign(truth: Truth) -> ByCampaign:
    """The ledger's truth in the hops' shape. A session is completed when its ad's complete event counted."""
    return {
        campaign: {
            "impressions": totals.impressions,
            "clicks": totals.clicks,
            "completes": totals.completes,
            "sessions_completed": totals.completes,
            "spend_micros": totals.spend_micros,
        }
        for campaign, totals in truth.campaigns.items()
    }


def compare(truth: ByCampaign, hops: dict[str, ByCampaign]) -> tuple[Line, ...]:
    """A line for each hop and each measure that it holds; what is absent on either side is zero."""
    lines = []
    for hop, counts in hops.items():
        for measure in HELD[hop]:
            wrong = sorted(
                c
                for c in truth.keys() | counts.keys()
                if truth.get(c, {}).get(measure, 0) != counts.get(c, {}).get(measure, 0)
            )
            lines.append(
                Line(
                    hop,
                    measure,
                    sum(m.get(measure, 0) for m in truth.values()),
                    sum(m.get(measure, 0) for m in counts.values()),
                    tuple(wrong),
                )
            )
    return tuple(lines)


def planted_checks(
    truth: Truth, duplicates: int, late: int, ahead: int, expired: int, conversions: int, dead_letters: Counter[str]
) -> tuple[Check, ...]:
    """What was planted against what was found; a dead letter of a reason nobody planted is wrong too."""
    checks = [
        Check("duplicates", truth.duplicates, duplicates),
        Check("late events", truth.late, late),
        Check("clocks a day ahead", truth.ahead, ahead),
        Check("expired tokens", truth.expired, expired),
        Check("conversions", truth.conversions, conversions),
    ]
    for reason in sorted(truth.rejects.keys() | dead_letters.keys()):
        checks.append(Check(f"dead letters: {reason}", truth.rejects[reason], dead_letters[reason]))
    return tuple(checks)


def print_report(console: Console, report: Report, title: str) -> None:
    """The tables: measures by hop with their match share, then what was planted."""
    hops = list(dict.fromkeys(line.hop for line in report.lines))
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    table.add_column("truth", justify="right")
    for hop in hops:
        table.add_column(hop, justify="right")
    by_place = {(line.hop, line.measure): line for line in report.lines}
    for measure in MEASURES:
        of_measure = [line for line in report.lines if line.measure == measure]
        if not of_measure:
            continue
        cells = [_cell(by_place.get((hop, measure))) for hop in hops]
        table.add_row(measure, f"{of_measure[0].truth:,}", *cells)
    console.print(table)
    if report.checks:
        planted = Table(title="planted and found", title_justify="left")
        planted.add_column("what")
        planted.add_column("planted", justify="right")
        planted.add_column("found", justify="right")
        for check in report.checks:
            style = "" if check.exact else "red"
            planted.add_row(check.name, f"{check.planted:,}", f"{check.found:,}", style=style)
        console.print(planted)
    for sentence in report.differences:
        console.print(f"WRONG: {sentence}", style="red")


def _cell(line: Line | None) -> str:
    if line is None:
        return "-"
    if line.exact:
        return f"{line.found:,} (100 %)"
    return f"[red]{line.found:,} ({line.match_share:.2%})[/red]"
