"""Druid's doors: SQL for readers, supervisors for ingestion, pydruid for analysts.

Run: `python -m connectors.druid ensure` creates or updates the supervisors; it may be run at any time.
     `python -m connectors.druid status` prints how far each has read, `handoff` publishes what is in memory.

Every method blocks for at most the client's timeout (`declare_columns` also waits for a task), raises only
`ConnectorError`s, and may be called from several threads. Reads may be repeated; so may `ensure_supervisor`,
`declare_columns` and `handoff`.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from connectors import druid_specs
from connectors.endpoints import Endpoints, endpoints
from schemas.errors import ConnectorError, Refused, TimedOut, Unavailable

if TYPE_CHECKING:
    from pydruid.client import PyDruid

log = logging.getLogger(__name__)

Value = str | int | float | bool | None
Row = dict[str, Value]
Parameter = str | int | float | datetime

#: What Druid says of a datasource that has no segment yet: no error to a reader, there is just nothing in it.
_NO_SUCH_TABLE = re.compile(r"Object '[^']*' not found")

#: How long a task of one row is waited for.
_TASK_S = 120.0
_POLL_S = 0.2

#: How much longer than a query may take its answer is waited for: Druid's own word on a time-out says more than ours.
_GRACE_S = 1.0

_SQL_TYPES: dict[type, str] = {bool: "BOOLEAN", str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """How a supervisor does. `offsets`: next Kafka offset of each partition that its tasks will read, where known.

    Druid refreshes `offsets` every few seconds: they may lag behind the truth, and never run ahead of it.
    """

    supervisor_id: str
    topic: str
    state: str
    healthy: bool
    suspended: bool
    reading_task_ids: tuple[str, ...]
    publishing_task_ids: tuple[str, ...]
    offsets: Mapping[int, int]
    recent_errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """What a reading task itself says: its state (READING, PAUSED, PUBLISHING, ...) and next offset by partition."""

    task_id: str
    state: str
    offsets: Mapping[int, int]


class DruidClient:
    """Druid over HTTP: SQL at the broker, ingestion at the coordinator (which is the overlord too)."""

    def __init__(
        self,
        broker_url: str,
        coordinator_url: str,
        *,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._broker_url = broker_url
        self._coordinator_url = coordinator_url
        self._timeout_s = timeout_s
        # trust_env off: an analyst's proxy settings must not catch calls inside the platform
        self._http = httpx.Client(timeout=timeout_s + _GRACE_S, transport=transport, trust_env=False)

    @classmethod
    def of(cls, settings: Endpoints, *, timeout_s: float = 10.0) -> DruidClient:
        """A client of this stack's Druid."""
        return cls(settings.druid_broker_url, settings.druid_coordinator_url, timeout_s=timeout_s)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> DruidClient:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self.close()

    # --- reading

    def sql(self, query: str, parameters: Sequence[Parameter] = ()) -> list[Row]:
        """The rows of a query, columns by name; `?` in the query takes the parameters in turn.

        Shape: BIGINT is int, DOUBLE float, TIMESTAMP an ISO 8601 string in UTC. A datasource that has no segment yet
        has no rows.
        Errors: Refused (the query is wrong), TimedOut, Unavailable.
        """
        body = {
            "query": query,
            "parameters": [_parameter(value) for value in parameters],
            "resultFormat": "object",
            "context": {"timeout": int(self._timeout_s * 1000), "sqlTimeZone": "UTC"},
        }
        try:
            return self._call("POST", self._broker_url, "/druid/v2/sql", body)
        except Refused as error:
            if _NO_SUCH_TABLE.search(str(error)):
                return []
            raise

    def ready(self) -> bool:
        """Whether SQL is answered and an overlord leads: Druid can be read and told to ingest."""
        try:
            self.sql("SELECT 1 AS answer")
            return bool(self._call("GET", self._coordinator_url, "/druid/indexer/v1/isLeader")["leader"])
        except ConnectorError:
            return False

    # --- ingestion

    def ensure_supervisor(self, spec: druid_specs.Spec) -> bool:
        """Makes the supervisor what `spec` says; True when it had to be created or changed.

        An unchanged spec is not sent, for Druid restarts a supervisor's tasks at each one.
        """
        supervisor_id = spec["spec"]["dataSchema"]["dataSource"]
        if self._fingerprint_of(supervisor_id) == spec["context"][druid_specs.FINGERPRINT]:
            return False
        self._call("POST", self._coordinator_url, "/druid/indexer/v1/supervisor", spec)
        return True

    def declare_columns(self, spec: druid_specs.Spec) -> bool:
        """Makes the columns of a supervisor's datasource known to SQL, whatever is ingested; True when they were not.

        See `druid_specs.columns_task`. Errors: also Refused when the task fails, TimedOut.
        """
        asked = {
            "queryType": "segmentMetadata",
            "dataSource": spec["spec"]["dataSchema"]["dataSource"],
            "intervals": [druid_specs.COLUMNS_INTERVAL],
            "merge": True,
            "analysisTypes": [],
        }
        known = self._call("POST", self._broker_url, "/druid/v2", asked)
        if known and druid_specs.columns_of(spec) <= set(known[0]["columns"]):
            return False
        tasks = "/druid/indexer/v1/task"
        task_id = self._call("POST", self._coordinator_url, tasks, druid_specs.columns_task(spec))["task"]
        deadline = time.monotonic() + _TASK_S
        while True:
            status = self._call("GET", self._coordinator_url, f"{tasks}/{task_id}/status")["status"]
            if status["status"] == "SUCCESS":
                return True
            if status["status"] == "FAILED":
                raise Refused(f"Druid task {task_id}: {status.get('errorMsg')}")
            if time.monotonic() > deadline:
                raise TimedOut(f"Druid task {task_id}: still {status['status']} after {_TASK_S:g} s")
            time.sleep(_POLL_S)

    def _fingerprint_of(self, supervisor_id: str) -> str | None:
        if supervisor_id not in self.supervisor_ids():
            return None
        path = f"/druid/indexer/v1/supervisor/{supervisor_id}"
        context = self._call("GET", self._coordinator_url, path).get("context") or {}
        return context.get(druid_specs.FINGERPRINT)

    def supervisor_ids(self) -> list[str]:
        """Ids of the supervisors that Druid runs."""
        return self._call("GET", self._coordinator_url, "/druid/indexer/v1/supervisor")

    def supervisor_status(self, supervisor_id: str) -> SupervisorStatus:
        """How a supervisor does. Errors: Refused when there is none of this id."""
        path = f"/druid/indexer/v1/supervisor/{supervisor_id}/status"
        payload = self._call("GET", self._coordinator_url, path)["payload"]
        offsets: dict[int, int] = {}
        for task in payload.get("activeTasks", ()):
            offsets |= _offsets(task.get("currentOffsets"))
        return SupervisorStatus(
            supervisor_id=supervisor_id,
            topic=payload["stream"],
            state=payload["detailedState"],
            healthy=payload["healthy"],
            suspended=payload["suspended"],
            reading_task_ids=tuple(task["id"] for task in payload.get("activeTasks", ())),
            publishing_task_ids=tuple(task["id"] for task in payload.get("publishingTasks", ())),
            offsets=offsets,
            recent_errors=tuple(str(error.get("message", "")) for error in payload.get("recentErrors", ())),
        )

    def reading_tasks(self, supervisor_id: str) -> list[TaskProgress]:
        """What the supervisor's reading tasks say right now; a task that does not answer yet is left out.

        Asked of the tasks themselves, for after a crash the supervisor's own view is seconds old.
        """
        answers = []
        for task_id in self.supervisor_status(supervisor_id).reading_task_ids:
            try:
                path = f"/druid/indexer/v1/task/{task_id}/status"
                location = self._call("GET", self._coordinator_url, path)["status"].get("location") or {}
                if location.get("port", -1) <= 0:
                    continue
                worker = f"http://{location['host']}:{location['port']}"
                chat = f"/druid/worker/v1/chat/{task_id}"
                state = self._call("GET", worker, f"{chat}/status")
                offsets = self._call("GET", worker, f"{chat}/offsets/current")
            except ConnectorError:
                continue  # not started, or just ended: what it held is not to be counted on
            answers.append(TaskProgress(task_id, str(state), _offsets(offsets)))
        return answers

    def handoff(self, supervisor_id: str) -> None:
        """Has the tasks publish what they hold in memory as segments, while new ones read on. Returns at once."""
        path = f"/druid/indexer/v1/supervisor/{supervisor_id}/taskGroups/handoff"
        self._call("POST", self._coordinator_url, path, {"taskGroupIds": [0]})

    def unpublished_segments(self, datasource: str, start: datetime, end: datetime) -> int:
        """How many segments of the interval only tasks hold: 0 means that a correction may replace the interval."""
        rows = self.sql(
            'SELECT COUNT(*) AS held FROM sys.segments WHERE datasource = ? AND "start" < ? AND "end" > ? '
            "AND (is_realtime = 1 OR is_published = 0)",
            (datasource, _iso(end), _iso(start)),
        )
        return int(rows[0]["held"] or 0) if rows else 0  # over no row of a system table, Druid's COUNT gives no row

    def _call(self, method: str, base_url: str, path: str, body: object = None) -> Any:
        """The JSON of an answer. Errors: every way to fail, as a `ConnectorError` that names what was asked."""
        asked = f"Druid {method} {path}"
        try:
            answer = self._http.request(method, base_url + path, json=body)
        except httpx.TimeoutException as error:
            raise TimedOut(f"{asked}: no answer in {self._timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{asked}: {error}") from error
        if answer.status_code == 504:
            raise TimedOut(f"{asked}: {_reason(answer)}")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unavailable(f"{asked}: {answer.status_code} {_reason(answer)}")
        if answer.status_code >= 400:
            raise Refused(f"{asked}: {answer.status_code} {_reason(answer)}")
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise Unavailable(f"{asked}: the answer is not JSON") from error


