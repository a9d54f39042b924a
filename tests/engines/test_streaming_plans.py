"""The state of the stream jobs is what git says it is: a savepoint of the last release still fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.endpoints import Endpoints
from jobs.streaming import plans
from jobs.streaming.application import ALL_JOBS, JOBS, Application
from jobs.streaming.settings import Settings


def test_savepoints_still_fit() -> None:
    made = plans.text_of(Application.of(tuple(JOBS), Settings(), Endpoints(home=Path("/nowhere"))))
    changed = plans.differences(plans.kept(ALL_JOBS), made)
    assert not changed, "\n".join([*changed, plans.WAY_OVER])


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("1 rank_1 row=A", "1 rank_1 row=B", "was `rank_1 row=A`, is `rank_1 row=B`"),
        ("1 calc_1\n2 sink_2 row=A", "1 calc_1\n2 calc_1\n3 sink_2 row=A", "operator 2 (calc_1)"),
        ("1 calc_1\n2 sink_2 row=A", "1 calc_1", "operator 2 (sink_2): was `sink_2 row=A`, is `absent`"),
    ],
)
def test_a_change_is_told_operator_by_operator(before: str, after: str, told: str) -> None:
    assert any(told in line for line in plans.differences(before, after))
