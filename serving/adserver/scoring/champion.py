"""Follows the champion in MLflow's model registry, off the request path, and swaps it in without a restart.

MLflow is asked over its REST interface; its client would cost the server 200 MB. A model that is refused is asked
for again only when the alias points elsewhere; the one that serves goes on serving.
Source: MLflow REST API 2.0 (registered-models/alias, runs/get, mlflow-artifacts).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from connectors.http_client import HttpPool, PoolLimits
from schemas.errors import ConnectorError, ContractError, Refused, Unavailable
from serving.adserver import metrics
from serving.adserver.scoring.model import ChampionModel

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

ARTIFACT_FOLDER = "ctr_model"
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_TIMEOUT_S = 10.0
_LIMITS = PoolLimits(connections=2, response_bytes=64 << 20, exchange_s=_TIMEOUT_S)


class _ModelVersion(msgspec.Struct):
    version: str
    run_id: str = ""


class _AliasAnswer(msgspec.Struct):
    model_version: _ModelVersion


class _RunInfo(msgspec.Struct):
    artifact_uri: str


class _Run(msgspec.Struct):
    info: _RunInfo


class _RunAnswer(msgspec.Struct):
    run: _Run


class ChampionWatch:
    """Polls one alias. `on_champion` is called in the event loop with each model that passed its checks."""

    def __init__(
        self,
        mlflow_url: str,
        name: str,
        alias: str,
        poll_s: float,
        on_champion: Callable[[ChampionModel], None],
    ) -> None:
        self._pool = HttpPool(mlflow_url, _LIMITS)
        self._name = name
        self._alias = alias
        self._poll_s = poll_s
        self._on_champion = on_champion
        self._decided: str | None = None  # the version that was last loaded or refused
        self.problem: str | None = None

    async def run(self) -> None:
        """Watches until it is cancelled. What MLflow does not answer is asked again at the next turn."""
        while True:
            problem: str | None = None
            try:
                await self.look()
            except ConnectorError as e:
                problem = str(e)
            if problem != self.problem:
                self.problem = problem
                if problem:
                    logger.warning("champion not read", extra={"detail": problem})
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """Loads the champion if the alias has moved. Errors: ConnectorError."""
        champion = await self._champion()
        if champion is None or champion.version == self._decided:
            return
        folder = await self._artifact_folder(champion.run_id)
        text, spec = await asyncio.gather(self._read(f"{folder}/model.txt"), self._read(f"{folder}/spec.json"))
        version = f"{self._name}-v{champion.version}"
        try:
            model = await asyncio.to_thread(ChampionModel, version, text.decode(errors="replace"), spec)
        except ContractError as e:
            logger.error("model refused", extra={"version": version, "reason": str(e)})
        else:
            logger.info("model in service", extra={"version": version, "inputs": len(model.spec.inputs)})
            metrics.MODEL_PACKED.set(model.packed)
            self._on_champion(model)
        self._decided = champion.version

    def close(self) -> None:
        self._pool.close()

    async def _champion(self) -> _ModelVersion | None:
        query = f"name={quote(self._name)}&alias={quote(self._alias)}"
        answer = await self._pool.fetch("GET", f"{_API}/registered-models/alias?{query}", _TIMEOUT_S)
        if answer.status in (400, 404):  # MLflow answers 400 or 404 while there is no such model or alias
            return None
        return _decoded(answer.status, answer.body, _AliasAnswer).model_version

    async def _artifact_folder(self, run_id: str) -> str:
        answer = await self._pool.fetch("GET", f"{_API}/runs/get?run_id={quote(run_id)}", _TIMEOUT_S)
        uri = urlsplit(_decoded(answer.status, answer.body, _RunAnswer).run.info.artifact_uri)
        if uri.scheme != "mlflow-artifacts":
            raise Refused(f"MLflow: artifacts of run {run_id} are at {uri.scheme}:, not proxied by the server")
        return f"{_ARTIFACTS}/{uri.path.strip('/')}/{ARTIFACT_FOLDER}"

    async def _read(self, path: str) -> bytes:
        answer = await self._pool.fetch("GET", path, _TIMEOUT_S)
        if answer.status != 200:
            raise Unavailable(f"MLflow: {answer.status} for {path}")
        return answer.body


def _decoded(status: int, body: bytes, kind: type[_Answer]) -> _Answer:
    if status != 200:
        raise Unavailable(f"MLflow: status {status}")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise Refused(f"MLflow: {e}") from e
