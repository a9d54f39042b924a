"""Tasks beside requests: what ends is told, counted and begun again."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from serving.adserver.background import Background


def _ended(name: str) -> float:
    return REGISTRY.get_sample_value("adserver_background_tasks_ended_total", {"task": name}) or 0.0


def test_what_ends_is_begun_again_after_longer_and_longer_pauses(caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    begun = 0
    now_s = 100.0

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == 9:
            await asyncio.Event().wait()
        if begun % 2:
            raise ZeroDivisionError("nobody foresaw this")

    async def main() -> Background:
        background = Background(lambda: now_s, sleep)
        background.start("budgets", run)
        while begun < 9:
            await asyncio.sleep(0)
        assert background.problems == ["budgets ended: without a reason"]
        background.cancel()
        return background

    before = _ended("budgets")
    background = asyncio.run(main())
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert _ended("budgets") - before == 8
    said = [r for r in caplog.records if r.message == "background task ended"]
    assert len(said) == 8 and sum(bool(r.exc_info) for r in said) == 4
    now_s += 1_000.0
    assert background.problems == [], "it has run for long since"


def test_one_that_ends_leaves_the_others_alone() -> None:
    seen: list[int] = []

    async def fails() -> None:
        raise ExceptionGroup("several", [ValueError("x")])

    async def counts() -> None:
        while True:
            seen.append(1)
            await asyncio.sleep(0)

    async def main() -> list[str]:
        background = Background()
        background.start("one", fails)
        background.start("other", counts)
        for _ in range(5):
            await asyncio.sleep(0)
        background.cancel()
        return background.problems

    (problem,) = asyncio.run(main())
    assert problem.startswith("one ended: ExceptionGroup('several'")
    assert len(seen) > 3
