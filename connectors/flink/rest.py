"""Flink's REST door: which deployments run, how to stop them, where their checkpoints are, how fresh they are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from connectors.endpoints import endpoints
from connectors.flink.library import lacking
from schemas.errors import ConnectorError, Refused, TimedOut, Unavailable

#: States of a job that is, or soon will be, working.
LIVE_STATES = frozenset({"INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "RECONCILING"})
REQUEST_TIMEOUT_S = 15.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Deployment:
    """A job as the cluster knows it. `start_time_ms` is epoch ms UTC."""

    job_id: str
    name: str
    state: str
    start_time_ms: int

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


class FlinkRest:
    """The cluster's REST door. Every call may block up to `timeout_s`.

    Errors: Unavailable (not there, or 5xx), TimedOut, Refused (4xx).
    """

    def __init__(self, url: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._http = httpx.Client(base_url=url or endpoints().flink_rest_url, timeout=timeout_s)

    def __enter__(self) -> FlinkRest:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    def deployments(self) -> list[Deployment]:
        """All jobs that the cluster remembers, newest first."""
        found = [
            Deployment(job["jid"], job["name"], job["state"], job["start-time"])
            for job in self._call("GET", "/jobs/overview")["jobs"]
        ]
        return sorted(found, key=lambda d: d.start_time_ms, reverse=True)

    def live(self) -> list[Deployment]:
        return [deployment for deployment in self.deployments() if deployment.live]

    def task_slots(self) -> int:
        """Slots of the registered TaskManagers; 0 when none has come yet."""
        return int(self._call("GET", "/overview")["slots-total"])

    def lacking(self, jars: Iterable[Path]) -> list[Path]:
        """Those of `jars` that have to go with a submission, because the cluster's own class path has them not."""
        return lacking(self._call("GET", "/jobmanager/environment")["classpath"], jars)

    def tasks_running(self, job_id: str) -> bool:
        """Whether every task of a job is running."""
        job = self._call("GET", f"/jobs/{job_id}")
        vertices = job["vertices"]
        return bool(vertices) and all(vertex["status"] == "RUNNING" for vertex in vertices)

    def wait_until_running(self, job_id: str, timeout_s: float) -> None:
        """Returns when every task of the job runs. Errors: TimedOut; Refused when the job has failed."""
        deadline = time.monotonic() + timeout_s
        while not self.tasks_running(job_id):
            state = self._call("GET", f"/jobs/{job_id}")["state"]
            if state not in LIVE_STATES:
                raise Refused(f"Flink job {job_id} is {state}: {self.root_cause(job_id)}")
            if time.monotonic() > deadline:
                raise TimedOut(f"Flink job {job_id} is not running after {timeout_s:.0f} s (state {state})")
            time.sleep(_POLL_S)

    def root_cause(self, job_id: str) -> str:
        """First line of the latest failure of a job, or ''."""
        history = self._call("GET", f"/jobs/{job_id}/exceptions").get("exceptionHistory", {}).get("entries", [])
        return history[0]["stacktrace"].splitlines()[0] if history else ""

    def restarts(self, job_id: str) -> int:
        """How often the job was restarted after a failure since it was submitted."""
        metrics = self._call("GET", f"/jobs/{job_id}/metrics?get=numRestarts")
        return int(metrics[0]["value"]) if metrics else 0

    def checkpoints(self, job_id: str) -> dict[str, Any]:
        """Flink's own checkpoint statistics of a job (counts, latest, history)."""
        return self._call("GET", f"/jobs/{job_id}/checkpoints")

    def task_metric(self, job_id: str, task: str, metric: str) -> list[float]:
        """A metric of every subtask of the tasks whose name contains `task`; empty while there is none."""
        values: list[float] = []
        for vertex in self._call("GET", f"/jobs/{job_id}")["vertices"]:
            if task in vertex["name"]:
                path = f"/jobs/{job_id}/vertices/{vertex['id']}/metrics"
                wanted = [f"{subtask}.{metric}" for subtask in range(vertex["parallelism"])]
                answer = self._call("GET", path, params={"get": ",".join(wanted)})
                values += [float(found["value"]) for found in answer if found["value"] != "NaN"]
        return values

    def cancel(self, job_id: str, timeout_s: float = 60.0) -> None:
        """Stops a job and keeps its last checkpoint. Returns when it is gone; a job that is gone already is fine."""
        try:
            self._call("PATCH", f"/jobs/{job_id}", params={"mode": "cancel"})
        except Refused:
            if any(d.job_id == job_id and d.live for d in self.deployments()):
                raise
        self.wait_until_ended(job_id, timeout_s)

    def wait_until_ended(self, job_id: str, timeout_s: float = 60.0) -> None:
        """Returns when no task of the job is left; a job that is gone already is fine. Errors: TimedOut."""
        deadline = time.monotonic() + timeout_s
        while any(d.job_id == job_id and d.state not in ("CANCELED", "FAILED", "FINISHED") for d in self.deployments()):
            if time.monotonic() > deadline:
                raise TimedOut(f"Flink job {job_id} has not ended after {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def savepoint(self, job_id: str, folder: Path, *, stop: bool = False, timeout_s: float = 120.0) -> str:
        """Path of a new savepoint; with `stop` the job ends with it, its transactions committed."""
        if stop:
            body: dict[str, Any] = {"targetDirectory": folder.as_uri(), "drain": False}
            trigger = self._call("POST", f"/jobs/{job_id}/stop", json=body)["request-id"]
        else:
            body = {"target-directory": folder.as_uri(), "cancel-job": False}
            trigger = self._call("POST", f"/jobs/{job_id}/savepoints", json=body)["request-id"]
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = self._call("GET", f"/jobs/{job_id}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                operation = answer["operation"]
                if "location" not in operation:
                    cause = operation.get("failure-cause", {}).get("stack-trace", "no cause given")
                    raise Refused(f"savepoint of {job_id} failed: {cause.splitlines()[0]}")
                return str(operation["location"])
            time.sleep(_POLL_S)
        raise TimedOut(f"no savepoint of {job_id} after {timeout_s:.0f} s")

    def get(self, path: str, **query: str) -> Any:
        """Whatever else the door shows: the parsed JSON of its answer."""
        return self._call("GET", path, params=query)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TimeoutException as e:
            raise TimedOut(f"Flink's REST door did not answer {method} {path}") from e
        except httpx.HTTPError as e:
            raise Unavailable(f"Flink's REST door: {e}") from e
        if response.is_success:
            return response.json() if response.content else {}
        error: type[ConnectorError] = Unavailable if response.status_code >= 500 else Refused
        raise error(f"Flink answered {response.status_code} to {method} {path}: {response.text[:300]}")


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under a deployment's checkpoint folder, whichever run wrote it, or None.

    Flink writes `_metadata` last, so a folder that has one is complete.
    """
    found = [path for path in folder.glob("*/chk-*/_metadata") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else None
