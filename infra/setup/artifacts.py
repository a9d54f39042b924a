"""What the Java programs of the local stack are made of: coordinates asked for, and the lock files made from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).resolve().parent.parent / "locks"

_LINE = re.compile(
    r"(?P<group>[\w.\-]+):(?P<artifact>[\w.\-]+):(?P<version>[\w.\-]+)"
    r"(?::(?P<classifier>[\w.\-]*))?(?::(?P<packaging>[\w.]+))?\s+sha256:(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True, order=True)
class Artifact:
    """One file of a Maven repository, with the hash that it must have."""

    group: str
    artifact: str
    version: str
    classifier: str
    packaging: str
    sha256: str

    @classmethod
    def parse(cls, line: str) -> Artifact:
        """The artifact that a line of a lock file names. Errors: ValueError for any other line.

        Example:
            >>> Artifact.parse("io.delta:delta-storage:4.4.0 sha256:" + "0" * 64).filename
            'delta-storage-4.4.0.jar'
        """
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(
                f"not a lock line (group:artifact:version[:classifier[:packaging]] sha256:<hex>): {line!r}"
            )
        parts = match.groupdict()
        return cls(
            parts["group"],
            parts["artifact"],
            parts["version"],
            parts["classifier"] or "",
            parts["packaging"] or "jar",
            parts["sha256"],
        )

    @property
    def coordinate(self) -> str:
        """The shortest coordinate: classifier and packaging only where they say something."""
        text = f"{self.group}:{self.artifact}:{self.version}"
        if self.packaging != "jar":
            return f"{text}:{self.classifier}:{self.packaging}"
        return f"{text}:{self.classifier}" if self.classifier else text

    @property
    def line(self) -> str:
        return f"{self.coordinate} sha256:{self.sha256}"

    @property
    def filename(self) -> str:
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.packaging}"


@dataclass(frozen=True)
class ArtifactSet:
    """The coordinates that one component asks for; its lock file adds what they depend on."""

    roots: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    transitive: bool = True


COMPONENTS: dict[str, ArtifactSet] = {
    "kafka": ArtifactSet(roots=("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:1.7.36")),
    "registry": ArtifactSet(roots=("io.apicurio:apicurio-registry-app:3.3.3:all:tar.gz",), transitive=False),
    "flink": ArtifactSet(roots=("org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",), transitive=False),
    # Exactly these two: what they depend on comes with Spark, and a second copy clashes with it.
    "spark": ArtifactSet(
        roots=("io.delta:delta-spark_4.1_2.13:4.4.0", "io.delta:delta-storage:4.4.0"), transitive=False
    ),
    "druid": ArtifactSet(
        roots=(
            "org.apache.druid:druid-services:33.0.0",
            "org.apache.druid.extensions:druid-kafka-indexing-service:33.0.0",
            "org.apache.druid.extensions:druid-datasketches:33.0.0",
        ),
        excluded=("org.hyperic:sigar", "org.apache.druid:web-console"),
    ),
}


def lock_path(component: str) -> Path:
    return LOCKS / f"{component}.lock"


def locked(component: str) -> list[Artifact]:
    """The artifacts of a component's lock file, in its order.

    Errors: FileNotFoundError without a lock; ValueError naming file and line for a line that is none.
    """
    path = lock_path(component)
    artifacts = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                artifacts.append(Artifact.parse(text))
            except ValueError as error:
                raise ValueError(f"{path.name}:{number}: {error}") from None
    return artifacts
