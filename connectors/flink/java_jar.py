"""Our own Java for Flink, compiled from source and packed into a jar that goes with every submission.

What SQL can't say at all, or only at several times the cost, is a small Java class in a folder named `java`: formats
and connectors here, functions of the stream jobs there. There is no Java compiler on a machine that has only what this
project installs, so the one inside Flink does it (Janino: Java 8 without lambdas and static methods of interfaces;
generic types are read, not checked).
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from connectors.jars import jars_root

#: Formats and connectors of java/, by the name that DDL gives them.
ROW_AVRO = "row-avro-confluent"
ADDITIVE_KAFKA = "additive-kafka"

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
    is_function = re.compile(r"public (final )?class \w+ extends (ProcessTable|Table|Scalar|Aggregate)Function\b")
    return {function_name(name): f"headwater.{name}" for name, text in of if is_function.search(text)}


def factories(of: Iterable[Source]) -> list[str]:
    """The classes among the sources that are formats or connectors."""
    is_factory = re.compile(r"public (final )?class \w+ implements [^{]*Factory\b")
    return [f"headwater.{name}" for name, text in of if is_factory.search(text)]


def compiled_jar(jvm: Any, more: Iterable[Source] = ()) -> Path:
    """Path of the jar with our formats and connectors, and with `more`; made at the first call, in a second or two.

    `jvm` is PyFlink's view of the JVM. The name holds the sources' hash, so a change of them makes another jar.
    Errors: py4j's, with the compiler's message, for a source that does not compile.
    """
    every = (*sources("connectors.flink"), *more)
    digest = hashlib.sha256("\0".join(text for _, text in every).encode()).hexdigest()[:12]
    jar = jars_root().parent / "flink-java" / f"headwater-{digest}.jar"
    if not jar.is_file():
        jar.parent.mkdir(parents=True, exist_ok=True)
        draft = jar.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(draft, "w") as archive:
            archive.writestr(_SERVICE, "\n".join(factories(every)) + "\n")
            for name, code in _compiled(jvm, every).items():
                archive.writestr(name, code)
        draft.replace(jar)
    return jar


def _compiled(jvm: Any, every: Iterable[Source]) -> dict[str, bytes]:
    """Class file to its bytes."""
    from pyflink.java_gateway import get_gateway

    resource = jvm.org.codehaus.commons.compiler.util.resource
    texts = [resource.StringResource(f"headwater/{name}.java", text) for name, text in every]
    array = get_gateway().new_array(resource.Resource, len(texts))
    for position, text in enumerate(texts):
        array[position] = text
    made = jvm.java.util.HashMap()
    compiler = jvm.org.codehaus.janino.Compiler()
    # not the context's: a class of an earlier session in this process would be taken for the source of its name
    loader = jvm.java.lang.ClassLoader.getSystemClassLoader()
    compiler.setIClassLoader(jvm.org.codehaus.janino.ClassLoaderIClassLoader(loader))
    compiler.setTargetVersion(6)  # later ones need stack maps, which Janino gets wrong now and then
    compiler.setClassFileCreator(resource.MapResourceCreator(made))
    compiler.compile(array)
    return {str(name): bytes(made[name]) for name in made}
