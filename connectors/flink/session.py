"""Flink SQL sessions: one JVM in this process that compiles statements, and runs them here or submits them.

Importing this module is cheap; the first session starts a JVM (about 5 s) and loads PyFlink.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from connectors.flink.java_jar import Source, compiled_jar, functions
from connectors.jars import jar_paths, java_home

if TYPE_CHECKING:
    from pyflink.table import StreamTableEnvironment

#: Memory of the compiling JVM: 20 statements over a shared plan need less than half of it.
CLIENT_JVM_ARGS = "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.timezone=UTC"


def streaming_session(settings: Mapping[str, str], java: Iterable[Source] = ()) -> StreamTableEnvironment:
    """A streaming SQL session with the connector jars and our own Java on its class path.

    Functions among the sources `java` can be called by their names (`java_jar.function_name`).
    Without `execution.target` among the settings a statement runs in this process. Errors: NotSetUp.
    """
    os.environ.setdefault("JAVA_HOME", str(java_home()))
    os.environ.setdefault("JVM_ARGS", CLIENT_JVM_ARGS)
    for chatty in ("apache_beam", "pyflink.fn_execution"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    from pyflink.common import Configuration
    from pyflink.java_gateway import get_gateway
    from pyflink.table import EnvironmentSettings, StreamTableEnvironment

    configuration = Configuration()
    for key, value in settings.items():
        configuration.set_string(key, value)
    own = tuple(java)
    class_path = [*jar_paths("flink"), compiled_jar(get_gateway().jvm, own)]
    configuration.set_string("pipeline.jars", ";".join(path.absolute().as_uri() for path in class_path))
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


def submit(session: StreamTableEnvironment, statements: Iterable[str]) -> str:
    """Id of the one job that runs all INSERT statements together, sharing whatever they have in common."""
    statement_set = session.create_statement_set()
    for statement in statements:
        statement_set.add_insert_sql(statement)
    client = statement_set.execute().get_job_client()
    if client is None:
        raise RuntimeError("Flink gave no job for the statements")
    return str(client.get_job_id())
