"""Who may import whom (docs/architecture.md, conventions): read from the imports, so that it can't be a wish."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("schemas", "connectors", "jobs", "serving", "infra")
MAY_IMPORT = {
    "schemas": {"schemas"},
    "connectors": {"schemas", "connectors"},
    "jobs": {"schemas", "connectors", "jobs"},
    "serving": {"schemas", "connectors", "serving"},
    "infra": set(ROOMS),
}
#: Packages whose import costs seconds or hundreds of MB: never in a process that answers requests or moves records.
HEAVY = {"mlflow", "great_expectations", "apache_beam", "pyflink", "pyspark", "pandas"}
LIGHT = ("serving", "jobs/publisher", "jobs/materializer", "jobs/vendors", "jobs/lake")
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; rooms are imported by name"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_in_their_rooms(path: Path) -> None:
    relative = path.relative_to(ROOT)
    room = relative.parts[0]
    tops = {name.split(".")[0] for name in _imports(path)}
    assert tops & {*ROOMS, "tests", "notebooks"} <= MAY_IMPORT[room]
    if room == "schemas":
        allowed = set(sys.stdlib_module_names) | {"schemas"} | ({"fastavro"} if relative.name == "codec.py" else set())
        assert tops <= allowed, tops - allowed
    if room == "serving" and len(relative.parts) > 2:  # what two servers share is a connector
        served = {tuple(name.split(".")[:2]) for name in _imports(path) if name.startswith("serving.")}
        assert served <= {("serving", relative.parts[1])}, served
    if any(relative.is_relative_to(light) for light in LIGHT):
        assert not tops & HEAVY


def test_no_package_registry_is_named() -> None:
    hosts = ("repo1." + "maven", "repo." + "maven", "pypi" + ".org", "python" + "hosted", "registry." + "npmjs")
    checked = [p for pattern in ("*.py", "*.lock", "*.toml", "*.md", "*.sh", "*.xml") for p in ROOT.rglob(pattern)]
    for path in checked:
        if {".venv", "build", "run", ".git"} & set(path.relative_to(ROOT).parts):
            continue
        text = path.read_text(errors="replace")
        assert not any(host in text for host in hosts), path
