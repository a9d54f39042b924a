"""May a model take over? One rule, with its reason in words."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.models.evaluation import Interval


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate becomes champion, and why."""

    promote: bool
    words: str


def judge(difference: Interval, against: str, has_champion: bool, clicks: int, min_clicks: int) -> Verdict:
    """The verdict on `difference`: the candidate's normalised entropy less that of what serves now.

    Without a champion the candidate must not be worse than the baseline: refused when its whole interval is above 0.
    A champion gives way only to a better one: its whole interval must be below 0.
    """
    shown = f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] against {against}"
    if clicks < min_clicks:
        return Verdict(False, f"refused: {clicks} clicks in the held-out tail, {min_clicks} are needed to judge")
    if not has_champion:
        if difference.low > 0:
            return Verdict(False, f"refused: worse than the baseline, normalised entropy {shown}")
        return Verdict(True, f"first champion: not worse than the baseline, normalised entropy {shown}")
    if difference.high < 0:
        return Verdict(True, f"new champion: better, normalised entropy {shown}")
    return Verdict(False, f"refused: not better beyond doubt, normalised entropy {shown}")
