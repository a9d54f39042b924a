"""Which code made a row: for dead letters, lineage of tables and models."""

from __future__ import annotations

import hashlib
import os
from functools import cache

from connectors.jars import project_root

_ROOMS = ("schemas", "connectors", "jobs")


@cache
def code_version() -> str:
    """`HEADWATER_CODE_VERSION` (set by a deployment: an image's tag), else a digest of the sources of the jobs.

    The same sources give the same version on every machine, committed or not.
    """
    given = os.environ.get("HEADWATER_CODE_VERSION")
    if given:
        return given
    digest = hashlib.sha256()
    root = project_root()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.suffix in {".py", ".sql", ".avsc"}:
                digest.update(str(path.relative_to(root)).encode())
                digest.update(path.read_bytes())
    return f"src-{digest.hexdigest()[:12]}"
