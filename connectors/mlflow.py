"""MLflow's tracking server and model registry, over its REST API.

Not the mlflow package: importing it costs six CPU seconds and 200 MB in every training process, and none of it is
needed to log a run. The server stays the real one, and what is logged opens with its own client:
`mlflow.lightgbm.load_model("models:/ctr@champion")`.
Source: MLflow REST API 2.0. Artifacts go through the server (`mlflow-artifacts:/...`), so no client needs its disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from connectors.endpoints import endpoints
from schemas.errors import Refused, TimedOut, Unavailable

_SCHEME = "mlflow-artifacts:/"
_API = "/api/2.0/mlflow"
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_EXISTS = "RESOURCE_ALREADY_EXISTS"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is being logged. `artifact_uri` is the root of its artifacts."""

    run_id: str
    artifact_uri: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version of a model, and where it came from."""

    version: str
    run_id: str
    source: str


class Mlflow:
    """A client of one server. Every call may block up to `timeout_s`.

    Errors of every call: Unavailable when it can't be reached or answers 5xx; TimedOut; Refused for another no.
    """

    def __init__(self, url: str | None = None, timeout_s: float = 30.0) -> None:
        self._http = httpx.Client(base_url=url or endpoints().mlflow_url, timeout=timeout_s)

    def close(self) -> None:
        self._http.close()

    def experiment(self, name: str) -> str:
        """Id of an experiment, made when it is new, with its artifacts in a folder of its name."""
        try:
            found = self._ask("GET", "experiments/get-by-name", experiment_name=name)
            return found["experiment"]["experiment_id"]
        except _NotFound:
            made = self._ask("POST", "experiments/create", name=name, artifact_location=_SCHEME + name)
            return made["experiment_id"]

    def start_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
        """A new run, open until `finish_run`."""
        info = self._ask(
            "POST",
            "runs/create",
            experiment_id=experiment_id,
            run_name=name,
            start_time=_now_ms(),
            tags=[{"key": k, "value": v} for k, v in tags.items()],
        )["run"]["info"]
        return Run(info["run_id"], info["artifact_uri"])

    def log(self, run: Run, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """Adds parameters and metrics to a run."""
        now_ms = _now_ms()
        self._ask(
            "POST",
            "runs/log-batch",
            run_id=run.run_id,
            params=[{"key": k, "value": str(v)} for k, v in params.items()],
            metrics=[{"key": k, "value": v, "timestamp": now_ms, "step": 0} for k, v in metrics.items()],
        )

    def log_artifact(self, run: Run, path: str, content: bytes) -> None:
        """Stores a file under the run's artifacts; the same path again replaces it."""
        self._send("PUT", _artifact_path(f"{run.artifact_uri}/{path}"), content=content)

    def finish_run(self, run: Run, succeeded: bool = True) -> None:
        status = "FINISHED" if succeeded else "FAILED"
        self._ask("POST", "runs/update", run_id=run.run_id, status=status, end_time=_now_ms())

    def register(self, model: str, run: Run, folder: str, tags: Mapping[str, str]) -> ModelVersion:
        """A new version of a registered model from a folder of a run's artifacts; the model is made when it is new."""
        with suppress(_AlreadyThere):
            self._ask("POST", "registered-models/create", name=model)
        made = self._ask(
            "POST",
            "model-versions/create",
            name=model,
            source=f"{run.artifact_uri}/{folder}",
            run_id=run.run_id,
            tags=[{"key": k, "value": v} for k, v in tags.items()],
        )["model_version"]
        return ModelVersion(str(made["version"]), made["run_id"], made["source"])

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Points an alias at a version. The last writer wins: the caller keeps the truth elsewhere."""
        self._ask("POST", "registered-models/alias", name=model, alias=alias, version=version)

    def alias(self, model: str, alias: str) -> ModelVersion | None:
        """The version that an alias points at."""
        return self._version("registered-models/alias", name=model, alias=alias)

    def version(self, model: str, version: str) -> ModelVersion | None:
        """One version of a model."""
        return self._version("model-versions/get", name=model, version=version)

    def artifact(self, version: ModelVersion, path: str) -> bytes:
        """A file of a version's folder. Errors: Refused when it is not there."""
        return self._send("GET", _artifact_path(f"{version.source}/{path}")).content

    def _version(self, call: str, **query: str) -> ModelVersion | None:
        try:
            found = self._ask("GET", call, **query)["model_version"]
        except _NotFound:
            return None
        except Refused as e:
            if "not found" in str(e):  # an alias that was never set is an invalid parameter to the server
                return None
            raise
        return ModelVersion(str(found["version"]), found["run_id"], found["source"])

    def _ask(self, method: str, call: str, **fields: Any) -> Any:
        if method == "GET":
            return self._send(method, f"{_API}/{call}", params=fields).json()
        return self._send(method, f"{_API}/{call}", json=fields).json()

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TimeoutException as e:
            raise TimedOut(f"MLflow: no answer to {method} {path}") from e
        except httpx.HTTPError as e:
            raise Unavailable(f"MLflow: {e}") from e
        if answer.is_success:
            return answer
        text = f"MLflow: {answer.status_code} to {method} {path}: {answer.text[:500]}"
        if answer.is_server_error:
            raise Unavailable(text)
        if _MISSING in answer.text:
            raise _NotFound(text)
        if _EXISTS in answer.text:
            raise _AlreadyThere(text)
        raise Refused(text)


class _NotFound(Refused):
    pass


class _AlreadyThere(Refused):
    pass


def _artifact_path(uri: str) -> str:
    if not uri.startswith(_SCHEME):
        raise Refused(f"{uri} is not served by MLflow: its server must be started with --serve-artifacts")
    return "/api/2.0/mlflow-artifacts/artifacts/" + uri.removeprefix(_SCHEME).lstrip("/")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
