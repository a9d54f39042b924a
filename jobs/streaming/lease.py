"""A job is deployed once, whatever cluster it is on: its deployment shows signs of life in stream-leases-v1.

Why: a sink that starts aborts the open transactions of its prefix, so two deployments of one job would destroy each
other's transactions, and would write every row twice. Flink's REST door knows its own cluster only; Kafka is what all
of them share. The running job itself beats (one row a second, beside its other outputs), so a lease lives exactly as
long as the job does, and nothing has to run next to it.

A deployment is taken for dead `SILENCE_S` after its last beat, so that is how long another cluster has to wait after
one was lost without a word, and how long an outage may last without another cluster being allowed to take over. On
the same cluster its REST door says that the job is gone; then only beats that still come (tasks that have not noticed
yet that their JobManager is gone) are waited out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Message

from connectors import kafka
from connectors.endpoints import Endpoints
from connectors.flink.tables import Cluster, avro_sink_ddl
from connectors.records import RecordDecoder, encoder
from connectors.registry import SchemaRegistry
from schemas.errors import Refused, TimedOut
from schemas.topics import STREAM_LEASES

SILENCE_S = 60.0
#: On the same cluster: no beat for so long means that the last task has ended.
QUIET_S = 5.0
_BEAT_S = 1.0
_POLL_S = 0.5
#: Records from the end that hold the latest beats of all deployments.
_TAIL = 5_000


@dataclass(frozen=True, slots=True)
class Lease:
    """Claim of one submission (`owner`) to some jobs. `cluster` is its REST address, '' for a cluster of its own."""

    deployment: str
    jobs: tuple[str, ...]
    owner: str
    cluster: str

    @staticmethod
    def ddl(cluster: Cluster) -> list[str]:
        """CREATE TABLEs of what beats and where it beats."""
        ticks = """CREATE TEMPORARY TABLE `lease_ticks` (
  `tick` BIGINT
) WITH (
  'connector' = 'datagen',
  'rows-per-second' = '1',
  'scan.parallelism' = '1'
)"""
        return [ticks, avro_sink_ddl("stream_leases", STREAM_LEASES, cluster, None, key="deployment")]

    def insert(self) -> str:
        """INSERT that beats once a second for as long as the job runs."""
        return f"""INSERT INTO `stream_leases`
SELECT '{self.deployment}', '{",".join(self.jobs)}', '{self.owner}', '{self.cluster}',
  UNIX_TIMESTAMP() * 1000
FROM lease_ticks"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Another owner of one of the jobs: its first and its latest beat in the topic."""

    owner: str
    deployment: str
    cluster: str
    first_offset: int
    last_offset: int
    beat_time_ms: int

    def silent_s(self, now_ms: int) -> float:
        return max(0.0, (now_ms - self.beat_time_ms) / 1000)


