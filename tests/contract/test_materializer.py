"""The materializer on real services: what the topics say is what Valkey holds, whatever is killed or emptied."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from connectors.endpoints import Endpoints
from connectors.valkey import Valkey
from infra.local import control
from infra.local.stack import COMPONENTS
from schemas.redis_layout import entity_key, open_wins_key, spend_key
from schemas.topics import FREQUENCY_COUNTS
from tests.samples.absolute_values import Values
from tests.samples.faults import ROUNDS, during, rng_of
from tests.samples.ingest import Service, service, wait_until


@pytest.fixture(scope="module")
def values(local_services: Endpoints) -> Values:
    return Values(local_services)


@pytest.fixture(scope="module")
def materializer(local_services: Endpoints) -> Iterator[Service]:
    with service("jobs.materializer", local_services.port("materializer_metrics")) as started:
        yield started


def test_values_arrive_and_users_expire(values: Values, materializer: Service, local_services: Endpoints) -> None:
    values.write(1, 500)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
    with Valkey(local_services.valkey_url) as valkey:
        assert valkey.call("TTL", entity_key("user", "v1:u1")) > 399 * 86_400
        assert valkey.call("TTL", entity_key("household", "v1:h1")) > 399 * 86_400
        assert 86_400 < valkey.call("TTL", entity_key("creative", "cr-1")) < 3 * 86_400
        assert 0 < valkey.call("TTL", open_wins_key("c-1")) <= 86_400
        assert valkey.call("TTL", spend_key("c-1")) == -1


def test_killed_in_traffic(values: Values, materializer: Service, local_services: Endpoints) -> None:
    draw = rng_of("materializer")
    for round_ in range(max(ROUNDS, 4)):
        values.write(20_000 + round_ * 600, 600)
        time.sleep(draw.uniform(0, 0.1))
        materializer.kill()
        materializer.restart()
        wait_until("the next one is ready", materializer.status)
    wait_until("Valkey holds the values", lambda: values.held(local_services))


def test_an_emptied_valkey_is_filled_again_without_traffic(
    values: Values, materializer: Service, local_services: Endpoints
) -> None:
    assert values.held(local_services)
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("FLUSHALL")
    assert not values.held(local_services)
    wait_until("Valkey holds the values", lambda: values.held(local_services))


def test_emptied_again_and_again_in_traffic(values: Values, materializer: Service, local_services: Endpoints) -> None:
    """What a rebuild reads again and what the stream writes meanwhile meet in the same hashes: the latest win."""

    draw = rng_of("emptied in traffic")

    def empty() -> None:
        time.sleep(draw.uniform(0, 0.3))
        with Valkey(local_services.valkey_url) as valkey:
            valkey.call("FLUSHALL")

    for round_ in range(max(ROUNDS, 3)):
        with during(empty):
            values.write(40_000 + round_ * 1_500, 1_500)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
    wait_until("nothing is rebuilt any more", lambda: (s := materializer.status()) and not s["rebuilding"])


def test_a_valkey_that_was_away_is_waited_for_and_checked(
    values: Values, materializer: Service, local_services: Endpoints
) -> None:
    before = wait_until("ready", materializer.status)["rebuilds"]
    control.down(local_services, ["valkey"])
    values.write(5_000, 200)
    wait_until("the worker waits", lambda: (s := materializer.status()) and s["waiting_for"])
    time.sleep(1)
    control.up(local_services, COMPONENTS, ["valkey"], timeout_s=60)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
    wait_until(
        "rebuilt: a restarted server may have lost its last writes",
        lambda: (s := materializer.status()) and s["rebuilds"] == before + 1 and not s["rebuilding"],
    )


def test_rebuild_by_command_beside_the_running_worker(
    values: Values, materializer: Service, local_services: Endpoints
) -> None:
    key, fields = next(iter(values.expected.items()))
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("HSET", key, next(iter(fields)), b"tampered with")
    command = Service("jobs.materializer", local_services.port("materializer_metrics"), "--rebuild")
    assert command.process.wait(120) == 0
    assert values.held(local_services)


def test_rebuild_by_command_alone(values: Values, materializer: Service, local_services: Endpoints) -> None:
    assert materializer.stop() == 0
    with Valkey(local_services.valkey_url) as valkey:
        valkey.call("FLUSHALL")
    command = Service("jobs.materializer", local_services.port("materializer_metrics"), "--rebuild")
    assert command.process.wait(120) == 0
    assert values.held(local_services)


def test_what_no_counter_declares_is_left_out(values: Values, materializer: Service, local_services: Endpoints) -> None:
    materializer.restart()
    values.unknown()
    values.send(FREQUENCY_COUNTS.name, "y", b"not avro")
    values.write(9_000, 100)
    wait_until("Valkey holds the values", lambda: values.held(local_services))
