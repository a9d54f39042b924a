"""Locks and what is declared agree, and a lock line is read strictly."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from infra.setup import artifacts, jars
from infra.setup.artifacts import COMPONENTS, Artifact, locked
from infra.setup.lock import _parse

SHA = "0" * 64


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_lock_holds_what_its_component_asks_for(component: str) -> None:
    coordinates = {a.coordinate for a in locked(component)}
    assert set(COMPONENTS[component].roots) <= coordinates
    if not COMPONENTS[component].transitive:
        assert len(coordinates) == len(COMPONENTS[component].roots)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_lock_is_sorted_and_has_one_version_of_each(component: str) -> None:
    found = locked(component)
    assert found == sorted(found)
    names = [(a.group, a.artifact, a.classifier) for a in found]
    assert len(names) == len(set(names))
    assert len({a.filename for a in found}) == len(found), "two artifacts would land in one file"
    excluded = set(COMPONENTS[component].excluded)
    assert not excluded & {f"{a.group}:{a.artifact}" for a in found}


@pytest.mark.parametrize(
    "line",
    [f"g:a:1 sha256:{SHA}", f"g:a:1:all sha256:{SHA}", f"g:a:1::tar.gz sha256:{SHA}", f"g:a:1:c:zip sha256:{SHA}"],
)
def test_lines_survive_the_way_there_and_back(line: str) -> None:
    assert Artifact.parse(line).line == line


@pytest.mark.parametrize(
    "line", ["g:a:1", f"g:a sha256:{SHA}", "g:a:1 sha256:abc", f"g:a:1 sha256:{SHA} more", f"g:a:1 md5:{SHA}"]
)
def test_other_lines_are_refused_with_file_and_number(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LOCKS", tmp_path)
    (tmp_path / "x.lock").write_text(f"# comment\n\n{line}\n")
    with pytest.raises(ValueError, match=r"x\.lock:3: not a lock line"):
        locked("x")


def test_mavens_list_is_read(tmp_path: Path) -> None:
    jar = tmp_path / "a-1.jar"
    jar.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert _parse(f"   g:a:jar:1:compile:{jar} -- module x") == Artifact("g", "a", "1", "", "jar", empty)
    assert _parse(f"   g:a:jar:linux:1:runtime:{jar}") == Artifact("g", "a", "1", "linux", "jar", empty)
    assert _parse("The following files have been resolved:") is None


class _Repository:
    """Stands where the download is: writes what the test planned, one answer for each attempt."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)

    def download(self, folder: Path) -> Path:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        path = folder / "got"
        path.write_bytes(answer)
        return path


def _fetch(repository: _Repository, target: Path, sha256: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jars, "_download", lambda artifact, folder: repository.download(folder))
    monkeypatch.setattr(jars.time, "sleep", lambda _: None)
    return jars.fetch(Artifact("g", "a", "1", "", "jar", sha256), target)


def test_a_cut_download_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(b"whole").hexdigest()
    repository = _Repository(OSError("connection reset"), b"who", b"whole")
    path = _fetch(repository, tmp_path / "a-1.jar", sha256, monkeypatch)
    assert path.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a-1.jar"]


def test_another_file_than_the_locked_one_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = _Repository(*[b"other"] * jars.ATTEMPTS)
    with pytest.raises(jars.FetchError, match="the lock says 000"):
        _fetch(repository, tmp_path / "a-1.jar", SHA, monkeypatch)
    assert list(tmp_path.iterdir()) == []
