"""Calls that are given up, as dead letters: `raw` is the call, so writing it back to its topic makes it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import Producer

from jobs.vendors.lane import Call
from schemas.codec import Encoder
from schemas.dead_letters import dead_letter
from schemas.errors import Reject, TimedOut
from schemas.topics import TRACKER_CALLS, TRACKER_CALLS_DLQ

_FLUSH_S = 10.0


@dataclass(frozen=True, slots=True)
class GivenUp:
    """One call and why."""

    partition: int
    partner: str
    call: Call
    reject: Reject


class DeadLetters:
    """Writes dead letters. Blocks; at least once."""

    def __init__(self, producer: Producer, encode: Encoder, job: str, job_version: str, now_ms: Callable[[], int]):
        self._producer = producer
        self._encode = encode
        self._job = job
        self._job_version = job_version
        self._now_ms = now_ms

    def write(self, letters: Sequence[GivenUp]) -> None:
        """Returns when Kafka has them all. Errors: TimedOut; then they are to be written again."""
        for given_up in letters:
            call, key = given_up.call, given_up.partner.encode()
            letter = dead_letter(
                given_up.reject,
                TRACKER_CALLS.name,
                self._job,
                self._job_version,
                self._now_ms(),
                partition=given_up.partition,
                offset=call.offset,
                key=key,
                raw=call.raw,
            )
            self._producer.produce(TRACKER_CALLS_DLQ.name, self._encode(letter), key)
        if self._producer.flush(_FLUSH_S):
            self._producer.purge()
            raise TimedOut("kafka: dead letters not taken in time")
