"""Our own Flink format, compiled once from its source and packed into a jar that goes with every submission."""

from __future__ import annotations

import hashlib
import os
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

from connectors.jars import jars_root

TOLERANT_AVRO = "tolerant-avro-confluent"
_SOURCE = "TolerantAvroFormat.java"
_FACTORY = "headwater.TolerantAvroFormat"
_SERVICE = "META-INF/services/org.apache.flink.table.factories.Factory"


def tolerant_avro_jar(jvm: Any) -> Path:
    """Path of the jar with the format; made at the first call, by the Java compiler inside Flink, in about a second.

    `jvm` is PyFlink's view of the JVM. The name holds the source's hash, so a change of it makes another jar.
    """
    source = resources.files("connectors.flink").joinpath(_SOURCE).read_text()
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    jar = jars_root().parent / "flink-formats" / f"tolerant-avro-{digest}.jar"
    if not jar.is_file():
        compiler = jvm.org.codehaus.janino.SimpleCompiler()
        compiler.cook(source)
        jar.parent.mkdir(parents=True, exist_ok=True)
        draft = jar.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(draft, "w") as archive:
            archive.writestr(_SERVICE, _FACTORY + "\n")
            for name, code in compiler.getBytecodes().items():
                archive.writestr(name.replace(".", "/") + ".class", bytes(code))
        draft.replace(jar)
    return jar
