"""What the stream benchmarks run: our jobs and plain Flink SQL, by name, each in a process of its own.

A process of its own, so that no case plans with what another has left in PyFlink's JVM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from connectors.endpoints import Endpoints
from connectors.flink.rest import FlinkRest
from connectors.kafka import create_topics
from infra.bench.flink_runs import SETTINGS, Bench, Run
from infra.bench.plain_sql import NEXMARK, SIDE_KEYS, YAHOO, PlainQuery, source_ddl
from infra.bench.services import services
from infra.bench.stream_input import JSON_TOPIC, YAHOO_TOPIC
from jobs.streaming import attribution
from jobs.streaming.application import JOBS
from jobs.streaming.job import View, id_text
from schemas.topics import Topic

#: State of millions of ads and of every event's id, on both sides.
HEAP_MB = 8_000

Case = Callable[[Bench], Run]

_EVENTS_SINK = (
    "CREATE TEMPORARY TABLE nothing "
    "(user_id STRING, ad_id STRING, page_id STRING, event_type STRING, event_time BIGINT) "
    "WITH ('connector' = 'blackhole')"
)
_DEDUPLICATED = View(
    "first_copies",
    f"SELECT {id_text('user_pseudonym')} AS user_pseudonym, creative_id, placement_id, event_type, event_time_ms "
    "FROM deduplicated_events",
)
_SESSIONS_SINK = (
    "CREATE TEMPORARY TABLE nothing (record_id STRING, events BIGINT, s BIGINT, e BIGINT) "
    "WITH ('connector' = 'blackhole')"
)
_SESSIONS = "INSERT INTO nothing SELECT record_id, events, first_event_time_ms, last_event_time_ms FROM closed_sessions"
_TOUCHES_SINK = (
    "CREATE TEMPORARY TABLE nothing (user_id STRING, ad_id STRING, page_id STRING, event_time BIGINT, number BIGINT) "
    "WITH ('connector' = 'blackhole')"
)
_LOOKBACKS = attribution.lookbacks(
    SETTINGS.model_copy(
        update={"attribution_lookbacks_s": {f"adv-{n:02d}": (86_400 + n, 3_600 + n) for n in range(SIDE_KEYS)}}
    )
)
_TOUCHES = View(
    "touches",
    f"SELECT {id_text('user_pseudonym')} AS user_pseudonym, creative_id, placement_id, event_time_ms, "
    f"touch_lookback_s('{_LOOKBACKS}', advertiser_id, event_type) AS lookback_s "
    "FROM deduplicated_events WHERE event_type IN ('impression', 'click')",
)


def _plain(query: PlainQuery, topic: str) -> Case:
    return lambda bench: bench.plain([source_ddl(bench.where, topic), *query.ddl(bench.where)], query.insert)


def _alone(job: str) -> Case:
    return lambda bench: bench.jobs([job])


CASES: dict[str, Case] = {
    "yahoo": _plain(YAHOO, JSON_TOPIC),
    "yahoo, 7 fields": _plain(YAHOO, YAHOO_TOPIC),
    "metrics": lambda bench: bench.jobs(["campaign_metrics"], deduplicate=False),
    "metrics, views deduplicated": lambda bench: bench.jobs(["campaign_metrics"], event_types=("impression",)),
    "metrics, all deduplicated": lambda bench: bench.jobs(["campaign_metrics"]),
    "deduplication": lambda bench: bench.own_query(
        ["campaign_metrics"], [_EVENTS_SINK], "INSERT INTO nothing SELECT * FROM first_copies", _DEDUPLICATED
    ),
    "sessions": lambda bench: bench.own_query(["ad_sessions"], [_SESSIONS_SINK], _SESSIONS),
    "touches": lambda bench: bench.own_query(
        ["attribution"], [_TOUCHES_SINK], "INSERT INTO nothing SELECT * FROM touches", _TOUCHES, deduplicate=False
    ),
    "all jobs": lambda bench: bench.jobs(list(JOBS)),
    **{f"job {name}": _alone(name) for name in JOBS},
    **{f"nexmark {name}": _plain(query, JSON_TOPIC) for name, query in NEXMARK.items()},
}


class Runner:
    """Runs cases on the services of `running`, one at a time."""

    def __init__(self, where: Endpoints) -> None:
        self._where = where
        self._processes: dict[str, ProcessPoolExecutor] = {}

    def run(self, case: str) -> Run:
        """A bounded run over all that the topics hold. Errors: RuntimeError, whatever the case raised."""
        process = self._processes.get(case)
        if process is None:
            process = self._processes[case] = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return process.submit(_run, case, self._where).result()

    def close(self) -> None:
        for process in self._processes.values():
            process.shutdown()


def _run(case: str, where: Endpoints) -> Run:
    try:
        with FlinkRest() as rest:
            return CASES[case](Bench(where, rest))
    except Exception as e:  # what Py4J raises can't be handed to another process
        raise RuntimeError(f"{case}: {e}") from None


@contextmanager
def running() -> Iterator[Runner]:
    """A broker, a registry and a cluster with the topics of all cases, empty at first; all gone afterwards."""
    os.environ["HEADWATER_FLINK_TASK_HEAP_MB"] = str(HEAP_MB)
    with services(("contracts", "flink-taskmanager")) as where:
        create_topics(
            [
                *(Topic(name, "bench", "user", None, (), ()) for name in (JSON_TOPIC, YAHOO_TOPIC)),
                Topic(YAHOO.topic, "bench", "", None, (), ()),
            ]
        )
        runner = Runner(where)
        try:
            yield runner
        finally:
            runner.close()
