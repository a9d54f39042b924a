"""Documents are made from the code or compared with it."""

from __future__ import annotations

import re
from pathlib import Path

from infra.docs import reference

ROOT = Path(__file__).resolve().parents[2]


def test_reference_is_up_to_date() -> None:
    assert reference.REFERENCE.read_text() == reference.render(), "run `make docs`"


def test_links_in_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


def test_every_settings_class_is_in_the_reference() -> None:
    declared = {
        (".".join(path.relative_to(ROOT).with_suffix("").parts), name)
        for room in ("connectors", "jobs", "serving", "infra")
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r"^class (\w+)\(BaseSettings\)", path.read_text(), re.MULTILINE)
    }
    assert declared == set(reference.SETTINGS)
