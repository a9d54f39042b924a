"""The compiler inside Flink (Janino), run in a JVM of this process: `python -m connectors.flink.compiler TARGET`.

Standard input is JSON, {class name: text of package headwater}; TARGET becomes a jar of class files alone.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jpype

from connectors.flink.library import connector_jars, distribution_jars
from connectors.jars import jvm_library


def compile_into(target: Path, texts: Mapping[str, str]) -> None:
    """Compiles sources against Flink and its connectors. Errors: SystemExit with the compiler's message."""
    jpype.startJVM(
        jvm_library(),
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"),
        classpath=[str(path) for path in (*distribution_jars(), *connector_jars())],
        convertStrings=True,
    )
    resources = jpype.JPackage("org.codehaus.commons.compiler.util.resource")
    janino = jpype.JPackage("org.codehaus.janino")
    made = jpype.JClass("java.util.HashMap")()
    compiler = janino.Compiler()
    loader = jpype.JClass("java.lang.ClassLoader").getSystemClassLoader()
    compiler.setIClassLoader(janino.ClassLoaderIClassLoader(loader))
    compiler.setTargetVersion(6)  # later ones need stack maps, which Janino gets wrong now and then
    compiler.setClassFileCreator(resources.MapResourceCreator(made))
    try:
        compiler.compile(
            jpype.JArray(resources.Resource)(
                [resources.StringResource(f"headwater/{name}.java", text) for name, text in texts.items()]
            )
        )
    except jpype.JException as e:
        raise SystemExit(str(e)) from None
    with zipfile.ZipFile(target, "w") as archive:
        for entry in made.entrySet():
            archive.writestr(str(entry.getKey()), bytes(entry.getValue()))


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]), json.load(sys.stdin))
