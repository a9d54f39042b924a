"""Stream jobs beside plain Flink SQL: events per CPU-second of one TaskManager, over a bounded topic.

The Yahoo query (filter the views, ad to campaign, count by campaign in 10 s windows) is written as one would write it
in plain Flink SQL, over JSON of the same events, at least once, without deduplication. Ours reads the full AdEvent in
Avro, counts every column of campaign-metrics-v1 by 16 dimensions, exactly once. The Nexmark shapes are its queries 18
(deduplication), 11 (sessions) and 15 (distinct users) over the same JSON. Query 13, a side join, has no
counterpart: what an event says about its ad is looked up once, by the publisher (`headwater bench publisher`).
All cases are of one deployment: a process sees the Java of one only, so sessions (query 11) have no
row yet.
Source: Chintapalli et al., 2016; Nexmark, Tucker et al., 2008, in the wording of github.com/nexmark/nexmark.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connectors.flink.rest import FlinkRest
from connectors.kafka import create_topics
from infra.bench.flink_runs import Bench, Run
from infra.bench.plain_sql import NEXMARK, YAHOO, PlainQuery, source_ddl
from infra.bench.report import Row
from infra.bench.services import services
from infra.bench.stream_input import YAHOO_TOPIC, Amount, fill
from schemas.topics import Topic

EVENTS = 5_000_000
USERS = 500_000
#: State of millions of ads and of every event's id, on both sides.
HEAP_MB = 4_000

Case = Callable[[Bench], Run]

_EVENTS_SINK = (
    "CREATE TEMPORARY TABLE nothing "
    "(user_id STRING, ad_id STRING, page_id STRING, event_type STRING, event_time BIGINT) "
    "WITH ('connector' = 'blackhole')"
)
_DEDUPLICATED = (
    "INSERT INTO nothing SELECT user_pseudonym, creative_id, placement_id, event_type, event_time_ms "
    "FROM deduplicated_events"
)


def _plain(query: PlainQuery) -> Case:
    return lambda bench: bench.plain([source_ddl(bench.where), *query.ddl(bench.where)], query.insert)


CASES: dict[str, Case] = {
    "yahoo": _plain(YAHOO),
    "metrics": lambda bench: bench.jobs(["campaign_metrics"], deduplicate=False),
    "metrics, views deduplicated": lambda bench: bench.jobs(["campaign_metrics"], event_types=("impression",)),
    "metrics, all deduplicated": lambda bench: bench.jobs(["campaign_metrics"]),
    "deduplication": lambda bench: bench.own_query(["campaign_metrics"], [_EVENTS_SINK], _DEDUPLICATED),
    **{f"nexmark {name}": _plain(query) for name, query in NEXMARK.items()},
}

#: Row to (ours, beside).
ROWS: dict[str, tuple[str, str]] = {
    "campaign_metrics without deduplication / Yahoo query": ("metrics", "yahoo"),
    "campaign_metrics deduplicating what it counts (views) / Yahoo query": ("metrics, views deduplicated", "yahoo"),
    "campaign_metrics deduplicating every event / Yahoo query": ("metrics, all deduplicated", "yahoo"),
    "deduplication / Nexmark q18": ("deduplication", "nexmark q18"),
    "distinct users (metrics with reach) / Nexmark q15": ("metrics", "nexmark q15"),
}


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """Rows and notes; `scale` is the share of 5 M events."""
    os.environ["HEADWATER_FLINK_TASK_HEAP_MB"] = str(HEAP_MB)
    amount = Amount(max(int(EVENTS * scale), 1_000), max(int(USERS * scale), 100))
    with services(("contracts", "flink-taskmanager")) as where, _progress() as progress, FlinkRest() as rest:
        create_topics(
            [Topic(YAHOO_TOPIC, "bench", "user", None, (), ()), Topic(YAHOO.topic, "bench", "", None, (), ())]
        )
        filling = progress.add_task("writing events", total=amount.events)
        fill(amount, lambda written: progress.update(filling, completed=written))
        progress.update(filling, completed=amount.events)
        bench = Bench(where, rest, amount.events)
        names = list(dict.fromkeys(name for row in ROWS.values() for name in row))
        runs = progress.add_task("runs", total=pairs * len(names) + 2)
        for name in ("yahoo", "metrics"):  # the JVM's own warm-up belongs to nobody
            CASES[name](bench)
            progress.advance(runs)
        rates: dict[str, list[float]] = {name: [] for name in names}
        state: dict[str, float] = {}
        for pair in range(pairs):
            for name in names if pair % 2 == 0 else reversed(names):
                done = CASES[name](bench)
                rates[name].append(amount.events / done.cpu_s)
                state[name] = done.state_bytes / amount.events
                progress.update(runs, advance=1, description=f"{name}: {rates[name][-1]:,.0f}/CPU-s")
    rows = [
        Row(what, "events/CPU-s", tuple(zip(rates[ours], rates[beside], strict=True)))
        for what, (ours, beside) in ROWS.items()
    ]
    rows.append(
        Row("state of deduplication", "bytes/event", ((state["metrics, all deduplicated"], state["nexmark q18"]),))
    )
    return rows, [f"{amount.events:,} events, {amount.users:,} users, 2 subtasks, heap state, checkpoints every 10 s"]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=True
    )
