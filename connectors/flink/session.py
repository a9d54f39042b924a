"""Flink SQL sessions: one JVM in this process that compiles statements, and runs them here or submits them.

Importing this module is cheap; the first session starts a JVM (about 5 s) and loads PyFlink.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from connectors.flink.java_jar import Source, functions
from connectors.flink.library import added_jars, flink_home, lacking, lib_folder
from connectors.jars import java_home

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyflink.table import StreamTableEnvironment

#: Memory of the compiling JVM: 20 statements over a shared plan need less than half of it.
CLIENT_JVM_ARGS = "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.timezone=UTC"


_SENT_JARS = "pipeline.jars"


def streaming_session(
    settings: Mapping[str, str], java: Iterable[Source] = (), jars: Iterable[Path] = ()
) -> StreamTableEnvironment:
    """A streaming SQL session with the connector jars and our own Java on its class path.

    Functions among the sources `java` can be called by their names (`java_jar.function_name`). `jars` are for this
    session alone.
    Without `execution.target` among the settings a statement runs in this process. Errors: NotSetUp, DoesNotCompile.
    """
    own = tuple(java)
    os.environ.setdefault("JAVA_HOME", str(java_home()))
    os.environ.setdefault("FLINK_HOME", str(flink_home()))  # without it PyFlink sets the next by itself
    os.environ.setdefault("FLINK_LIB_DIR", str(lib_folder(own)))
    os.environ.setdefault("JVM_ARGS", CLIENT_JVM_ARGS)
    for chatty in ("apache_beam", "pyflink.fn_execution"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    from pyflink.common import Configuration
    from pyflink.java_gateway import get_gateway
    from pyflink.table import EnvironmentSettings, StreamTableEnvironment

    gateway = get_gateway()
    _keep_to_threads(gateway)
    configuration = Configuration()
    for key, value in settings.items():
        configuration.set_string(key, value)
    class_path = gateway.jvm.java.lang.System.getProperty("java.class.path").split(os.pathsep)
    if sent := lacking(class_path, [*added_jars(own), *jars]):
        configuration.set_string(_SENT_JARS, _uris(sent))
    configuration.set_string("table.local-time-zone", "UTC")
    chosen = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    session = StreamTableEnvironment.create(environment_settings=chosen)
    for name, java_class in functions(own).items():
        session.execute_sql(f"CREATE TEMPORARY SYSTEM FUNCTION `{name}` AS '{java_class}' LANGUAGE JAVA")
    return session


def remote_target(rest_url: str) -> dict[str, str]:
    """Settings that make a session submit to a running session cluster instead of running in this process."""
    parts = urlsplit(rest_url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"Flink's REST address needs a host and a port: {rest_url!r}")
    return {
        "execution.target": "remote",
        "execution.attached": "false",
        "rest.address": parts.hostname,
        "rest.port": str(parts.port),
    }


def submit(session: StreamTableEnvironment, statements: Iterable[str], jars: Iterable[Path] = ()) -> str:
    """Id of the one job that runs all INSERT statements together, sharing whatever they have in common.

    `jars` go with it: what the cluster has not in its own class path.
    """
    if sent := list(jars):
        session.get_config().set(_SENT_JARS, _uris(sent))
    statement_set = session.create_statement_set()
    for statement in statements:
        statement_set.add_insert_sql(statement)
    client = statement_set.execute().get_job_client()
    if client is None:
        raise RuntimeError("Flink gave no job for the statements")
    return str(client.get_job_id())


def _uris(jars: Iterable[Path]) -> str:
    return ";".join(jar.absolute().as_uri() for jar in jars)


class _ConnectionsOfThread(threading.local):
    """The idle connections to the JVM that the calling thread made: what Py4J keeps in one deque for all threads.

    Each connection has its thread in the JVM, and Flink's planner lives in the one that made it (Calcite's metadata
    provider is a thread's own: FLINK-23020). From a shared deque any other thread of this process that so much as
    collects a dead Java object may take the planner's connection, and the next statement fails on a strange thread.
    """

    def __init__(self) -> None:
        self._idle: deque[object] = deque()

    def __len__(self) -> int:
        return len(self._idle)

    def append(self, connection: object) -> None:
        self._idle.append(connection)

    def pop(self) -> object:
        """The connection used last. Errors: IndexError when none is idle, upon which Py4J makes one."""
        return self._idle.pop()


def _keep_to_threads(gateway: JavaGateway) -> None:
    """Makes each thread of this process talk to the JVM over connections of its own."""
    client = gateway._gateway_client
    if not isinstance(client.deque, _ConnectionsOfThread):
        client.deque = _ConnectionsOfThread()
