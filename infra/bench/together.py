"""All stream jobs as one application beside the sum of the jobs run alone: what sharing a source and a state saves.

Of what players send, most is progress, which is for sessions and metrics; of the Yahoo benchmark's three kinds nearly
every job counts nearly every event, so there is the least to share.
"""

from __future__ import annotations

from infra.bench.report import Row, Sample
from infra.bench.stream_cases import running
from infra.bench.stream_input import PLAYED_MIX, YAHOO_MIX, Amount, Mix
from infra.bench.streams import amount_of, chosen_rows, filling, progress_bar
from jobs.streaming.application import JOBS
from schemas.topics import AD_EVENTS

MIXES = {"what players send": PLAYED_MIX, "the Yahoo kinds": YAHOO_MIX}
#: Rounds that warm the JVM up and belong to nobody: all jobs are a hundred generated classes.
WARM_UPS = 2


def run(pairs: int, scale: float, only: str = "") -> tuple[list[Row], list[str]]:
    """Rows in CPU-seconds; `scale` is the share of 5 M events, `only` part of the name of the mix that is wanted.

    Errors: ConfigError, no mix has such a name.
    """
    chosen = chosen_rows(MIXES, only)
    amount = amount_of(scale)
    rows = [row for what, mix in chosen.items() for row in _rows(what, mix, pairs, amount)]
    return rows, [f"{amount.events:,} events, {amount.users:,} users, every event deduplicated"]


def _rows(what: str, mix: Mix, pairs: int, amount: Amount) -> list[Row]:
    alone: dict[str, list[float]] = {name: [] for name in JOBS}
    samples: list[Sample] = []
    with running() as cluster, progress_bar() as progress:
        filling(progress, amount, (AD_EVENTS.name,), mix=mix)
        runs = progress.add_task("runs", total=(pairs + WARM_UPS) * (len(JOBS) + 1))

        def cpu_s(case: str) -> float:
            used_s = cluster.run(case).cpu_s
            progress.update(runs, advance=1, description=f"{what}, {case}: {used_s:.1f} CPU-s")
            return used_s

        for pair in range(-WARM_UPS, pairs):
            together_s = cpu_s("all jobs") if pair % 2 == 0 else 0.0
            each_s = {name: cpu_s(f"job {name}") for name in JOBS}
            together_s = together_s or cpu_s("all jobs")
            if pair >= 0:
                samples.append((together_s, sum(each_s.values())))
                for name, used_s in each_s.items():
                    alone[name].append(used_s)
    return [
        Row(f"{what}: all jobs as one application / the sum of the jobs alone", "CPU-s", tuple(samples)),
        *(Row(f"{what}: {name} alone", "CPU-s", tuple((s, None) for s in used)) for name, used in alone.items()),
    ]
