"""The life of an application on a cluster: submitted once, from the state that it left, wherever it ran before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from connectors.flink import session as flink
from connectors.flink.rest import LIVE_STATES, Deployment, FlinkRest, latest_checkpoint
from connectors.flink.tables import Cluster
from connectors.kafka import committed_offsets, create_topics, existing_topics
from jobs.streaming.application import Application, jobs_of
from jobs.streaming.lease import Leases
from jobs.streaming.own_java import jars, lacking
from schemas.errors import Refused, TimedOut, Unavailable
from schemas.topics import AD_EVENTS, TOPICS

if TYPE_CHECKING:
    from pyflink.table import StreamTableEnvironment

T = TypeVar("T")

log = logging.getLogger(__name__)


def submit(
    application: Application,
    rest: FlinkRest,
    *,
    restore: bool = True,
    savepoint: str | None = None,
    allow_lost_state: bool = False,
    timeout_s: float = 240.0,
) -> str:
    """Id of the running Flink job; submits it unless it runs already, from its latest checkpoint if there is one.

    With `savepoint` (a path or URI) it begins from there instead; the savepoint stays. State that no operator claims is
    an error, unless it may be lost. Idempotent. Blocks until every
    task runs; waits for a cluster, a broker or topics that are only being started, and compiles meanwhile.
    Errors: Refused when another deployment runs one of the jobs, on this cluster or another (two would write every row
    twice), when its state is lost, or when the job fails; Unavailable; TimedOut.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        job_id = _running(application, rest)
    except Unavailable:  # no JobManager, so no checkpoint can appear between here and the submission
        log.info("compiling while Flink starts")
    else:
        if job_id is not None:
            return _already(application, job_id, savepoint)
    checkpoint = latest_checkpoint(application.checkpoints) if restore and savepoint is None else None
    more = flink.remote_target(application.where.flink_rest_url)
    if checkpoint is not None:
        more["execution.state-recovery.path"] = checkpoint.as_uri()
        more["execution.state-recovery.claim-mode"] = "CLAIM"  # deleted when a newer one is there, like any other
    elif savepoint is not None:
        more["execution.state-recovery.path"] = savepoint
        more["execution.state-recovery.claim-mode"] = "NO_CLAIM"
        more["execution.state-recovery.ignore-unclaimed-state"] = str(allow_lost_state).lower()
    session = application.session(more)
    job_id = _patiently(lambda: _running(application, rest), deadline_s)
    if job_id is not None:
        return _already(application, job_id, savepoint)
    _patiently(_require_topics, deadline_s)
    lost = restore and checkpoint is None and savepoint is None
    if lost and _patiently(lambda: _has_read(application.name), deadline_s):
        raise Refused(
            f"{application.name} has read {AD_EVENTS.name} before, but no checkpoint is left in "
            f"{application.checkpoints}: "
            "absolute counters would begin at 0 again. Bring the checkpoint back, or choose with --fresh --start"
        )
    leases = _patiently(lambda: Leases(application.where), deadline_s)
    patience_s = max(1.0, deadline_s - time.monotonic())
    with leases.held(application.lease, lambda: _running(application, rest) is None, patience_s):
        job_id = _start(application, session, lacking(rest))
        rest.wait_until_running(job_id, max(1.0, deadline_s - time.monotonic()))
    log.info(
        "submitted",
        extra={"deployment": application.name, "job_id": job_id, "restored_from": savepoint or str(checkpoint or "")},
    )
    return job_id


def run(application: Application) -> str:
    """Id of the Flink job that now runs the application, wherever Flink's own settings say that it runs.

    Errors: Refused when any deployment runs one of its jobs; ConnectorError.
    """
    session = application.session({})
    with Leases(application.where).held(application.lease, lambda: True, timeout_s=0.0):
        return _start(application, session, jars())


def backfill(application: Application, rest: FlinkRest, timeout_s: float) -> None:
    """Runs a bounded application on the session cluster and returns when it has finished: all of what its source
    topics hold now, through the same statements, into topics of its own (made if they are not there).

    The running jobs are not disturbed: nothing of theirs is read but the source, and nothing written.
    Errors: Refused when it fails, or runs already; TimedOut; Unavailable.
    """
    if any(deployment.name == application.name for deployment in rest.live()):
        raise Refused(f"{application.name} runs already: wait until it has finished, or cancel it")
    create_topics(application.output_topics)
    session = application.session(flink.remote_target(application.where.flink_rest_url))
    job_id = flink.submit(session, application.statements()[1], lacking(rest))
    deadline_s = time.monotonic() + timeout_s
    while (state := next(d.state for d in rest.deployments() if d.job_id == job_id)) != "FINISHED":
        if state not in LIVE_STATES:
            raise Refused(f"{application.name} is {state}: {rest.root_cause(job_id)}")
        if time.monotonic() > deadline_s:
            raise TimedOut(f"{application.name} has not finished after {timeout_s:.0f} s (state {state})")
        time.sleep(0.5)


def cancel(deployment: Deployment, rest: FlinkRest, application: Application) -> None:
    """Stops a deployment where it is; its latest checkpoint stays, and its jobs are free."""
    rest.cancel(deployment.job_id)
    Leases(application.where).end_all(application.name, application.lease.jobs, application.cluster)


def stop(deployment: Deployment, rest: FlinkRest, application: Application) -> str:
    """Path of the savepoint that a deployment ends with, its transactions committed; its jobs are free."""
    path = rest.savepoint(deployment.job_id, application.savepoints, stop=True)
    rest.wait_until_ended(deployment.job_id)
    Leases(application.where).end_all(application.name, application.lease.jobs, application.cluster)
    return path


def overlapping(deployments: Iterable[Deployment], names: Iterable[str]) -> Deployment | None:
    """A live deployment that runs one of the named jobs already, or None."""
    wanted = frozenset(names)
    return next((d for d in deployments if d.live and jobs_of(d.name) & wanted), None)


def _start(application: Application, session: StreamTableEnvironment, jars: Iterable[Path]) -> str:
    """Id of the Flink job that runs the application's statements, and beats for its lease; `jars` go with it."""
    where = application.where
    for statement in application.lease.ddl(Cluster(where.kafka_bootstrap, where.registry_url)):
        session.execute_sql(statement)
    return flink.submit(session, [*application.statements()[1], application.lease.insert()], jars)


def _already(application: Application, job_id: str, savepoint: str | None) -> str:
    if savepoint is not None:
        raise Refused(f"{application.name} runs already ({job_id}): stop it before it can begin from a savepoint")
    log.info("already running", extra={"deployment": application.name, "job_id": job_id})
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
