"""Faults applied to real processes under traffic, at points drawn from a seed that is printed.

`HEADWATER_FAULT_ROUNDS` says how often each kill is repeated (2; `make nightly`: 20), `HEADWATER_FAULT_PAUSE_S` how
long something stands still (15; nightly: 60), `HEADWATER_FAULT_SEED` repeats what an earlier run drew.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from confluent_kafka import KafkaException, Producer

from connectors import kafka
from connectors.endpoints import Endpoints
from connectors.flink.rest import FlinkRest
from connectors.registry import SchemaRegistry
from infra.local import control
from infra.local.stack import COMPONENTS
from jobs.streaming.application import ALL_JOBS
from jobs.streaming.progress import committed_since, drain, unread
from jobs.transforms.event_rules import Event
from jobs.transforms.invalid_traffic import DATA_CENTER_REASON
from schemas.errors import ConnectorError
from schemas.topics import AD_DECISIONS
from tests.samples.ad_traffic import traffic
from tests.samples.stream_io import EventWriter, complete, now_ms
from tests.samples.stream_outputs import assert_outputs_equal_the_rules

ROUNDS = int(os.environ.get("HEADWATER_FAULT_ROUNDS", "2"))
PAUSE_S = float(os.environ.get("HEADWATER_FAULT_PAUSE_S", "15"))
SEED = int(os.environ.get("HEADWATER_FAULT_SEED", str(random.SystemRandom().randrange(10**6))))
BACK_WITHIN_S = 180.0
DAY_MS = 86_400_000

Fault = Callable[[], None]


def rng_of(name: str) -> random.Random:
    """The draws of one test. Shown when the test fails: pytest prints what a test writes."""
    print(f"HEADWATER_FAULT_SEED={SEED} repeats the draws of {name}")
    return random.Random(f"{SEED}|{name}")


def pid_of(where: Endpoints, name: str) -> int:
    """Process of a component. Fails the test when it has none."""
    state = control.running(where)
    assert state is not None, "the supervisor is gone"
    pid = state.components[name].pid
    assert pid is not None, f"{name} does not run: {state.components[name]}"
    return pid


def kill(where: Endpoints, name: str) -> None:
    """kill -9, and proof that another process came back and is ready."""
    state = control.running(where)
    assert state is not None, "the supervisor is gone"
    before = state.components[name]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline_s:
        state = control.running(where)
        assert state is not None, "the supervisor is gone"
        now = state.components[name]
        if now.state == "ready" and now.pid != before.pid and now.restarts > before.restarts:
            return
        time.sleep(0.2)
    raise AssertionError(f"{name} did not come back within {BACK_WITHIN_S:g} s")


def pause(where: Endpoints, pause_s: float, *names: str) -> None:
    """SIGSTOP: connections stay open, nothing is answered. Then it goes on as if no time had passed."""
    pids = [pid_of(where, name) for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(pause_s)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def without(where: Endpoints, *names: str) -> Iterator[None]:
    """Components are stopped while the block runs; what needs them runs on."""
    control.down(where, names)
    yield
    control.up(where, COMPONENTS, names, timeout_s=BACK_WITHIN_S)


@contextmanager
def during(fault: Fault) -> Iterator[None]:
    """Applies a fault beside the block; a fault that could not be applied fails the block."""
    problems: list[BaseException] = []

    def apply() -> None:
        try:
            fault()
        except BaseException as error:  # an assertion in a thread would be lost
            problems.append(error)

    thread = threading.Thread(target=apply, name="fault")
    thread.start()
    yield
    thread.join()
    if problems:
        raise problems[0]


class PatientWriter(EventWriter):
    """Writes as the publisher does: what a broker that went away left undecided is decided before anything else."""

    def _commit(self, batch: Sequence[dict[str, Any]]) -> None:
        published_ms = self._stamp(batch)  # once: what is written again is the same, whatever became of the first
        deadline_s = time.monotonic() + BACK_WITHIN_S
        while True:
            try:
                self._begin(batch, published_ms)
                self._until_decided(self._producer.commit_transaction, deadline_s)
            except KafkaException as error:
                if time.monotonic() > deadline_s:
                    raise
                self._give_up(error, deadline_s)
            else:
                self.written.extend(batch)
                return

    @staticmethod
    def _until_decided(call: Callable[[float], None], deadline_s: float) -> None:
        """Repeats a commit or an abort of which only the answer is still to come."""
        while True:
            try:
                return call(5)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline_s:
                    raise

    def _give_up(self, error: KafkaException, deadline_s: float) -> None:
        """Aborts the transaction, or begins as a new producer when the broker has given this one up."""
        if error.args[0].txn_requires_abort():
            with suppress(KafkaException):
                return self._until_decided(self._producer.abort_transaction, deadline_s)
        self._producer = kafka.transactional_producer("test", self._transactional_id, timeout_s=BACK_WITHIN_S)


def _unread() -> int:
    return unread(ALL_JOBS) + unread(ALL_JOBS, AD_DECISIONS)


class StreamUnderTest:
    """The stream jobs with all that they have been given: every output is compared with all of it, each time."""

    def __init__(self, where: Endpoints, gap_s: int, window_s: int, closing_s: float) -> None:
        self.where = where
        self.registry = SchemaRegistry(where.registry_url)
        self.writer = PatientWriter(self.registry, "test-publisher", decisions=True)
        self._gap_s = gap_s
        self._window_s = window_s
        self._closing_s = closing_s
        self._reasons: list[str] = []
        self._seed = 0

    def events(self, ads: int) -> list[Event]:
        """Events of ads that no other call gave, with copies, late ones, client clocks that are a day off,
        conversions that come before or after what they are credited to, traffic that is invalid by list, rate and
        pattern, and a campaign whose media do not play."""
        self._seed += 1
        events = [complete(event) for event in traffic(seed=1_000 + self._seed, ads=ads, span_ms=20_000).events]
        for event in events[5:50:10]:
            event["event_time_ms"] -= DAY_MS
        draw = random.Random(self._seed)
        impressions = [event for event in events if event["event_type"] == "impression"]
        planted = [self._conversion(shown, number) for number, shown in enumerate(impressions[::5])]
        planted += self._clicks_of_a_flood(next(e for e in impressions if e["user_pseudonym"]))
        planted += [self._beside(e, "error", 0) for e in impressions if e["campaign_id"] == "cmp-0"][::2]
        for event in planted:
            events.insert(draw.randrange(len(events)), event)
        self._make_suspect(events)
        return events

    @staticmethod
    def _make_suspect(events: Sequence[dict[str, Any]]) -> None:
        """Ads that are too long for how fast they are played, and ads from data centres. Those have no household: which
        others of a household become suspect depends on the order of users in different partitions."""
        for event in events:
            letter = ord(event["record_id"][0])
            if letter % 4 == 0:
                event["creative_length_s"] = 30
            if letter % 3 == 0 and event["household_pseudonym"] is None:
                event["quality_reasons"] = [DATA_CENTER_REASON]

    def _clicks_of_a_flood(self, shown: Event) -> list[Event]:
        """More clicks than a person makes in a window, of a user: in one partition, so in this order everywhere."""
        return [self._beside(shown, "click", 100 + number) for number in range(12)]

    def _beside(self, shown: Event, event_type: str, ordinal: int) -> Event:
        """Another event of an ad that was shown, a little before."""
        identity = f"{self._seed}-{shown['record_id']}-{event_type}-{ordinal}"
        return {
            **shown,
            "event_id": hashlib.blake2b(identity.encode(), digest_size=16).digest(),
            "event_type": event_type,
            "ordinal": ordinal,
            "cost_micros": 0,
            "event_time_ms": shown["event_time_ms"] - ordinal,
        }

    def _conversion(self, shown: Event, number: int) -> Event:
        """An order of the user that an ad was shown to; every other one names the ad too."""
        order = f"{self._seed}-{number}"
        named = {} if number % 2 else {"record_id": f"order-{order}", "campaign_id": "", "creative_id": ""}
        return {
            **shown,
            **named,
            "event_id": hashlib.blake2b(order.encode(), digest_size=16).digest(),
            "event_type": "conversion",
            "cost_micros": 0,
            "order_id": order,
            "conversion_value_micros": 1_000_000 + number,
            "event_time_ms": shown["event_time_ms"] + 10_000,
            "received_time_ms": shown["received_time_ms"] + 10_000,
            "published_time_ms": shown["published_time_ms"] + 10_000,
        }

    def refused(self, events: Sequence[Event]) -> list[Event]:
        """Copies of an event that fit the schema and break a rule, one each: their dead letters are waited for."""
        whole = next(e for e in events if e["event_type"] == "impression")  # a conversion may be of no known ad
        changes: list[tuple[str, dict[str, Any]]] = [
            ("missing_field", {"campaign_id": ""}),
            ("bad_value", {"cost_micros": -1}),
            ("bad_value", {"event_time_ms": whole["received_time_ms"] + DAY_MS}),  # a clock that is a day ahead
            ("absurd_time", {"event_time_ms": whole["event_time_ms"] - 8 * DAY_MS}),
        ]
        self._reasons += [reason for reason, _ in changes]
        return [{**whole, "event_id": os.urandom(16), **change} for _, change in changes]

    def replayed(self, reason: str, count: int) -> None:
        """So many refused records were written again as they were: each is refused again."""
        self._reasons += [reason] * count

    def poison(self, event: Event) -> list[bytes]:
        """Values that no reader can decode: the stream must skip them."""
        valid = self.writer.encode(complete(event))
        return [
            b"",
            b"no header",
            valid[:1] + (2**31 - 1).to_bytes(4, "big") + valid[5:],  # a schema id that nobody registered
            valid[: len(valid) // 2],
            valid + b"\x02",  # a decoder that reads ahead takes it for the beginning of the next record
            valid[:5] + b"\xff" * 40,
        ]

    def run(self, events: Iterable[Event], per_second: float, fault: Fault, after: int) -> None:
        """Writes events at a steady pace; applies a fault beside them once `after` are written."""
        written_before = len(self.writer.written)
        faults: list[Any] = []

        def then(written: int) -> None:
            if not faults and written - written_before >= after:
                faults.append(during(fault))
                faults[0].__enter__()

        self.writer.write(events, per_second=per_second, then=then)
        assert faults, "the fault was never applied"
        faults[0].__exit__(None, None, None)

    def job_id(self, rest: FlinkRest) -> str | None:
        """Id of the running application, whichever submission it is of."""
        try:
            return next((d.job_id for d in rest.live() if d.name == ALL_JOBS and rest.tasks_running(d.job_id)), None)
        except ConnectorError:
            return None

    def settle(self, timeout_s: float = 240.0) -> str:
        """Returns, with the job's id, when all that is written is read and in a checkpoint that has completed."""
        deadline_s = time.monotonic() + timeout_s
        read_ms: int | None = None
        with FlinkRest(self.where.flink_rest_url) as rest:
            while time.monotonic() < deadline_s:
                job_id = self.job_id(rest)
                try:
                    if job_id is not None and read_ms is None and _unread() == 0:
                        read_ms = now_ms()
                    if job_id is not None and read_ms is not None and committed_since(rest, job_id, read_ms):
                        return job_id
                except ConnectorError:
                    pass
                time.sleep(0.3)
        raise AssertionError(f"not settled after {timeout_s:g} s: {_unread()} events and decisions are not read")

    def assert_exact(self) -> None:
        """All outputs that do not wait for sessions to close, as sets."""
        self.settle()
        assert_outputs_equal_the_rules(self.writer.written, self._reasons, self.registry, self._gap_s, closed=False)

    def assert_exact_when_closed(self) -> None:
        """All outputs as sets, once every session is closed and every pattern's window has passed."""
        job_id = self.settle()
        with FlinkRest(self.where.flink_rest_url) as rest:
            drain(rest, job_id, ALL_JOBS, max(self._gap_s, self._window_s), timeout_s=self._closing_s)
        self.assert_outputs()

    def assert_outputs(self, suffix: str = "") -> None:
        """All outputs as sets, as they are now: the running jobs', or those of a backfill into `<topic><suffix>`."""
        assert_outputs_equal_the_rules(self.writer.written, self._reasons, self.registry, self._gap_s, suffix=suffix)


@contextmanager
def full_disk(where: Endpoints, *names: str) -> Iterator[None]:
    """No file of these components grows beyond a few bytes while the block runs: a disk without space, to them."""
    processes = [psutil.Process(pid_of(where, name)) for name in names]
    before = [process.rlimit(psutil.RLIMIT_FSIZE) for process in processes]
    for process, (_soft, hard) in zip(processes, before, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        for process, limits in zip(processes, before, strict=True):
            process.rlimit(psutil.RLIMIT_FSIZE, limits)


def open_transaction(transactional_id: str, topic: str, timeout_ms: int) -> Producer:
    """A producer whose transaction is open, with one record in it: what a killed writer leaves behind."""
    made = kafka.transactional_producer("test-hanging", transactional_id, {"transaction.timeout.ms": timeout_ms})
    made.begin_transaction()
    made.produce(topic, b"never committed", b"hanging")
    assert made.flush(30) == 0
    return made
