"""Outputs of the stream jobs over some events, in one Flink in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from connectors.flink.session import streaming_session
from jobs.streaming.application import JOBS
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, select_statement
from jobs.streaming.views import DECISIONS, views
from jobs.transforms.event_rules import Event
from tests.samples import counted
from tests.samples.bounded_source import json_line, source_ddl, source_row


def rows_of(
    events: Iterable[Event], settings: Settings, path: Path, tables: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    """Rows of logical tables, in the order in which Flink gives them, over complete events in the order given;
    of the counters' tables what they write.

    Time goes on with the publish times alone. `path` is where the events are put. Tables that need decisions can't be
    asked for.
    """
    path.write_text("".join(json_line(source_row(event)) for event in events))
    jobs = [build(settings) for build in JOBS.values()]
    # RocksDB, because it writes and reads every state, where the heap would hand back the same objects
    session = streaming_session({"parallelism.default": "1", "state.backend.type": "rocksdb"}, counted.java())
    session.execute_sql(source_ddl(path, settings))
    own = [view for job in jobs for view in job.views if DECISIONS not in view.query]
    for view in (*views(jobs, settings), *own):
        # without the clock, whose watermark holds that of the events back for as long as it takes to end
        query = "SELECT * FROM events" if view.name == "timed_events" else view.query
        session.execute_sql(f"CREATE TEMPORARY VIEW `{view.name}` AS {query}")
    found = {}
    for output in (output for job in jobs for output in job.outputs if output.table in tables):
        if SINKS[output.table].kind == "counted":
            found[output.table] = counted.counted_rows(session, output, settings, path.parent)
            continue
        names = [column.name for column in SINKS[output.table].columns]
        with session.execute_sql(select_statement(output)).collect() as rows:
            found[output.table] = [dict(zip(names, values, strict=True)) for values in rows]
    return found
