"""A session in a process that has other threads."""

from __future__ import annotations

import threading
import time

from connectors.flink.session import streaming_session


def test_statements_keep_to_their_jvm_thread_while_another_thread_talks_to_the_jvm() -> None:
    """Without connections of its own the planner would run on a strange thread, and fail (FLINK-23020)."""
    session = streaming_session({"parallelism.default": "1"})
    from pyflink.java_gateway import get_gateway

    other = threading.Thread(target=get_gateway().jvm.java.lang.Thread.sleep, args=(20_000,), daemon=True)
    other.start()
    time.sleep(0.5)
    with session.execute_sql("SELECT COUNT(*) FROM (VALUES (1), (2)) AS pair (number)").collect() as rows:
        assert [tuple(row) for row in rows][-1] == (2,)
    assert other.is_alive(), "the other thread was to hold its connection all the while"
