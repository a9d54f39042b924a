"""Jobs put together into one application that shares the source and its deduplication.

A deployment is named for its jobs: `streaming` for all of them, else their names joined by `+`. The name is the Flink
job's name, the consumer group and the folder of its checkpoints.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.endpoints import Endpoints
from connectors.flink import session as flink
from connectors.flink.tables import NOTHING_PACKED, PACKED_DIMENSIONS, Cluster, source_ddl
from jobs.streaming import (
    ad_sessions,
    attribution,
    campaign_metrics,
    campaign_spend,
    delivery_health,
    event_quality,
    frequency_counts,
    invalid_traffic,
    streaming_features,
)
from jobs.streaming.job import Build, Job
from jobs.streaming.lease import Lease
from jobs.streaming.own_java import own_java
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, insert_statement
from jobs.streaming.views import (
    DECISION_COLUMNS,
    DECISIONS,
    SOURCE,
    SOURCE_TIME_COLUMNS,
    TEXTS,
    clock_ddl,
    metadata_ddl,
    reads_decisions,
    views,
    wanted_columns,
    watermark,
)
from schemas.campaign_metrics import PACKED_COLUMN
from schemas.errors import ConfigError
from schemas.topics import AD_DECISIONS, AD_EVENTS, Topic

if TYPE_CHECKING:
    from pyflink.table import StreamTableEnvironment

JOBS: dict[str, Build] = {
    module.NAME: module.build
    for module in (
        event_quality,
        ad_sessions,
        campaign_metrics,
        frequency_counts,
        streaming_features,
        campaign_spend,
        attribution,
        invalid_traffic,
        delivery_health,
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
    #: REST address of the session cluster that it is for; '' when it gets a cluster of its own.
    cluster: str = ""
    #: Read from the beginning to the end that the topic has at the start, then end: a replay, a backfill.
    bounded: bool = False
    #: What the names of its output topics end with: a backfill writes beside what the running jobs have written.
    suffix: str = ""
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        settings: Settings,
        where: Endpoints,
        startup: str = "group-offsets",
        cluster: str = "",
    ) -> Application:
        """The application of the named jobs. Errors: ConfigError."""
        name = deployment_name(names)
        return cls(name, tuple(JOBS[n](settings) for n in JOBS if n in names), settings, where, startup, cluster)

    @property
    def output_topics(self) -> tuple[Topic, ...]:
        """The topics that it writes."""
        tables = (output.table for job in self.jobs for output in job.outputs)
        return tuple({topic.name: topic for topic in (SINKS[t].beside(self.suffix).topic for t in tables)}.values())

    @property
    def checkpoints(self) -> Path:
        """Folder of the deployment's checkpoints, whatever ids its runs had."""
        return self.where.home / "flink" / "checkpoints" / self.name

    @property
    def savepoints(self) -> Path:
        return self.where.home / "flink" / "savepoints" / self.name

    @property
    def lease(self) -> Lease:
        """This submission's claim to its jobs."""
        return Lease(self.name, tuple(job.name for job in self.jobs), self.owner, self.cluster)

    def flink_settings(self) -> dict[str, str]:
        """Flink's settings of the deployment."""
        settings = self.settings
        return {
            "pipeline.name": self.name,
            "pipeline.object-reuse": "true",
            "parallelism.default": str(settings.parallelism),
            "state.backend.type": settings.state_backend,
            # it would not hear of what functions write in place (java/WrittenInPlace.java), and loses state besides
            "state.changelog.enabled": "false",
            "execution.buffer-timeout.interval": f"{settings.buffer_timeout_ms} ms",
            "execution.checkpointing.mode": "EXACTLY_ONCE",
            "execution.checkpointing.interval": f"{settings.checkpoint_interval_ms} ms",
            "execution.checkpointing.min-pause": f"{settings.checkpoint_interval_ms * 3 // 4} ms",
            "execution.checkpointing.timeout": "2 min",
            "execution.checkpointing.tolerable-failed-checkpoints": "20",
            "execution.checkpointing.dir": self.checkpoints.as_uri(),
            "execution.checkpointing.savepoint-dir": self.savepoints.as_uri(),
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            "execution.checkpointing.num-retained": "2",
            # RocksDB hands over its new files alone; state on the heap is written whole each time
            "execution.checkpointing.incremental": "true",
            # it never gives up: a broker that is away for an hour must not end the application
            "restart-strategy.type": "exponential-delay",
            # it tries often, because the slots of a killed TaskManager look usable until its heartbeat is missed
            "restart-strategy.exponential-delay.initial-backoff": "500 ms",
            "restart-strategy.exponential-delay.backoff-multiplier": "1.5",
            "restart-strategy.exponential-delay.max-backoff": "3 s",
            "table.exec.state.ttl": f"{settings.deduplication_ttl_s} s",
            "table.exec.source.idle-timeout": f"{settings.source_idle_s} s",
            "table.exec.mini-batch.enabled": "false",
            # a projection of fifty columns in a few methods that the JIT takes whole, not in sixty that pass fields
            "table.generated-code.max-length": "12000",
            # operators are named by their place in the plan: a hash of the job graph, the default, changes with
            # parallelism (what is chained to what), and a savepoint would fit no other one
            "table.exec.uid.generation": "ALWAYS",
            # without it each query would deduplicate for itself
            "table.optimizer.reuse-optimize-block-with-digest-enabled": "true",
        }

    def statements(self) -> tuple[list[str], list[str]]:
        """(DDL in order, INSERTs)."""
        where = self.where
        cluster = Cluster(where.kafka_bootstrap, where.registry_url)
        wanted = wanted_columns(self.jobs)
        source = source_ddl(
            SOURCE,
            AD_EVENTS,
            cluster,
            group=self.name,
            wanted=wanted,
            startup="earliest-offset" if self.bounded else self.startup,
            bounded=self.bounded,
            packed=PACKED_DIMENSIONS if PACKED_COLUMN in wanted else NOTHING_PACKED,
            texts=TEXTS,
            extra_columns=(*metadata_ddl(wanted), *SOURCE_TIME_COLUMNS, watermark(self.settings)),
        )
        ddl = [source, clock_ddl(self.settings, bounded=self.bounded)]
        if reads_decisions(self.jobs):
            decisions = source_ddl(
                DECISIONS,
                AD_DECISIONS,
                cluster,
                group=self.name,
                wanted=DECISION_COLUMNS,
                startup="earliest-offset" if self.bounded else self.startup,
                bounded=self.bounded,
            )
            ddl.append(decisions)
        all_views = [*views(self.jobs, self.settings), *(view for job in self.jobs for view in job.views)]
        ddl += [f"CREATE TEMPORARY VIEW `{view.name}` AS\n{view.query}" for view in all_views]
        inserts: list[str] = []
        for job in self.jobs:
            for output in job.outputs:
                ddl.append(SINKS[output.table].beside(self.suffix).ddl(job.name + self.suffix, cluster, self.settings))
                inserts.append(insert_statement(output))
        return ddl, inserts

    def session(self, more: dict[str, str]) -> StreamTableEnvironment:
        """A SQL session in which the application's tables and views are known."""
        session = flink.streaming_session({**self.flink_settings(), **more}, own_java())
        for statement in self.statements()[0]:
            session.execute_sql(statement)
        return session

    def explain(self) -> str:
        """Flink's plan of the application, for people."""
        statement_set = self.session({}).create_statement_set()
        for statement in self.statements()[1]:
            statement_set.add_insert_sql(statement)
        return statement_set.explain()
