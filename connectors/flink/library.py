"""What Flink loads its classes from: the distribution inside the pyflink wheel, its connectors, our own Java.

A cluster with all of them in its folder `lib` loads and compiles them once for all deployments, as Flink advises for
connectors; a cluster that lacks some gets those with each submission.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from importlib import util
from pathlib import Path

from connectors.flink.java_jar import Source, compiled_jar, sources
from connectors.jars import jar_paths, jars_root


def flink_home() -> Path:
    """Folder of the Flink distribution in the pyflink package (found without importing it)."""
    spec = util.find_spec("pyflink")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def distribution_jars() -> list[Path]:
    """The jars that the distribution has in `lib`."""
    return sorted((flink_home() / "lib").glob("*.jar"))


def connector_jars() -> list[Path]:
    """Flink's connectors and formats that are no part of the distribution. Errors: NotSetUp."""
    return jar_paths("flink")


def added_jars(java: Iterable[Source] = ()) -> list[Path]:
    """What our statements need beside the distribution: connectors, our own formats, and the sources `java`.

    Errors: NotSetUp, java_jar.DoesNotCompile.
    """
    return [*connector_jars(), compiled_jar((*sources("connectors.flink"), *java))]


def lib_folder(java: Iterable[Source] = ()) -> Path:
    """A folder `lib` for Flink: links to its own jars and to `added_jars`. Made at the first call; errors as theirs."""
    jars = [*distribution_jars(), *added_jars(java)]
    digest = hashlib.sha256("\0".join(str(jar.absolute()) for jar in jars).encode()).hexdigest()[:12]
    folder = jars_root().parent / "flink-lib" / digest
    if not folder.is_dir():
        draft = folder.with_name(f"{digest}.{os.getpid()}")
        draft.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            (draft / jar.name).symlink_to(jar.absolute())
        try:
            draft.rename(folder)
        except OSError:  # another process was faster
            for link in draft.iterdir():
                link.unlink()
            draft.rmdir()
    return folder


def lacking(class_path: Iterable[str], jars: Iterable[Path]) -> list[Path]:
    """Those of `jars` that a JVM's class path has not, by their names (which hold their versions)."""
    there = {Path(entry).name for entry in class_path}
    return [jar for jar in jars if jar.name not in there]
