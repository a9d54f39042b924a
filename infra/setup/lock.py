"""Lock files of Maven artifacts: resolves what each component asks for, once, and writes exact coordinates with hashes.

Run: `make lock` (needs `mvn` and the network), or `python -m infra.setup.lock druid` for one component.
Set-up itself never resolves: it fetches what the locks name.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from infra.setup.artifacts import COMPONENTS, Artifact, ArtifactSet, lock_path

_POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>headwater</groupId><artifactId>lock</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies></project>
"""


def _dependency(coordinate: str, wanted: ArtifactSet) -> str:
    group, artifact, version, *rest = coordinate.split(":")
    classifier, packaging = (rest + ["", "jar"][len(rest) :])[:2] if rest else ("", "jar")
    excluded = wanted.excluded if wanted.transitive else ("*:*",)
    exclusions = "".join(
        f"<exclusion><groupId>{escape(g)}</groupId><artifactId>{escape(a)}</artifactId></exclusion>"
        for g, a in (name.split(":") for name in excluded)
    )
    fields = {"groupId": group, "artifactId": artifact, "version": version, "type": packaging, "classifier": classifier}
    body = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items() if value)
    return f"<dependency>{body}<exclusions>{exclusions}</exclusions></dependency>"


def _parse(line: str) -> Artifact | None:
    """The artifact of one line of `dependency:list`, `group:artifact:type[:classifier]:version:scope:/file`."""
    text = line.strip().split(" -- ")[0].strip()
    if not text.endswith((".jar", ".tar.gz")):
        return None
    coordinate, _, file = text.partition(":/")
    parts = coordinate.split(":")
    group, artifact, packaging = parts[:3]
    classifier, version = (parts[3], parts[4]) if len(parts) == 6 else ("", parts[3])
    digest = hashlib.sha256(Path("/" + file).read_bytes()).hexdigest()
    return Artifact(group, artifact, version, classifier, packaging, digest)


def resolve(wanted: ArtifactSet) -> list[Artifact]:
    """Every artifact that a component needs at run time, hashed. May block for minutes: Maven downloads them all.

    Errors: RuntimeError with Maven's last lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        pom, listing = Path(folder, "pom.xml"), Path(folder, "list.txt")
        pom.write_text(_POM.format(dependencies="".join(_dependency(root, wanted) for root in wanted.roots)))
        command = ["mvn", "-B", "-f", str(pom), "dependency:list", "-DincludeScope=runtime"]
        command += [f"-DoutputFile={listing}", "-DoutputAbsoluteArtifactFilename=true", "-Dstyle.color=never"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError("Maven failed:\n" + "\n".join(run.stdout.splitlines()[-20:]))
        return sorted(a for a in map(_parse, listing.read_text().splitlines()) if a)


def write_lock(component: str) -> Path:
    """Resolves a component and replaces its lock file; gives back the file's path."""
    artifacts = resolve(COMPONENTS[component])
    path = lock_path(component)
    path.write_text(f"# {component}: made by `make lock`; see README.md\n" + "".join(a.line + "\n" for a in artifacts))
    return path


def main(argv: list[str]) -> int:
    unknown = set(argv) - COMPONENTS.keys()
    if unknown:
        print(f"no such component: {', '.join(sorted(unknown))}; there are {', '.join(COMPONENTS)}", file=sys.stderr)
        return 2
    for component in argv or list(COMPONENTS):
        path = write_lock(component)
        print(f"{path.name}: {sum(not line.startswith('#') for line in path.read_text().splitlines())} artifacts")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
