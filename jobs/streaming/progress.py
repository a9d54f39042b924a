"""How far the application has come: what it has not read, which sessions are still open, what is not committed yet.

Kafka's consumer lag does not answer this: in a topic that is written in transactions every partition ends with a
commit marker, which no reader's offset ever passes, so the lag stays above 0 for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import TopicPartition

from connectors import kafka
from connectors.flink.rest import FlinkRest
from schemas.errors import TimedOut
from schemas.topics import AD_EVENTS, Topic

_POLL_S = 0.25
#: The session operator's share of its task's name in Flink, and its watermark's metric.
_SESSIONS_TASK = "ad_sessions"
_WATERMARK = "currentInputWatermark"
#: A life closes at the whole second after its gap.
_ROUNDED_UP_MS = 1_000


def unread(group: str, topic: Topic = AD_EVENTS, limit: int = 10_000) -> int:
    """Committed records of `topic` past the offsets of `group`, up to `limit`. Reads them to tell them from markers.

    Flink moves the offsets when a checkpoint completes, so 0 also means that every record is in a checkpoint.
    """
    ends = {p: end for p, end in kafka.end_offsets(topic.name).items() if end > 0}
    starts = {**kafka.beginning_offsets(topic.name), **kafka.committed_offsets(group, topic.name)}
    behind = {p: end for p, end in ends.items() if starts[p] < end}
    consumer = kafka.consumer("streaming-progress", "streaming-progress")
    try:
        consumer.assign([TopicPartition(topic.name, p, starts[p]) for p in behind])
        records = 0
        while behind and records < limit:
            if kafka.value_of(consumer.poll(0.1)) is not None:
                records += 1
            positions = {tp.partition: tp.offset for tp in consumer.position(consumer.assignment())}
            behind = {p: end for p, end in behind.items() if positions[p] < end}
        return records
    finally:
        consumer.close()


def sessions_closed_until_ms(rest: FlinkRest, job_id: str) -> int | None:
    """Publish time up to which all sessions are closed, or None when no task says (restarting, or not deployed)."""
    watermarks = rest.task_metric(job_id, _SESSIONS_TASK, _WATERMARK)
    return int(min(watermarks)) if watermarks else None


def committed_since(rest: FlinkRest, job_id: str, time_ms: int) -> bool:
    """Whether a checkpoint that was triggered after `time_ms` has completed: all that was done before is visible."""
    latest = rest.checkpoints(job_id)["latest"]["completed"]
    return latest is not None and latest["trigger_timestamp"] > time_ms


def drain(rest: FlinkRest, job_id: str, group: str, gap_s: int, timeout_s: float) -> None:
    """Returns when everything published before the call is in the outputs, closed sessions included.

    Errors: TimedOut, which says what was waited for.
    """
    called_ms = _now_ms()
    deadline = time.monotonic() + timeout_s

    def wait(done: Callable[[], bool], what: Callable[[], str]) -> None:
        while not done():
            if time.monotonic() > deadline:
                raise TimedOut(f"not drained after {timeout_s:.0f} s: {what()}")
            time.sleep(_POLL_S)

    wanted_ms = called_ms + gap_s * 1000 + _ROUNDED_UP_MS

    def still_open() -> str:
        until_ms = sessions_closed_until_ms(rest, job_id)
        reached = "no task says" if until_ms is None else f"{(_now_ms() - until_ms) / 1000:.1f} s ago"
        return (
            f"sessions are closed up to: {reached}, wanted {(_now_ms() - wanted_ms) / 1000:.1f} s ago; they "
            "close when the source has been idle for source_idle_s"
        )

    wait(lambda: unread(group) == 0, lambda: "events are not all read")
    wait(lambda: (sessions_closed_until_ms(rest, job_id) or 0) >= wanted_ms, still_open)
    closed_ms = _now_ms()
    wait(lambda: committed_since(rest, job_id, closed_ms), lambda: "no checkpoint has completed")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