def pydruid_client(settings: Endpoints | None = None) -> PyDruid:
    """The analyst's client: pydruid's query builder on this stack's broker (topn, groupby, timeseries, ...)."""
    from pydruid.client import PyDruid  # slow to import, and services do not need it

    return PyDruid((settings or endpoints()).druid_broker_url, "druid/v2")


def ensure_supervisors(client: DruidClient, kafka_bootstrap: str) -> dict[str, bool]:
    """Creates or updates every supervisor, and its columns; for each whether something had to be done. Idempotent."""
    done = {}
    for supervisor_id, spec in druid_specs.supervisors(kafka_bootstrap).items():
        declared = client.declare_columns(spec)
        done[supervisor_id] = client.ensure_supervisor(spec) or declared
    return done


def _parameter(value: Parameter) -> dict[str, Value]:
    if isinstance(value, datetime):
        return {"type": "TIMESTAMP", "value": value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")}
    return {"type": _SQL_TYPES[type(value)], "value": value}


def _offsets(answer: Mapping[str, int | None] | None) -> dict[int, int]:
    return {int(partition): offset for partition, offset in (answer or {}).items() if offset is not None}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _reason(answer: httpx.Response) -> str:
    """What Druid says went wrong; its answers have three shapes."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:300]
    if isinstance(body, dict):
        return str(body.get("errorMessage") or body.get("error") or body)[:500]
    return str(body)[:300]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m connectors.druid", description="Druid's supervisors")
    parser.add_argument("action", choices=("ensure", "status", "handoff"))
    action = parser.parse_args(argv).action
    settings = endpoints()
    with DruidClient.of(settings) as client:
        try:
            began = time.monotonic()
            if action == "ensure":
                for supervisor_id, changed in ensure_supervisors(client, settings.kafka_bootstrap).items():
                    print(f"{supervisor_id}: {'created or updated' if changed else 'unchanged'}")
            elif action == "handoff":
                for supervisor_id in druid_specs.supervisors(settings.kafka_bootstrap):
                    client.handoff(supervisor_id)
                    print(f"{supervisor_id}: publishing")
            else:
                for supervisor_id in client.supervisor_ids():
                    status = client.supervisor_status(supervisor_id)
                    print(f"{supervisor_id}: {status.state} {json.dumps(dict(status.offsets))}")
            log.info("druid_%s", action, extra={"took_s": round(time.monotonic() - began, 2)})
        except ConnectorError as error:
            print(f"{action} failed: {error}", file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
