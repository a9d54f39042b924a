"""`python -m infra.monitoring.flink_metrics`: Flink's metrics for Prometheus, on loopback.

Flink's own Prometheus reporter listens on every interface and can't be told otherwise, so this asks the REST door,
anew for each scrape, and renders what an operator watches: the cluster's parts, checkpoints and restarts of each
deployment, and where its tasks spend their time. One process for the whole cluster, nothing kept.
Units are in the names; `_total` counts since the part was started.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.endpoints import endpoints
from connectors.flink.rest import FlinkRest
from connectors.logs import configure_logging
from connectors.worker_http import WorkerProcess, run_worker
from schemas.errors import ConnectorError

log = logging.getLogger(__name__)

_PER_MS = 1e-3
_PER_NS = 1e-9


@dataclass(frozen=True, slots=True)
class _Shown:
    """One of Flink's metrics under the name and in the unit that Prometheus wants."""

    flinks: str
    name: str
    about: str
    scale: float = 1.0

    def family(self, *labels: str) -> GaugeMetricFamily | CounterMetricFamily:
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return kind(self.name, self.about, labels=labels)


#: Of the JobManager and of every TaskManager.
_JVM = (
    _Shown("Status.JVM.Memory.Heap.Used", "flink_jvm_heap_used_bytes", "heap in use"),
    _Shown("Status.JVM.Memory.Heap.Max", "flink_jvm_heap_max_bytes", "heap allowed"),
    _Shown("Status.JVM.Memory.Metaspace.Used", "flink_jvm_metaspace_used_bytes", "classes; grows with submissions"),
    _Shown("Status.JVM.Memory.Direct.MemoryUsed", "flink_jvm_direct_used_bytes", "direct buffers"),
    _Shown("Status.JVM.CPU.Time", "flink_jvm_cpu_seconds_total", "CPU time of the process", _PER_NS),
    _Shown("Status.JVM.GarbageCollector.All.Time", "flink_jvm_gc_seconds_total", "garbage collection", _PER_MS),
    _Shown("Status.JVM.Threads.Count", "flink_jvm_threads", "threads"),
)
#: Of a deployment.
_JOB = (
    _Shown("numRestarts", "flink_job_restarts_total", "restarts after a failure since it was submitted"),
    _Shown("numberOfCompletedCheckpoints", "flink_job_checkpoints_completed_total", "checkpoints completed"),
    _Shown("numberOfFailedCheckpoints", "flink_job_checkpoints_failed_total", "checkpoints failed"),
    _Shown("lastCheckpointDuration", "flink_job_last_checkpoint_seconds", "trigger to completion", _PER_MS),
    _Shown("lastCheckpointSize", "flink_job_last_checkpoint_bytes", "written by the last checkpoint"),
    _Shown("lastCheckpointFullSize", "flink_job_state_bytes", "state that the last checkpoint refers to"),
)
#: Of a task, as the REST door sums them up over its subtasks.
_TASK = (
    _Shown("read-records", "flink_task_records_in_total", "records read"),
    _Shown("write-records", "flink_task_records_out_total", "records written"),
    _Shown("read-bytes", "flink_task_bytes_in_total", "bytes read"),
    _Shown("write-bytes", "flink_task_bytes_out_total", "bytes written"),
    _Shown("accumulated-busy-time", "flink_task_busy_seconds_total", "time at work", _PER_MS),
    _Shown("accumulated-idle-time", "flink_task_idle_seconds_total", "time without input", _PER_MS),
    _Shown(
        "accumulated-backpressured-time",
        "flink_task_backpressured_seconds_total",
        "time waiting for its outputs",
        _PER_MS,
    ),
)
#: Of the operators in a task: how the names of some of their metrics end, which are summed up.
_OPERATORS = (
    _Shown(
        "numLateRecordsDropped",
        "flink_task_late_records_dropped_total",
        "rows behind the watermark that windows left out",
    ),
    _Shown("undecodable", "flink_task_undecodable_total", "records that do not decode; the lake has the dead letters"),
    _Shown("ad_events_dlq__Writer.numRecordsSend", "flink_task_dead_letters_total", "events that break a rule"),
)
_WATERMARK = "currentInputWatermark"
#: Values below this are Flink's "no watermark yet".
_NO_WATERMARK_MS = 0
_TASK_NAME_CHARACTERS = 80


