"""Class archives against the real JVM: one that was cut off is thrown away, a whole one is taken over."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from connectors.endpoints import Endpoints
from connectors.jars import java
from infra.local import class_archive


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoints:
    monkeypatch.setenv("HEADWATER_JARS", str(tmp_path / "jars"))
    return Endpoints(home=tmp_path, port_base=19999)


def run_and_end(where: Endpoints) -> list[str]:
    """A short life of a JVM with a component's flags; gives back the flags."""
    class_archive.prepare("a", "", where)
    flags = class_archive.flags("a", "", where)
    subprocess.run([java(), class_archive.COLLECTOR, *flags, "-version"], check=True, capture_output=True)
    return flags


def test_the_second_run_maps_what_the_first_has_written(where: Endpoints) -> None:
    assert any(flag.startswith("-XX:ArchiveClassesAtExit=") for flag in run_and_end(where))
    (own,) = [flag for flag in run_and_end(where) if flag.startswith("-XX:SharedArchiveFile=")]
    assert own.count(".jsa") == 2


def test_an_archive_that_was_cut_off_is_thrown_away(where: Endpoints, tmp_path: Path) -> None:
    run_and_end(where)
    (draft,) = (tmp_path / "class-archives").glob("a-*.jsa.19999")
    draft.chmod(0o644)
    draft.write_bytes(draft.read_bytes()[: draft.stat().st_size // 2])
    assert any(flag.startswith("-XX:ArchiveClassesAtExit=") for flag in run_and_end(where))
