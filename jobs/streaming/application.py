"""Jobs put together into one application that shares the source and its deduplication, and its life on a cluster.

A deployment is named for its jobs: `streaming` for all of them, else their names joined by `+`. The name is the Flink
job's name, the consumer group and the folder of its checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from connectors.endpoints import Endpoints
from connectors.flink import session as flink
from connectors.flink.rest import Deployment, FlinkRest, latest_checkpoint
from connectors.flink.tables import Cluster, source_ddl
from connectors.kafka import committed_offsets, existing_topics
from jobs.streaming import (
    ad_sessions,
    campaign_metrics,
    campaign_spend,
    event_quality,
    frequency_counts,
    streaming_features,
)
from jobs.streaming.job import Build, Job
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, insert_statement
from jobs.streaming.views import (
    SOURCE,
    SOURCE_METADATA_COLUMNS,
    SOURCE_TIME_COLUMNS,
    clock_ddl,
    views,
    watermark,
)
from schemas.errors import ConfigError, Refused, TimedOut, Unavailable
from schemas.topics import AD_EVENTS, TOPICS

if TYPE_CHECKING:
    from pyflink.table import StreamTableEnvironment

T = TypeVar("T")

log = logging.getLogger(__name__)

JOBS: dict[str, Build] = {
    module.NAME: module.build
    for module in (
        event_quality,
        ad_sessions,
        campaign_metrics,
        frequency_counts,
        streaming_features,
        campaign_spend,
    )
}
ALL_JOBS = "streaming"


def deployment_name(names: Sequence[str]) -> str:
    """Name of the deployment of some jobs. Errors: ConfigError for a job that does not exist.

    Example:
    >>> deployment_name(["campaign_spend", "ad_sessions"])
    'ad_sessions+campaign_spend'
    """
    unknown = [name for name in names if name not in JOBS]
    if unknown or not names:
        raise ConfigError(f"no such stream job: {', '.join(unknown) or '(none given)'}; there are {', '.join(JOBS)}")
    return ALL_JOBS if set(names) == set(JOBS) else "+".join(name for name in JOBS if name in names)


def jobs_of(deployment: str) -> frozenset[str]:
    """Names of the stream jobs that a deployment of this name runs; empty for a Flink job that is none of ours."""
    return frozenset(JOBS) if deployment == ALL_JOBS else frozenset(deployment.split("+")) & frozenset(JOBS)


@dataclass(frozen=True, slots=True)
class Application:
    """Some stream jobs, as statements for a Flink SQL session."""

    name: str
    jobs: tuple[Job, ...]
    settings: Settings
    where: Endpoints
    startup: str = "group-offsets"

    @classmethod
    def of(
        cls, names: Sequence[str], settings: Settings, where: Endpoints, startup: str = "group-offsets"
    ) -> Application:
        """The application of the named jobs. Errors: ConfigError."""
        name = deployment_name(names)
        return cls(name, tuple(JOBS[n](settings) for n in JOBS if n in names), settings, where, startup)

    @property
    def checkpoints(self) -> Path:
        """Folder of the deployment's checkpoints, whatever ids its runs had."""
        return self.where.home / "flink" / "checkpoints" / self.name

    @property
    def savepoints(self) -> Path:
        return self.where.home / "flink" / "savepoints" / self.name

    def flink_settings(self) -> dict[str, str]:
        """Flink's settings of the deployment."""
        settings = self.settings
        return {
            "pipeline.name": self.name,
            "pipeline.object-reuse": "true",
            "parallelism.default": str(settings.parallelism),
            "state.backend.type": settings.state_backend,
            "execution.buffer-timeout.interval": f"{settings.buffer_timeout_ms} ms",
            "execution.checkpointing.mode": "EXACTLY_ONCE",
            "execution.checkpointing.interval": f"{settings.checkpoint_interval_ms} ms",
            "execution.checkpointing.min-pause": f"{settings.checkpoint_interval_ms // 4} ms",
            "execution.checkpointing.timeout": "2 min",
            "execution.checkpointing.tolerable-failed-checkpoints": "20",
            "execution.checkpointing.dir": self.checkpoints.as_uri(),
            "execution.checkpointing.savepoint-dir": self.savepoints.as_uri(),
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            "execution.checkpointing.num-retained": "2",
            # it never gives up: a broker that is away for an hour must not end the application
            "restart-strategy.type": "exponential-delay",
            # it tries often, because the slots of a killed TaskManager look usable until its heartbeat is missed
            "restart-strategy.exponential-delay.initial-backoff": "500 ms",
            "restart-strategy.exponential-delay.backoff-multiplier": "1.5",
            "restart-strategy.exponential-delay.max-backoff": "3 s",
            "table.exec.state.ttl": f"{settings.deduplication_ttl_s} s",
            "table.exec.source.idle-timeout": f"{settings.source_idle_s} s",
            "table.exec.mini-batch.enabled": "false",
            # without it each query would deduplicate for itself
            "table.optimizer.reuse-optimize-block-with-digest-enabled": "true",
        }

    def statements(self) -> tuple[list[str], list[str]]:
        """(DDL in order, INSERTs)."""
        where = self.where
        cluster = Cluster(where.kafka_bootstrap, where.registry_url)
        source = source_ddl(
            SOURCE,
            AD_EVENTS,
            cluster,
            group=self.name,
            startup=self.startup,
            extra_columns=(*SOURCE_METADATA_COLUMNS, *SOURCE_TIME_COLUMNS, watermark(self.settings)),
        )
        ddl = [source, clock_ddl(self.settings)]
        all_views = [*views(), *(view for job in self.jobs for view in job.views)]
        ddl += [f"CREATE TEMPORARY VIEW `{view.name}` AS\n{view.query}" for view in all_views]
        inserts: list[str] = []
        for job in self.jobs:
            for output in job.outputs:
                ddl.append(SINKS[output.table].ddl(job.name, cluster, self.settings))
                inserts.append(insert_statement(output))
        return ddl, inserts

    def session(self, more: dict[str, str]) -> StreamTableEnvironment:
        """A SQL session in which the application's tables and views are known."""
        session = flink.streaming_session({**self.flink_settings(), **more})
        for statement in self.statements()[0]:
            session.execute_sql(statement)
        return session

    def run(self, more: dict[str, str]) -> str:
        """Id of the Flink job that now runs the application, wherever Flink's settings say that it runs."""
        return flink.submit(self.session(more), self.statements()[1])

    def explain(self) -> str:
        """Flink's plan of the application, for people."""
        statement_set = self.session({}).create_statement_set()
        for statement in self.statements()[1]:
            statement_set.add_insert_sql(statement)
        return statement_set.explain()