class FlinkCollector(Collector):
    """Flink's metrics at the moment of the scrape. `flink_up` is 0, and alone, when the REST door does not answer."""

    def __init__(self, rest: FlinkRest) -> None:
        self._rest = rest
        self._one_at_a_time = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._one_at_a_time:
            up = GaugeMetricFamily("flink_up", "whether Flink's REST door answers")
            try:
                found = [*self._cluster(), *self._jobs()]
            except ConnectorError as e:
                log.warning("not scraped", extra={"error": str(e)})
                found = []
            up.add_metric([], 1.0 if found else 0.0)
            return [up, *found]

    def _cluster(self) -> Iterator[Metric]:
        overview = self._rest.get("/overview")
        yield GaugeMetricFamily("flink_taskmanagers", "registered TaskManagers", overview["taskmanagers"])
        yield GaugeMetricFamily("flink_slots", "slots of all TaskManagers", overview["slots-total"])
        yield GaugeMetricFamily("flink_slots_available", "slots without a task", overview["slots-available"])
        parts = {"jobmanager": "/jobmanager"}
        for manager in self._rest.get("/taskmanagers")["taskmanagers"]:
            parts[manager["id"]] = f"/taskmanagers/{manager['id']}"
        names = [shown.flinks for shown in _JVM]
        values = {part: self._metrics(path, names) for part, path in parts.items()}
        for shown in _JVM:
            family = shown.family("part")
            for part, of_part in values.items():
                if shown.flinks in of_part:
                    family.add_metric([part], of_part[shown.flinks] * shown.scale)
            yield family

    def _jobs(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("flink_job_running", "1 when every task of it runs", labels=["job"])
        families = {shown: shown.family("job") for shown in _JOB}
        age = GaugeMetricFamily("flink_job_checkpoint_age_seconds", "since one last completed", labels=["job"])
        tasks = {shown: shown.family("job", "task") for shown in _TASK}
        operators = {shown: shown.family("job", "task") for shown in _OPERATORS}
        watermark = GaugeMetricFamily(
            "flink_task_watermark_timestamp_seconds", "the time that a task has reached", labels=["job", "task"]
        )
        for deployment in self._rest.live():
            path, name = f"/jobs/{deployment.job_id}", deployment.name
            job = self._rest.get(path)
            running = all(vertex["status"] == "RUNNING" for vertex in job["vertices"])
            state.add_metric([name], float(running))
            values = self._metrics(path, [shown.flinks for shown in _JOB])
            for shown, family in families.items():
                if shown.flinks in values:
                    family.add_metric([name], values[shown.flinks] * shown.scale)
            latest = self._rest.checkpoints(deployment.job_id)["latest"]["completed"]
            if latest is not None:
                age.add_metric([name], max(0.0, time.time() - latest["latest_ack_timestamp"] * _PER_MS))
            for vertex in job["vertices"]:
                labels = [name, _task_name(vertex)]
                for shown, family in tasks.items():
                    value = _number(vertex["metrics"].get(shown.flinks))
                    if value is not None:
                        family.add_metric(labels, value * shown.scale)
                for shown, value in self._of_operators(path, vertex).items():
                    operators[shown].add_metric(labels, value)
                reached_ms = self._watermark_ms(path, vertex)
                if reached_ms is not None:
                    watermark.add_metric(labels, reached_ms * _PER_MS)
        yield from (state, *families.values(), age, *tasks.values(), *operators.values(), watermark)

    def _of_operators(self, job: str, vertex: dict[str, Any]) -> dict[_Shown, float]:
        """Sums over a task's operators and subtasks, of what any of them counts."""
        path = f"{job}/vertices/{vertex['id']}/subtasks/metrics"
        # operators are numbered in their names: `ad_events_dlq[41]__Writer`
        names = {metric["id"]: "." + re.sub(r"\[\d+\]", "", metric["id"]) for metric in self._rest.get(path)}
        found = {
            shown: [name for name, bare in names.items() if bare.endswith("." + shown.flinks)] for shown in _OPERATORS
        }
        wanted = ",".join(name for some in found.values() for name in some)
        if not wanted:
            return {}
        sums = {metric["id"]: metric["sum"] for metric in self._rest.get(path, get=wanted, agg="sum")}
        return {shown: sum(sums.get(name, 0.0) for name in some) for shown, some in found.items() if some}

    def _watermark_ms(self, job: str, vertex: dict[str, Any]) -> float | None:
        """The lowest of a task's subtasks, None while one has none."""
        names = [f"{subtask}.{_WATERMARK}" for subtask in range(vertex["parallelism"])]
        values = self._metrics(f"{job}/vertices/{vertex['id']}", names)
        lowest = min(values.values(), default=-1.0)
        return lowest if len(values) == len(names) and lowest > _NO_WATERMARK_MS else None

    def _metrics(self, path: str, names: list[str]) -> dict[str, float]:
        """Those of the named metrics that have a value."""
        answer = self._rest.get(f"{path}/metrics", get=",".join(names))
        values = {metric["id"]: _number(metric.get("value")) for metric in answer}
        return {name: value for name, value in values.items() if value is not None}


class FlinkMetricsWorker:
    """Nothing to do between scrapes: it waits to be stopped."""

    def __init__(self, rest: FlinkRest) -> None:
        self._rest = rest
        self._over = threading.Event()

    def run(self) -> None:
        self._over.wait()

    def stop(self) -> None:
        self._over.set()

    def status(self) -> dict[str, Any]:
        try:
            self._rest.task_slots()
        except ConnectorError as e:
            return {"ready": False, "error": str(e)}
        return {"ready": True}


def _number(value: object) -> float | None:
    """A metric's value; None for what is no number yet (Flink answers 'NaN', '' or nothing)."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return None if number != number else number


def _task_name(vertex: dict[str, Any]) -> str:
    """What a task does, short enough for a label and stable between submissions.

    Example:
    >>> _task_name({"name": "Source: KafkaSource-default_catalog.default_database.ad_events -> Calc[2] -> x"})
    'Source: KafkaSource-ad_events -> Calc -> x'
    """
    name = re.sub(r"\[\d+\]", "", vertex["name"].replace("default_catalog.default_database.", ""))
    return name[:_TASK_NAME_CHARACTERS]


def _build() -> WorkerProcess:
    where = endpoints()
    rest = FlinkRest(where.flink_rest_url)
    metrics = CollectorRegistry()
    metrics.register(FlinkCollector(rest))
    return WorkerProcess(FlinkMetricsWorker(rest), where, metrics, where.port("flink_prometheus"))


def main() -> int:
    """Exit code: as `run_worker`."""
    configure_logging("flink-metrics")
    return run_worker(_build)


if __name__ == "__main__":
    sys.exit(main())
