"""`headwater bench NAME`: one benchmark, or all of them."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from infra.bench import report
from infra.cli.exits import Exit, fail, guarded

#: Benchmark to its module in infra/bench, which has `run(pairs, scale) -> (rows, notes)`, and one line of help.
BENCHMARKS: dict[str, tuple[str, str]] = {
    "streams": ("infra.bench.streams", "stream jobs beside plain Flink SQL: the Yahoo query and Nexmark's shapes"),
    "together": ("infra.bench.together", "all stream jobs as one application beside the sum of the jobs alone"),
    "growth": ("infra.bench.growth", "cost of an event at two and four times the events and users"),
    "freshness": ("infra.bench.freshness", "event to Valkey and to Druid while events come at half the drain rate"),
    "adserver": ("infra.bench.adserver", "CPU per auction and own latency beside FastAPI, httpx, redis-py, LightGBM"),
    "publisher": ("infra.bench.publisher", "the publisher beside a straightforward loop of stock clients"),
    "scoring": ("infra.bench.scoring", "a request's candidates scored, beside LightGBM's own ways to predict"),
    "features": ("infra.bench.features", "a request's features read and put together, beside a dict per candidate"),
    "budget": ("infra.bench.budget", "money and caps under kills and replays; a win beside WATCH/MULTI"),
    "user_bytes": ("infra.bench.user_bytes", "bytes of Valkey per active user beside a field per counter"),
}
#: Those of which a part can be run.
_WITH_PARTS = ("streams", "together")


@guarded
def bench(
    name: Annotated[str, typer.Argument(help=f"{', '.join(BENCHMARKS)}, or all", show_default=False)],
    pairs: Annotated[int, typer.Option(help="Pairs of runs, ours and what it is measured beside.", min=1)] = 5,
    scale: Annotated[
        float, typer.Option(help="Share of the full number of events; less than 1 is a try, not a result.", min=0.001)
    ] = 1.0,
    only: Annotated[
        str,
        typer.Option(help="streams, together: only rows whose name contains this; all of them take half an hour."),
    ] = "",
) -> None:
    """Measure ours beside the straightforward way, in one run; prints a table and writes build/bench/NAME.json."""
    if name != "all" and name not in BENCHMARKS:
        raise fail(f"no such benchmark: {name}; there are {', '.join(BENCHMARKS)} and all", Exit.MISUSED)
    if only and name not in _WITH_PARTS:
        raise fail(f"--only is for {' and '.join(_WITH_PARTS)}", Exit.MISUSED)
    chosen = {"only": only} if only else {}
    for each in BENCHMARKS if name == "all" else (name,):
        rows, notes = importlib.import_module(BENCHMARKS[each][0]).run(pairs, scale, **chosen)
        report.show(each, rows, notes)
        print(f"written: {report.write(each, rows, notes)}")
