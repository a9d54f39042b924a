"""Bounded Flink jobs on a cluster of their own, and what they cost its TaskManager."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.endpoints import Endpoints
from connectors.flink import session as flink
from connectors.flink.java_jar import compiled_jar, sources
from connectors.flink.rest import FlinkRest
from infra.bench.report import cpu_seconds
from infra.bench.services import pid_of
from jobs.streaming.application import Application
from jobs.streaming.job import Job, View
from jobs.streaming.own_java import lacking, own_java
from jobs.streaming.settings import Settings

if TYPE_CHECKING:
    from pyflink.table import StreamTableEnvironment

RUN_TIMEOUT_S = 900.0
PARALLELISM = 2
CHECKPOINT_MS = 10_000
#: As in production, on one machine.
SETTINGS = Settings(parallelism=PARALLELISM, checkpoint_interval_ms=CHECKPOINT_MS, buffer_timeout_ms=50)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished job: CPU time that its TaskManager used, and the state in its largest checkpoint."""

    cpu_s: float
    state_bytes: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A cluster with one TaskManager."""

    where: Endpoints
    rest: FlinkRest

    def jobs(self, names: Sequence[str], **settings: object) -> Run:
        """Our jobs over all of ad-events-v1, as they are deployed, to their own topics."""
        application = self._application(names, settings)
        return self._finish(lambda: self._submit(application.session(self._remote()), application.statements()[1]))

    def own_query(
        self, names: Sequence[str], ddl: Sequence[str], insert: str, view: View | None = None, **settings: object
    ) -> Run:
        """A query on the views of our jobs, or on a view over the shared ones alone, to a sink of its own."""
        application = self._application(names, settings)
        if view is not None:
            application = dataclasses.replace(application, jobs=(Job("bench", outputs=(), views=(view,)),))

        def start() -> str:
            session = application.session(self._remote())
            for statement in ddl:
                session.execute_sql(statement)
            return self._submit(session, [insert])

        return self._finish(start)

    def _application(self, names: Sequence[str], settings: Mapping[str, object]) -> Application:
        chosen = SETTINGS.model_copy(update=settings)
        return dataclasses.replace(Application.of(names, chosen, self.where), bounded=True)

    def plain(self, ddl: Sequence[str], insert: str) -> Run:
        """A query as one would write it without us."""
        settings = {
            "pipeline.name": "plain",
            "pipeline.object-reuse": "true",
            "parallelism.default": str(PARALLELISM),
            "state.backend.type": "hashmap",
            "execution.checkpointing.mode": "AT_LEAST_ONCE",
            "execution.checkpointing.interval": f"{CHECKPOINT_MS} ms",
        }

        def start() -> str:
            side_input = compiled_jar(sources("infra.bench"))
            session = flink.streaming_session({**settings, **self._remote()}, own_java(), [side_input])
            for statement in ddl:
                session.execute_sql(statement)
            return self._submit(session, [insert], side_input)

        return self._finish(start)

    def _submit(self, session: StreamTableEnvironment, inserts: Iterable[str], *more: Path) -> str:
        return flink.submit(session, inserts, lacking(self.rest, *more))

    def _remote(self) -> dict[str, str]:
        return flink.remote_target(self.where.flink_rest_url)

    def _finish(self, start: Callable[[], str]) -> Run:
        taskmanager = pid_of(self.where, "flink-taskmanager")
        before_s = cpu_seconds([taskmanager])
        job_id = start()
        self.rest.wait_until_ended(job_id, RUN_TIMEOUT_S)
        ended = next(d for d in self.rest.deployments() if d.job_id == job_id)
        if ended.state != "FINISHED":
            raise RuntimeError(f"job {job_id} is {ended.state}: {self.rest.root_cause(job_id)}")
        used_s = cpu_seconds([taskmanager]) - before_s
        # the last checkpoint is taken when all timers have fired, and has next to nothing
        return Run(used_s, int(self.rest.checkpoints(job_id)["summary"]["state_size"]["max"]))
