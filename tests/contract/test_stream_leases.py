"""No stream job is deployed twice: claims and signs of life in a real topic, as several clusters see them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from connectors import kafka
from connectors.endpoints import Endpoints
from connectors.records import encoder
from connectors.registry import SchemaRegistry
from jobs.streaming.lease import SILENCE_S, Lease, Leases
from schemas.errors import Refused
from schemas.topics import STREAM_LEASES
from tests.samples.ingest import now_ms

HERE, THERE = "http://here:8081", "http://there:8081"


@pytest.fixture(scope="module")
def leases(local_services: Endpoints) -> Leases:
    return Leases(local_services)


def lease(owner: str, *jobs: str, cluster: str = HERE) -> Lease:
    return Lease("+".join(jobs), jobs, f"{owner}-{time.monotonic_ns()}", cluster)


def beat(where: Endpoints, of: Lease, time_ms: int) -> None:
    """A sign of life as a running job writes it."""
    made = kafka.producer("test-job")
    row = {"deployment": of.deployment, "jobs": ",".join(of.jobs), "owner": of.owner, "cluster": of.cluster}
    encode = encoder(STREAM_LEASES, SchemaRegistry(where.registry_url))
    made.produce(STREAM_LEASES.name, encode({**row, "beat_time_ms": time_ms}), of.deployment.encode())
    assert made.flush(30) == 0


def take(leases: Leases, wanted: Lease, timeout_s: float = 0.0) -> None:
    with leases.held(wanted, lambda: True, timeout_s):
        pass


def test_a_job_that_lives_on_another_cluster_is_refused(local_services: Endpoints, leases: Leases) -> None:
    running = lease("running", "a1", "a2", cluster=THERE)
    beat(local_services, running, now_ms())
    with pytest.raises(Refused, match=r"a1\+a2 on http://there:8081"):
        take(leases, lease("second", "a2", "a3"))
    take(leases, lease("other-jobs", "a4"))


def test_a_deployment_that_has_ended_or_was_silent_for_long_holds_nothing(
    local_services: Endpoints, leases: Leases
) -> None:
    running = lease("running", "b1", cluster=THERE)
    beat(local_services, running, now_ms() - int(SILENCE_S * 1000) - 1_000)
    take(leases, lease("after-silence", "b1", cluster=""))
    lost = lease("ended", "b2", cluster=THERE)
    beat(local_services, lost, now_ms())
    leases.end(lost)
    take(leases, lease("after-end", "b2"))


def test_on_one_cluster_the_last_tasks_of_a_lost_job_are_waited_out(local_services: Endpoints, leases: Leases) -> None:
    """The REST door says that the job is gone, and its tasks still beat: they have not noticed yet."""
    lost = lease("lost", "c1")
    over = threading.Event()

    def tasks() -> None:
        for _ in range(6):
            beat(local_services, lost, now_ms())
            time.sleep(0.5)
        over.set()

    beat(local_services, lost, now_ms())
    thread = threading.Thread(target=tasks)
    thread.start()
    take(leases, lease("next", "c1"), timeout_s=60)
    assert over.is_set(), "it began while tasks of the lost one were at work"
    thread.join()


def test_one_cluster_does_not_run_a_job_that_never_falls_silent(local_services: Endpoints, leases: Leases) -> None:
    running = lease("running", "d1")
    with beats(local_services, running), pytest.raises(Refused, match="sign of life"):
        take(leases, lease("second", "d1"), timeout_s=4)


@contextmanager
def beats(where: Endpoints, of: Lease) -> Iterator[None]:
    """Beats twice a second for as long as the block runs."""
    over = threading.Event()

    def beat_on() -> None:
        while not over.wait(0.5):
            beat(where, of, now_ms())

    beat(where, of, now_ms())
    thread = threading.Thread(target=beat_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_of_two_that_claim_a_job_at_the_same_time_one_gets_it(local_services: Endpoints) -> None:
    """Each on a cluster of its own, round after round: never both."""
    for number in range(4):
        together, got = threading.Barrier(2), []

        def claim(owner: str, number: int = number, together: threading.Barrier = together, got: list = got) -> None:
            wanted = lease(owner, f"e{number}", cluster=f"http://{owner}:8081")
            mine = Leases(local_services)
            together.wait()
            with suppress(Refused), mine.held(wanted, lambda: True, 0.0):
                got.append(owner)
                time.sleep(1.5)

        threads = [threading.Thread(target=claim, args=(owner,)) for owner in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1, got


def test_a_submission_that_fails_frees_its_jobs(leases: Leases) -> None:
    with pytest.raises(RuntimeError, match="does not compile"), leases.held(lease("broken", "f1"), lambda: True, 0.0):
        raise RuntimeError("does not compile")
    take(leases, lease("next", "f1", cluster=THERE))
