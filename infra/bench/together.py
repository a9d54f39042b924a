"""All stream jobs as one application beside the sum of the jobs run alone: what sharing a source and a state saves."""

from __future__ import annotations

from infra.bench.report import Row, Sample
from infra.bench.stream_cases import running
from infra.bench.streams import amount_of, filling, progress_bar
from jobs.streaming.application import JOBS
from schemas.topics import AD_EVENTS


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """One row in CPU-seconds; `scale` is the share of 5 M events."""
    amount = amount_of(scale)
    alone: dict[str, list[float]] = {name: [] for name in JOBS}
    samples: list[Sample] = []
    with running() as cluster, progress_bar() as progress:
        filling(progress, amount, (AD_EVENTS.name,))
        runs = progress.add_task("runs", total=(pairs + 1) * (len(JOBS) + 1))

        def cpu_s(case: str) -> float:
            used_s = cluster.run(case).cpu_s
            progress.update(runs, advance=1, description=f"{case}: {used_s:.1f} CPU-s")
            return used_s

        for pair in range(-1, pairs):  # the first round warms the JVM up and belongs to nobody
            together_s = cpu_s("all jobs") if pair % 2 == 0 else 0.0
            each_s = {name: cpu_s(f"job {name}") for name in JOBS}
            together_s = together_s or cpu_s("all jobs")
            if pair >= 0:
                samples.append((together_s, sum(each_s.values())))
                for name, used_s in each_s.items():
                    alone[name].append(used_s)
    rows = [Row("all jobs as one application / the sum of the jobs alone", "CPU-s", tuple(samples))]
    rows += [Row(f"{name} alone", "CPU-s", tuple((s, None) for s in used)) for name, used in alone.items()]
    return rows, [f"{amount.events:,} events, {amount.users:,} users, every event deduplicated"]
