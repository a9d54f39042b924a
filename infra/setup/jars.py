"""Fetches the artifacts of the lock files into build/jars, checked before use; does nothing where they are complete.

Run: `python -m infra.setup.jars [COMPONENT...]`.
Idempotent, and safe to cut off at any point: a file appears under its name only after its hash was checked, and a
component's stamp only after all of its files.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from jgo.maven import MavenContext
from jgo.maven._resolver import PythonResolver
from requests import RequestException

from connectors.jars import REGISTRY_APP, jars_root
from infra.setup.artifacts import COMPONENTS, Artifact, lock_path, locked

THREADS = 8
ATTEMPTS = 5
READ_TIMEOUT_S = 60


class FetchError(RuntimeError):
    """An artifact could not be had, or was not the one that the lock names."""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(artifact: Artifact, folder: Path) -> Path:
    """One attempt to get a file from the repository into an empty folder."""
    context = MavenContext(resolver=PythonResolver(), repo_cache=folder, local_repos=[], timeout=READ_TIMEOUT_S)
    component = context.project(artifact.group, artifact.artifact).at_version(artifact.version)
    return component.artifact(classifier=artifact.classifier, packaging=artifact.packaging).resolve()


def fetch(artifact: Artifact, target: Path) -> Path:
    """Puts one artifact at `target`, which exists afterwards with the locked hash and never otherwise.

    Blocks for the download; each failure of the network is tried again, five times in all, with growing pauses.
    Errors: FetchError.
    """
    problem: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2**attempt)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            try:
                got = _download(artifact, Path(folder))
            except (RequestException, OSError, RuntimeError) as error:
                problem = error
                continue
            found = _sha256(got)
            if found != artifact.sha256:  # a cut transfer looks like this too: try again before giving up
                problem = FetchError(f"{artifact.coordinate} has sha256 {found}, the lock says {artifact.sha256}")
                continue
            got.replace(target)
            return target
    raise FetchError(f"{artifact.coordinate}: {problem}") from problem


def _unpack(archive: Path, target: Path) -> None:
    """Unpacks a tar.gz so that `target` is either absent or complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        shutil.rmtree(target, ignore_errors=True)
        Path(folder).replace(target)
        Path(folder).mkdir()  # for TemporaryDirectory to remove


def stamp_path(component: str) -> Path:
    return jars_root() / component / ".complete"


def is_complete(component: str) -> bool:
    """Whether a component's files were all fetched from the lock as it is now. Reads one small file."""
    stamp = stamp_path(component)
    return stamp.is_file() and stamp.read_text() == _sha256(lock_path(component))


def install(components: list[str], on_file: Callable[[int, int, str], None]) -> int:
    """Fetches what is missing; gives back how many files came. `on_file(done, total, name)` is called after each.

    Errors: FetchError for the first file that could not be had; what was complete by then stays.
    """
    todo: list[tuple[Artifact, Path]] = []
    stale = [name for name in components if not is_complete(name)]
    for name in stale:
        folder = jars_root() / name
        folder.mkdir(parents=True, exist_ok=True)
        artifacts = locked(name)
        keep = {a.filename for a in artifacts}
        for path in folder.iterdir():  # left by an older lock or by a run that was cut off
            if path.name not in keep and path.name != REGISTRY_APP:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        todo += [
            (artifact, folder / artifact.filename)
            for artifact in artifacts
            if not (folder / artifact.filename).is_file() or _sha256(folder / artifact.filename) != artifact.sha256
        ]
    todo.sort(key=lambda item: item[0].packaging == "jar")  # archives are the largest: first
    with ThreadPoolExecutor(THREADS) as pool:
        futures = {pool.submit(fetch, artifact, path): path for artifact, path in todo}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                on_file(done, len(todo), futures[future].name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name in stale:
        for artifact in locked(name):
            if artifact.packaging == "tar.gz":
                _unpack(jars_root() / name / artifact.filename, jars_root() / name / REGISTRY_APP)
        stamp_path(name).write_text(_sha256(lock_path(name)))
    return len(todo)


def main(argv: list[str]) -> int:
    components = argv or [name for name in COMPONENTS if lock_path(name).is_file()]
    if all(is_complete(name) for name in components):
        return 0
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("jars"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns) as progress:
            task = progress.add_task("", total=None)
            install(
                components,
                lambda done, total, name: progress.update(task, completed=done, total=total, description=name),
            )
    else:
        print("setup: fetching jars", file=sys.stderr, flush=True)
        step = 50
        came = install(
            components,
            lambda done, total, _: (
                print(f"setup: jars {done}/{total}", file=sys.stderr, flush=True) if done % step == 0 else None
            ),
        )
        print(f"setup: {came} jars fetched and checked", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FetchError as failure:
        print(f"setup: {failure}\nsetup: run the same command again to go on from here", file=sys.stderr)
        sys.exit(3)
