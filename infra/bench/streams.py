"""Stream jobs beside plain Flink SQL: events per CPU-second of one TaskManager, over a bounded topic.

The Yahoo query (filter the views, ad to campaign, count by campaign in 10 s windows) is written as one would write it
in plain Flink SQL, over JSON of the same events, at least once, without deduplication; and once more over the seven
short fields of the Yahoo benchmark, a quarter of an event. Ours reads the full AdEvent in Avro, counts every column of
campaign-metrics-v1 by 16 dimensions, exactly once. The Nexmark shapes are its queries 18 (deduplication), 11 (sessions)
13 (side join) and 15 (distinct users) over the same JSON. Ours of query 13 is how attribution finds the look-back of a
click's or an impression's advertiser; what an event says about its ad, the publisher has looked up before.
Source: Chintapalli et al., 2016; Nexmark, Tucker et al., 2008, in the wording of github.com/nexmark/nexmark.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from infra.bench.report import Row
from infra.bench.stream_cases import HEAP_MB, running
from infra.bench.stream_input import TOPICS, YAHOO_MIX, Amount, Mix, fill
from schemas.errors import ConfigError

EVENTS = 5_000_000
USERS = 500_000

#: Row to (ours, beside).
ROWS: dict[str, tuple[str, str]] = {
    "campaign_metrics without deduplication / Yahoo query": ("metrics", "yahoo"),
    "campaign_metrics deduplicating what it counts (views) / Yahoo query": ("metrics, views deduplicated", "yahoo"),
    "campaign_metrics deduplicating every event / Yahoo query": ("metrics, all deduplicated", "yahoo"),
    "deduplication / Nexmark q18": ("deduplication", "nexmark q18"),
    "sessions of ads, deduplicated / Nexmark q11": ("sessions", "nexmark q11"),
    "side join (touches with their look-back) / Nexmark q13": ("touches", "nexmark q13"),
    "distinct users (metrics with reach) / Nexmark q15": ("metrics", "nexmark q15"),
    "campaign_metrics without deduplication / Yahoo query over 7 fields": ("metrics", "yahoo, 7 fields"),
    "campaign_metrics deduplicating every event / Yahoo query over 7 fields": (
        "metrics, all deduplicated",
        "yahoo, 7 fields",
    ),
}
#: Whose state is reported, ours and beside.
_STATE_OF = ("metrics, all deduplicated", "nexmark q18")


def chosen_rows(rows: Mapping[str, Any], only: str) -> dict[str, Any]:
    """Those whose name contains `only`. Errors: ConfigError, none does."""
    chosen = {what: row for what, row in rows.items() if only in what}
    if not chosen:
        raise ConfigError(f"no row's name contains {only!r}; there are: {'; '.join(rows)}")
    return chosen


def amount_of(scale: float, events: int = EVENTS) -> Amount:
    """Events, and a tenth as many users."""
    return Amount(max(int(events * scale), 1_000), max(int(events * scale) // 10, 100))


def run(pairs: int, scale: float, only: str = "") -> tuple[list[Row], list[str]]:
    """Rows and notes; `scale` is the share of 5 M events, `only` part of the names of the rows that are wanted.

    Errors: ConfigError, no row has such a name.
    """
    chosen = chosen_rows(ROWS, only)
    amount = amount_of(scale)
    names = list(dict.fromkeys(name for row in chosen.values() for name in row))
    rates: dict[str, list[float]] = {name: [] for name in names}
    state: dict[str, float] = {}
    with running() as cluster, progress_bar() as progress:
        filling(progress, amount)
        runs = progress.add_task("runs", total=(pairs + 1) * len(names))
        for pair in range(-1, pairs):  # the first round warms the JVM up and belongs to nobody
            for name in names if pair % 2 == 0 else reversed(names):
                done = cluster.run(name)
                if pair >= 0:
                    rates[name].append(amount.events / done.cpu_s)
                    state[name] = done.state_bytes / amount.events
                progress.update(runs, advance=1, description=f"{name}: {amount.events / done.cpu_s:,.0f}/CPU-s")
    rows = [
        Row(what, "events/CPU-s", tuple(zip(rates[ours], rates[beside], strict=True)))
        for what, (ours, beside) in chosen.items()
    ]
    if state.keys() >= set(_STATE_OF):
        ours, beside = (state[name] for name in _STATE_OF)
        rows.append(Row("state of deduplication", "bytes/event", ((ours, beside),)))
    return rows, [f"{amount.events:,} events, {amount.users:,} users, 2 subtasks, heap {HEAP_MB} MB, checkpoints 10 s"]


def filling(
    progress: Progress, amount: Amount, topics: Collection[str] = TOPICS, skip: int = 0, mix: Mix = YAHOO_MIX
) -> None:
    """Fills topics up to `amount`, of which `skip` events are there."""
    task: TaskID = progress.add_task("writing events", total=amount.events)
    fill(amount, lambda written: progress.update(task, completed=written), topics=topics, skip=skip, mix=mix)
    progress.update(task, completed=amount.events)


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=True
    )
