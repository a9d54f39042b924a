"""Our own Java for Flink, compiled from source and packed into a jar (library.py says who gets it).

What SQL can't say at all, or only at several times the cost, is a small Java class in a folder named `java`: formats
and connectors here, functions of the stream jobs there. There is no Java compiler on a machine that has only what this
project installs, so the one inside Flink does it (Janino: Java 8 without lambdas and static methods of interfaces;
generic types are read, not checked).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from connectors.jars import jars_root

#: Formats and connectors of java/, by the name that DDL gives them.
ROW_AVRO = "row-avro-confluent"
ADDITIVE_KAFKA = "additive-kafka"
ABSOLUTE_KAFKA = "absolute-kafka"
AVRO_KAFKA = "avro-kafka"

_SERVICE = "META-INF/services/org.apache.flink.table.factories.Factory"

Source = tuple[str, str]  # class name, text


def sources(package: str) -> tuple[Source, ...]:
    """The Java sources in folder `java` of a Python package, by class name."""
    folder = resources.files(package).joinpath("java")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".java")), key=lambda f: f.name)
    return tuple((f.name.removesuffix(".java"), f.read_text()) for f in files)


def function_name(class_name: str) -> str:
    """The SQL function of a Java class.

    Example:
    >>> function_name("AdLives")
    'ad_lives'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


def functions(of: Iterable[Source]) -> dict[str, str]:
    """SQL function to class, of the sources that are Flink functions."""
    is_function = re.compile(r"public (final )?class \w+ extends \w+Function\b")
    return {function_name(name): f"headwater.{name}" for name, text in of if is_function.search(text)}


def factories(of: Iterable[Source]) -> list[str]:
    """The classes among the sources that are formats or connectors."""
    is_factory = re.compile(r"public (final )?class \w+ (extends|implements) [^{]*Factory\b")
    return [f"headwater.{name}" for name, text in of if is_factory.search(text)]


class DoesNotCompile(Exception):
    """One of our sources is no Java that Janino takes: the message is the compiler's."""


def compiled_jar(of: Iterable[Source]) -> Path:
    """Path of the jar of some sources; made at the first call, in a few seconds.

    The name holds the sources' hash, so a change of them makes another jar. Errors: DoesNotCompile.
    """
    every = tuple(of)
    digest = hashlib.sha256("\0".join(text for _, text in every).encode()).hexdigest()[:12]
    jar = jars_root().parent / "flink-java" / f"headwater-{digest}.jar"
    if not jar.is_file():
        jar.parent.mkdir(parents=True, exist_ok=True)
        draft = jar.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        done = subprocess.run(
            [sys.executable, "-m", "connectors.flink.compiler", str(draft)],
            input=json.dumps(dict(every)),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # we may lie in a wheel
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise DoesNotCompile(done.stderr.strip())
        with zipfile.ZipFile(draft, "a") as archive:
            archive.writestr(_SERVICE, "\n".join(factories(every)) + "\n")
        draft.replace(jar)
    return jar
