"""Publisher, event handler and materializer under the supervisor, while the broker or they themselves are struck.

One chain under traffic: telemetry → publisher → ad events → event handler → a partner; beside it absolute values →
materializer → Valkey. After each fault every event, call and value is compared with what was written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from connectors.endpoints import Endpoints
from infra.local import control
from infra.local.stack import COMPONENTS
from jobs.streaming.progress import unread
from schemas.catalog import Partner as Row
from schemas.catalog import Partners
from schemas.catalog_text import dump
from schemas.events import BY_NAME
from schemas.ids import encode_id, event_id, tracker_call_id
from schemas.topics import AD_EVENTS, AD_TELEMETRY
from tests.samples.absolute_values import Values
from tests.samples.faults import PAUSE_S, ROUNDS, during, kill, pause, rng_of, without
from tests.samples.ingest import Ads, lives, wait_until
from tests.samples.partners import Partner, partner

WORKERS = ("publisher", "vendors", "materializer")
ADS_AT_ONCE = 10
VALUES_AT_ONCE = 30
#: Between two writes: slow enough that the fault, not the load, decides how long a test takes.
PACE_S = 0.5


class Chain:
    """What has been put into both chains, and whether all of it came out."""

    def __init__(self, where: Endpoints, at: Partner) -> None:
        self.where = where
        self._at = at
        self._url = f"{at.url}/i"
        self._ads = Ads(where)
        self._values = Values(where, mark="of-faults-")
        self._written = 0
        self._ids: set[str] = set()
        self._events: set[bytes] = set()
        self._calls: set[str] = set()

    def write(self) -> None:
        """Lives of some more ads, and some more values."""
        ids = self._ads.make(ADS_AT_ONCE, trackers={"impression": [self._url]})
        telemetry, events = lives(self._ads, ids)
        self._ads.send(telemetry)
        self._ids |= {encode_id(raw) for raw in ids}
        self._events |= events
        self._calls |= {tracker_call_id(event_id(raw, BY_NAME["impression"].code, 0), self._url) for raw in ids}
        self._values.write(1 + self._written, VALUES_AT_ONCE)
        self._written += VALUES_AT_ONCE

    def run(self, fault: Callable[[], None]) -> None:
        """Writes before the fault, beside it, and after it is over."""
        over = threading.Event()

        def strike() -> None:
            try:
                fault()
            finally:
                over.set()

        self.write()
        with during(strike):
            while not over.is_set():
                self.write()
                time.sleep(PACE_S)
        self.write()

    def assert_exact(self) -> None:
        wait_until("the publisher has read everything", lambda: unread("publisher", AD_TELEMETRY) == 0, 180)
        found = [e["event_id"] for e in self._ads.read_all(AD_EVENTS) if e["record_id"] in self._ids]
        assert len(found) == len(set(found)), "an event twice"
        assert set(found) == self._events
        wait_until("every call is made", lambda: self._at.taken.keys() >= self._calls, 180)
        assert self._at.taken.keys() == self._calls
        wait_until("Valkey holds the values", lambda: self._values.held(self.where))


@pytest.fixture(scope="module")
def chain(local_services: Endpoints) -> Iterator[Chain]:
    with partner() as at:
        row = Row("partner", [f"127.0.0.1:{at.port}"], max_per_s=5_000, max_in_flight=8)
        local_services.partners_path.write_text(dump(Partners(1, [row])))
        control.up(local_services, COMPONENTS, WORKERS, timeout_s=180)
        yield Chain(local_services, at)
        control.down(local_services, WORKERS)
        local_services.partners_path.unlink(missing_ok=True)


def broker_killed(where: Endpoints) -> None:
    draw = rng_of("broker under workers")
    for _ in range(ROUNDS):
        time.sleep(draw.uniform(0.0, 3.0))
        kill(where, "kafka")


def broker_away(where: Endpoints) -> None:
    """Its process has ended: connections are refused."""
    with without(where, "kafka"):
        time.sleep(PAUSE_S)


def broker_stands_still(where: Endpoints) -> None:
    pause(where, PAUSE_S, "kafka")


def workers_stand_still(where: Endpoints) -> None:
    """For longer than their transactions and their membership of a group live."""
    pause(where, PAUSE_S, *WORKERS)


@pytest.mark.parametrize("fault", [broker_killed, broker_away, broker_stands_still, workers_stand_still])
def test_nothing_is_lost_or_doubled(chain: Chain, fault: Callable[[Endpoints], None]) -> None:
    chain.run(lambda: fault(chain.where))
    chain.assert_exact()
