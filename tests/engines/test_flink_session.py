"""A session in a process that has other threads."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from connectors.flink.java_jar import DoesNotCompile, compiled_jar
from connectors.flink.library import added_jars, lacking
from connectors.flink.session import streaming_session
from jobs.streaming.own_java import own_java


def test_statements_keep_to_their_jvm_thread_while_another_thread_talks_to_the_jvm() -> None:
    """Without connections of its own the planner would run on a strange thread, and fail (FLINK-23020)."""
    session = streaming_session({"parallelism.default": "1"}, own_java())
    from pyflink.java_gateway import get_gateway

    other = threading.Thread(target=get_gateway().jvm.java.lang.Thread.sleep, args=(20_000,), daemon=True)
    other.start()
    time.sleep(0.5)
    with session.execute_sql("SELECT COUNT(*) FROM (VALUES (1), (2)) AS pair (number)").collect() as rows:
        assert [tuple(row) for row in rows][-1] == (2,)
    assert other.is_alive(), "the other thread was to hold its connection all the while"


def test_a_session_has_our_java_in_its_class_path_and_sends_what_is_missing() -> None:
    """Jars of a submission are loaded and compiled anew each time: nothing goes along that is there already."""
    session = streaming_session({"parallelism.default": "1"}, own_java())
    assert not session.get_config().get("pipeline.jars", "")
    from pyflink.java_gateway import get_gateway

    class_path = get_gateway().jvm.java.lang.System.getProperty("java.class.path").split(os.pathsep)
    assert lacking(class_path, added_jars(own_java())) == []
    other = Path("/elsewhere/headwater-0.jar")
    assert lacking(class_path, [*added_jars(own_java()), other]) == [other]


def test_a_source_that_does_not_compile_says_why() -> None:
    with pytest.raises(DoesNotCompile, match="nowhere"):
        compiled_jar([("Wrong", "package headwater; final class Wrong { int one() { return nowhere; } }")])
