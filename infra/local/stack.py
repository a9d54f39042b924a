"""The whole local stack, declared: every component with what it needs.

`COMPONENTS` is in the order that `headwater status` shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping

from connectors.endpoints import Endpoints
from infra.local import readiness
from infra.local.component import Component
from infra.local.flink import JOBMANAGER, TASKMANAGER
from infra.local.flink import environment as flink_environment
from infra.local.flink import write_configuration as write_flink_configuration
from infra.local.platform import DRUID, KAFKA, MLFLOW, REGISTRY, VALKEY
from schemas.topics import AD_TELEMETRY

#: Python services use one thread for linear algebra each: they share the machine with everything else.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

#: Compiling and submitting the stream jobs is the longest: 15 CPU-seconds, on a machine that is starting all else.
STEP_TIMEOUT_S = 300.0


def _step(
    name: str,
    *arguments: str,
    needs: tuple[str, ...],
    alongside: tuple[str, ...] = (),
    again_after: tuple[str, ...] = (),
    environment: Callable[[Endpoints], Mapping[str, str]] = lambda _: _ONE_THREAD,
    prepare: Callable[[Endpoints], None] | None = None,
) -> Component:
    """A command of this project that must succeed before what needs it starts. It must be idempotent."""
    return Component(
        name=name,
        kind="step",
        command=lambda _: [sys.executable, "-m", *arguments],
        needs=needs,
        alongside=alongside,
        again_after=again_after,
        environment=environment,
        prepare=prepare,
        ready_timeout_s=STEP_TIMEOUT_S,
    )


def _service(name: str, module: str, port: str, needs: tuple[str, ...], **environment: str) -> Component:
    """A Python process of this project that answers `GET /status` on a named port."""
    return Component(
        name=name,
        command=lambda _: [sys.executable, "-m", module],
        ready=readiness.status_of(port),
        needs=needs,
        ports=(port,),
        environment=lambda _: {**_ONE_THREAD, **environment},
    )


def _publisher(number: int) -> Component:
    """One of several publishers of one consumer group, named as a stable member of it."""
    return _service(
        f"publisher-{number}",
        "jobs.publisher",
        f"publisher_{number}_metrics",
        needs=("contracts", "valkey"),
        HEADWATER_PUBLISHER_WORKER=str(number - 1),
    )


#: Publishers beside the first, started when they are asked for: as many in all as telemetry has partitions.
MORE_PUBLISHERS = tuple(_publisher(number) for number in range(2, AD_TELEMETRY.partitions + 1))

_ALL: tuple[Component, ...] = (
    KAFKA,
    REGISTRY,
    VALKEY,
    JOBMANAGER,
    TASKMANAGER,
    DRUID,
    MLFLOW,
    _step("contracts", "infra.contracts", needs=("kafka", "registry")),
    _step("catalog", "infra.simulator.world", "--ensure", needs=()),
    _step("druid-supervisors", "connectors.druid", "ensure", needs=("druid", "contracts")),
    _step(
        "jobs",
        *("jobs.streaming", "submit"),
        needs=("catalog",),  # attribution takes the advertisers' look-backs from it
        alongside=("contracts", "flink-jobmanager", "flink-taskmanager"),  # it compiles while they start
        again_after=("flink-jobmanager",),
        environment=flink_environment,
        prepare=write_flink_configuration,
    ),
    _service("flink-metrics", "infra.monitoring.flink_metrics", "flink_prometheus", needs=("flink-jobmanager",)),
    _service("dsps", "infra.simulator.dsps", "dsps", needs=("catalog",)),
    _service("adserver", "serving.adserver", "adserver", needs=("contracts", "valkey", "catalog")),
    _service("collector", "serving.collector", "collector", needs=("contracts",)),
    _service("publisher", "jobs.publisher", "publisher_metrics", needs=("contracts", "valkey")),
    *MORE_PUBLISHERS,
    _service("materializer", "jobs.materializer", "materializer_metrics", needs=("contracts", "valkey")),
    _service(
        "vendors",
        "jobs.vendors",
        "vendors_metrics",
        needs=("contracts", "valkey", "catalog"),
        HEADWATER_VENDORS_ALLOW_PRIVATE="true",  # the simulated partners are on loopback
    ),
    _service("lake", "jobs.lake", "lake_metrics", needs=("contracts",)),
    _service("reporting", "serving.reporting", "reporting", needs=("druid", "catalog")),
)
COMPONENTS: dict[str, Component] = {component.name: component for component in _ALL}
#: What starts when nothing is named.
DEFAULT: tuple[str, ...] = tuple(name for name in COMPONENTS if COMPONENTS[name] not in MORE_PUBLISHERS)


def with_publishers(names: Iterable[str], count: int) -> list[str]:
    """Names of components, with so many publishers among them.

    Example:
    >>> with_publishers(["valkey"], 3)
    ['valkey', 'publisher', 'publisher-2', 'publisher-3']
    """
    wanted = ["publisher", *(component.name for component in MORE_PUBLISHERS)][:count]
    return list(dict.fromkeys([*names, *wanted]))