def overlapping(deployments: Iterable[Deployment], names: Iterable[str]) -> Deployment | None:
    """A live deployment that runs one of the named jobs already, or None."""
    wanted = frozenset(names)
    return next((d for d in deployments if d.live and jobs_of(d.name) & wanted), None)


def submit(application: Application, rest: FlinkRest, *, restore: bool = True, timeout_s: float = 240.0) -> str:
    """Id of the running Flink job; submits it unless it runs already, from its latest checkpoint if there is one.

    Idempotent. Blocks until every task runs; waits for a cluster, a broker or topics that are only being started, and
    compiles meanwhile. Errors: Refused when another deployment runs one of the jobs (two would write every row twice),
    when its state is lost, or when the job fails; Unavailable; TimedOut.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        job_id = _running(application, rest)
    except Unavailable:  # no JobManager, so no checkpoint can appear between here and the submission
        log.info("compiling while Flink starts")
    else:
        if job_id is not None:
            log.info("already running", extra={"deployment": application.name, "job_id": job_id})
            return job_id
    checkpoint = latest_checkpoint(application.checkpoints) if restore else None
    more = flink.remote_target(application.where.flink_rest_url)
    if checkpoint is not None:
        more["execution.state-recovery.path"] = checkpoint.as_uri()
        more["execution.state-recovery.claim-mode"] = "CLAIM"  # deleted when a newer one is there, like any other
    session = application.session(more)
    job_id = _patiently(lambda: _running(application, rest), deadline_s)
    if job_id is None:
        _patiently(_require_topics, deadline_s)
        if restore and checkpoint is None and _patiently(lambda: _has_read(application.name), deadline_s):
            raise Refused(
                f"{application.name} has read {AD_EVENTS.name} before, but no checkpoint is left in "
                f"{application.checkpoints}: "
                "absolute counters would begin at 0 again. Bring the checkpoint back, or choose with --fresh --start"
            )
        job_id = flink.submit(session, application.statements()[1])
    rest.wait_until_running(job_id, max(1.0, deadline_s - time.monotonic()))
    log.info(
        "submitted",
        extra={"deployment": application.name, "job_id": job_id, "restored_from": str(checkpoint or "")},
    )
    return job_id


def _running(application: Application, rest: FlinkRest) -> str | None:
    """Id of the deployment's live job. Errors: Refused when another deployment runs one of its jobs."""
    running = overlapping(rest.live(), (job.name for job in application.jobs))
    if running is None:
        return None
    if running.name != application.name:
        raise Refused(f"deployment {running.name} ({running.job_id}) runs one of these jobs: cancel it first")
    return running.job_id


def _has_read(group: str) -> bool:
    """Whether a consumer group has ever committed offsets of the events."""
    return bool(committed_offsets(group, AD_EVENTS.name))


def _require_topics() -> None:
    """Errors: Unavailable while topics are missing; an exactly-once sink would fail until they are there."""
    missing = {topic.name for topic in TOPICS} - existing_topics().keys()
    if missing:
        raise Unavailable(f"topics are missing: {', '.join(sorted(missing))}; `headwater topics --create` makes them")


def _patiently(call: Callable[[], T], deadline_s: float) -> T:
    """The call's result, asked again while what it needs has only just started. Errors: its own, past the deadline."""
    while True:
        try:
            return call()
        except (Unavailable, TimedOut):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
