"""One JVM, hosted by Python, that runs ZooKeeper and every role of Druid.

One process per role costs over 1 GB and half a minute; together they need half of both. Druid was not made for it,
so two things are put right here:

- Every role builds its own injector, but Druid registers Guice's servlet filter by its class, and a filter made that
  way serves the injector that was built last: every port would answer as that role. Before a role's web server starts,
  its filters are replaced by ones that hold the role's own pipeline (`_OwnServlets`).
- Guice and Druid look classes up through the thread's context class loader, which a thread that Python started lacks.

Restart: metadata (Derby) and segments lie in the data folder and survive a kill; what tasks held in memory is read
again from Kafka. ZooKeeper is emptied at every start, for only the discovery of these very roles lies there.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import jpype

from connectors.endpoints import Endpoints
from connectors.jars import jar_paths, jvm_library
from infra.local.druid.properties import FOLDERS, data_folder, role_properties

log = logging.getLogger(__name__)

#: Without the first four the sketches' off-heap memory fails. The rest keeps one small process small.
JVM_FLAGS = (
    "--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "-Xrs",  # signals are Python's: it stops the roles in order
    "-Xms96m",
    "-Xmx288m",
    "-XX:MaxDirectMemorySize=192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:ReservedCodeCacheSize=64m",
    "-XX:+ExitOnOutOfMemoryError",
    "-Duser.timezone=UTC",
    "-Dfile.encoding=UTF-8",
    "-Djava.util.logging.manager=org.apache.logging.log4j.jul.LogManager",
    "-Dzookeeper.admin.enableServer=false",
    "-Dderby.storage.pageCacheSize=400",
)

_COMMANDS = {
    "coordinator": "CliCoordinator",
    "historical": "CliHistorical",
    "indexer": "CliIndexer",
    "broker": "CliBroker",
}


def prepare(settings: Endpoints) -> Path:
    """The data folder, complete; leftovers that a new start must not see are gone."""
    data = data_folder(settings)
    for name in ("zookeeper", "tmp", "processing"):
        shutil.rmtree(data / name, ignore_errors=True)
    for name in FOLDERS:
        (data / name).mkdir(parents=True, exist_ok=True)
    return data


def start_jvm(data: Path) -> None:
    """Starts this process's JVM (there can be only one, once) with Druid's jars."""
    logging_config = resources.files(__package__).joinpath("log4j2.xml")
    callbacks = list(gc.callbacks)
    jpype.startJVM(
        jvm_library(),
        *JVM_FLAGS,
        f"-Djava.io.tmpdir={data / 'tmp'}",
        f"-Dderby.stream.error.file={data / 'derby.log'}",
        f"-Dlog4j2.configurationFile={logging_config}",
        f"-XX:ErrorFile={data / 'hs_err_%p.log'}",
        classpath=[str(path) for path in jar_paths("druid")],
        convertStrings=True,
        interrupt=False,
    )
    # JPype has Java collect all of its heap when Python's collector has run: 0.2 s of standing still every few seconds
    gc.callbacks[:] = callbacks


def _use_system_class_loader() -> None:
    system = jpype.JClass("java.lang.ClassLoader").getSystemClassLoader()
    jpype.JClass("java.lang.Thread").currentThread().setContextClassLoader(system)


class _OwnServlets:
    """A Lifecycle handler that gives the role's web server filters bound to the role's own injector.

    It runs before any server starts; by then Druid has built the server, so asking for it builds nothing early.
    """

    def __init__(self, injector: Any, server_key: Any) -> None:
        self._injector = injector
        self._server_key = server_key

    def start(self) -> None:
        guice_filter = jpype.JClass("com.google.inject.servlet.GuiceFilter")
        context = jpype.JClass("org.eclipse.jetty.servlet.ServletContextHandler")
        server = self._injector.getInstance(self._server_key)
        for handler in server.getChildHandlersByClass(context.class_):
            for holder in handler.getServletHandler().getFilters():
                if holder.getHeldClass() == guice_filter.class_:
                    holder.setFilter(self._injector.getInstance(guice_filter.class_))

    def stop(self) -> None:
        """Nothing of its own to stop: the Lifecycle asks every handler."""


class Role(threading.Thread):
    """One role of Druid: `start()` brings it up in the background, `stop()` takes it down.

    `failure` holds what ended it, if it was not `stop()`; `ended` is set either way.
    """

    def __init__(self, name: str, properties: dict[str, str], ended: threading.Event) -> None:
        super().__init__(name=f"druid-{name}", daemon=True)
        self.role = name
        self.failure: Exception | None = None
        self._properties = properties
        self._ended = ended
        self._lifecycle: Any = None

    def run(self) -> None:
        try:
            _use_system_class_loader()
            self._lifecycle = self._begin()
            self._lifecycle.join()
        except Exception as error:  # the thread's boundary: the host decides what a dead role means
            self.failure = error
        finally:
            self._ended.set()

    def _begin(self) -> Any:
        properties = jpype.JClass("java.util.Properties")()
        for key, value in self._properties.items():
            properties.setProperty(key, value)
        builder = jpype.JClass("org.apache.druid.guice.StartupInjectorBuilder")()
        base_injector = builder.withProperties(properties).withExtensions().build()
        command = jpype.JClass(f"org.apache.druid.cli.{_COMMANDS[self.role]}")()
        base_injector.injectMembers(command)

        server_runnable = jpype.JClass("org.apache.druid.cli.ServerRunnable").class_
        roles_of = server_runnable.getDeclaredMethod("getNodeRoles", properties.getClass())
        roles_of.setAccessible(True)
        injector = command.makeInjector(roles_of.invoke(command, properties))

        lifecycle_class = jpype.JClass("org.apache.druid.java.util.common.lifecycle.Lifecycle")
        lifecycle = injector.getInstance(lifecycle_class.class_)
        handler_type = jpype.JClass("org.apache.druid.java.util.common.lifecycle.Lifecycle$Handler")
        stages = jpype.JClass("org.apache.druid.java.util.common.lifecycle.Lifecycle$Stage")
        own_servlets = _OwnServlets(injector, self._server_key())
        lifecycle.addHandler(jpype.JProxy(handler_type, inst=own_servlets), stages.INIT)
        command.initLifecycle(injector)
        return lifecycle

    def _server_key(self) -> Any:
        """Guice's key of the role's web server; the indexer's carries an annotation, for its tasks answer there."""
        key = jpype.JClass("com.google.inject.Key")
        server = jpype.JClass("org.eclipse.jetty.server.Server").class_
        if self.role == "indexer":
            chat = jpype.JClass("org.apache.druid.guice.annotations.RemoteChatHandler").class_
            return key.get(server, chat)
        return key.get(server)

    def stop(self) -> None:
        """Takes the role down as far as it came up. Blocks until its handlers have stopped."""
        if self._lifecycle is not None:
            self._lifecycle.stop()


