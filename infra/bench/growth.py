"""Does an event cost the same when there are twice and four times as many, of as many times the users?

`ours` is the cost of an event at 2x or 4x, `beside` at 1x, in the same run; all deduplicated, so state grows as well.
A run begins with code that is not compiled yet: a fixed cost, the less for each event the more there are. So the last
row has what an event costs that 4x has more than 2x, beside one that 2x has more than 1x.
"""

from __future__ import annotations

from infra.bench.report import Row
from infra.bench.stream_cases import running
from infra.bench.streams import amount_of, filling, progress_bar
from schemas.topics import AD_EVENTS

CASE = "metrics, all deduplicated"
FACTORS = (1, 2, 4)


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """Rows in CPU microseconds per event; 1x is `scale` of 1.25 M events, so 4x is as much as `streams` has."""
    cost_us: dict[int, list[float]] = {factor: [] for factor in FACTORS}
    amounts = {factor: amount_of(scale * factor, 1_250_000) for factor in FACTORS}
    there = 0
    with running() as cluster, progress_bar() as progress:
        runs = progress.add_task("runs", total=len(FACTORS) * pairs + 2)
        for factor, amount in amounts.items():  # the topic only grows, so sizes can't take turns
            filling(progress, amount, (AD_EVENTS.name,), skip=there)
            there = amount.events
            for n in range(pairs + (2 if factor == 1 else 0)):  # two runs warm the JVM up
                used_s = cluster.run(CASE).cpu_s
                if factor > 1 or n >= 2:
                    cost_us[factor].append(used_s / amount.events * 1e6)
                progress.update(runs, advance=1, description=f"{factor}x: {used_s / amount.events * 1e6:.1f} us")
    rows = [
        Row(
            f"campaign_metrics at {factor}x / at 1x",
            "CPU-us/event",
            tuple(zip(cost_us[factor], cost_us[1], strict=True)),
        )
        for factor in FACTORS[1:]
    ]
    rows.append(
        Row(
            "an event between 2x and 4x / between 1x and 2x",
            "CPU-us/event",
            tuple((2 * four - two, 2 * two - one) for one, two, four in zip(*cost_us.values(), strict=True)),
        )
    )
    return rows, [f"1x: {amounts[1].events:,} events, {amounts[1].users:,} users; every event deduplicated"]