class Leases:
    """The topic of leases: claims, beats, releases.

    Errors of every call: ConnectorError.
    """

    def __init__(self, where: Endpoints) -> None:
        registry = SchemaRegistry(where.registry_url)
        self._decode = RecordDecoder(STREAM_LEASES, registry)
        self._encode = encoder(STREAM_LEASES, registry)
        self._producer = kafka.producer("stream-leases")

    def holders(self, lease: Lease) -> list[Holder]:
        """Others that have beaten for one of the lease's jobs and have not ended, the longest silent first."""
        end = kafka.end_offsets(STREAM_LEASES.name)[0]
        first: dict[str, int] = {}
        last: dict[str, tuple[int, dict[str, Any]]] = {}
        for message in kafka.read_topic(STREAM_LEASES.name, {0: max(self._beginning(), end - _TAIL)}):
            _schema_id, beat = self._decode(message.value())
            if isinstance(beat, dict) and beat["owner"] != lease.owner and _shared(beat, lease.jobs):
                offset = int(message.offset() or 0)
                first.setdefault(beat["owner"], offset)
                last[beat["owner"]] = offset, beat
        found = [
            Holder(owner, beat["deployment"], beat["cluster"], first[owner], offset, beat["beat_time_ms"])
            for owner, (offset, beat) in last.items()
            if beat["beat_time_ms"] > 0
        ]
        return sorted(found, key=lambda holder: holder.beat_time_ms)

    @contextmanager
    def held(self, lease: Lease, gone: Callable[[], bool], timeout_s: float) -> Iterator[None]:
        """Holds the lease while the block submits; the job's own beats follow. It ends if the block fails.

        `gone` says whether the cluster's REST door knows none of the jobs any more; it may raise to end the wait.
        Errors: Refused when another deployment holds one of the jobs.
        """
        offset = self._beat(lease)
        over = threading.Event()

        def beat_on() -> None:
            while not over.wait(_BEAT_S):
                self._beat(lease)

        beating = threading.Thread(target=beat_on, name="lease", daemon=True)
        beating.start()
        try:
            self._await_free(lease, offset, gone, timeout_s)
            yield
        except BaseException:
            over.set()
            beating.join()
            self.end(lease)
            raise
        over.set()
        beating.join()

    def end(self, lease: Lease) -> None:
        """Says that the deployment has ended: its jobs are free at once."""
        self._beat(lease, time_ms=0)

    def end_all(self, deployment: str, jobs: tuple[str, ...], cluster: str) -> None:
        """The same for whoever ran a deployment that was stopped through the REST door of `cluster`.

        Whoever runs under that name on a cluster of its own beats again within a second, and so keeps its lease.
        """
        for holder in self.holders(Lease(deployment, jobs, "", cluster)):
            if holder.deployment == deployment and holder.cluster in (cluster, ""):
                self.end(Lease(deployment, jobs, holder.owner, holder.cluster))

    def _await_free(self, lease: Lease, claim: int, gone: Callable[[], bool], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        seen: tuple[int, ...] | None = None
        quiet_since_s = time.monotonic()
        while True:
            now_ms = _now_ms()
            alive = [
                holder
                for holder in self.holders(lease)
                if holder.first_offset < claim and holder.silent_s(now_ms) < SILENCE_S
            ]
            if not alive:
                return
            for holder in alive:
                if not lease.cluster or holder.cluster != lease.cluster:
                    raise Refused(_held_by(holder, now_ms))
            beats = tuple(holder.last_offset for holder in alive)
            if beats != seen:
                seen, quiet_since_s = beats, time.monotonic()
            elif time.monotonic() - quiet_since_s > QUIET_S and gone():
                return
            if time.monotonic() > deadline_s:
                raise Refused(_held_by(alive[-1], now_ms))
            time.sleep(_POLL_S)

    def _beginning(self) -> int:
        return kafka.beginning_offsets(STREAM_LEASES.name)[0]

    def _beat(self, lease: Lease, time_ms: int | None = None) -> int:
        """Offset of a new beat."""
        offsets: list[int] = []

        def delivered(error: object, message: Message) -> None:
            if error is None:
                offsets.append(int(message.offset() or 0))

        beat = {
            "deployment": lease.deployment,
            "jobs": ",".join(lease.jobs),
            "owner": lease.owner,
            "cluster": lease.cluster,
            "beat_time_ms": _now_ms() if time_ms is None else time_ms,
        }
        key = lease.deployment.encode()
        self._producer.produce(STREAM_LEASES.name, self._encode(beat), key, on_delivery=delivered)
        self._producer.flush(kafka.REQUEST_TIMEOUT_S)
        if not offsets:
            raise TimedOut(f"{STREAM_LEASES.name} takes no record")
        return offsets[0]


def _shared(beat: dict[str, Any], jobs: Sequence[str]) -> bool:
    return not set(jobs).isdisjoint(beat["jobs"].split(","))


def _held_by(holder: Holder, now_ms: int) -> str:
    where = holder.cluster or "a cluster of its own"
    return (
        f"deployment {holder.deployment} on {where} runs one of these jobs: its last sign of life is "
        f"{holder.silent_s(now_ms):.0f} s old. Stop it there first; if that cluster is lost, wait until "
        f"{SILENCE_S:.0f} s have passed without one"
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