class ZooKeeper(threading.Thread):
    """The ZooKeeper through which the roles find each other, on loopback and in this process."""

    def __init__(self, settings: Endpoints, data: Path, ended: threading.Event) -> None:
        super().__init__(name="zookeeper", daemon=True)
        self.failure: Exception | None = None
        self._ended = ended
        self._config = {
            "clientPort": str(settings.port("zookeeper")),
            "clientPortAddress": settings.host,
            "dataDir": str(data / "zookeeper"),
            "tickTime": "2000",
            "maxClientCnxns": "60",
        }

    def run(self) -> None:
        try:
            _use_system_class_loader()
            properties = jpype.JClass("java.util.Properties")()
            for key, value in self._config.items():
                properties.setProperty(key, value)
            quorum = jpype.JClass("org.apache.zookeeper.server.quorum.QuorumPeerConfig")()
            quorum.parseProperties(properties)
            config = jpype.JClass("org.apache.zookeeper.server.ServerConfig")()
            config.readFrom(quorum)
            jpype.JClass("org.apache.zookeeper.server.ZooKeeperServerMain")().runFromConfig(config)
        except Exception as error:  # the thread's boundary, as for a role
            self.failure = error
        finally:
            self._ended.set()


class DruidHost:
    """All of Druid in this process. `start()` returns at once; readiness is for the caller to ask over HTTP."""

    def __init__(self, settings: Endpoints) -> None:
        self.ended = threading.Event()
        self._settings = settings
        self._roles: list[Role] = []
        self._zookeeper: ZooKeeper | None = None

    def start(self) -> None:
        data = prepare(self._settings)
        start_jvm(data)
        self._zookeeper = ZooKeeper(self._settings, data, self.ended)
        self._zookeeper.start()
        for name, properties in role_properties(self._settings).items():
            role = Role(name, properties, self.ended)
            self._roles.append(role)
            role.start()

    @property
    def failures(self) -> dict[str, Exception]:
        """What ended which part on its own."""
        parts = {role.role: role.failure for role in self._roles}
        if self._zookeeper is not None:
            parts["zookeeper"] = self._zookeeper.failure
        return {name: failure for name, failure in parts.items() if failure is not None}

    def stop(self, timeout_s: float) -> bool:
        """Stops broker, indexer, historical and coordinator, in this order; False when time ran out first."""

        def stop_all() -> None:
            _use_system_class_loader()
            # The roles complain at length of each other's absence while they go: that is no news.
            level = jpype.JClass("org.apache.logging.log4j.Level")
            jpype.JClass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(level.OFF)
            for role in reversed(self._roles):
                log.info("druid_role_stopping", extra={"role": role.role})
                role.stop()

        stopper = threading.Thread(target=stop_all, daemon=True)
        stopper.start()
        stopper.join(timeout_s)
        return not stopper.is_alive()


def leave(code: int) -> None:
    """Ends the process now. The JVM's threads do not end by themselves, and nothing is left that needs them."""
    os._exit(code)
