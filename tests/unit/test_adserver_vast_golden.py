"""Our own VAST documents as players get them, whole: tests/golden/vast, one file per version and kind.

The files were valid by the IAB's schemas of their versions when they were written (but for macros, which are no URIs).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from schemas.catalog import Creative
from serving.adserver.markup import vast
from serving.adserver.markup.trackers import LINEAR_EVENTS, PROGRESS_PERCENT, Trackers
from serving.adserver.markup.vast_versions import VERSIONS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "vast"
NAMES = ("impression", "viewable", "click", "error", *LINEAR_EVENTS)
TRACKERS = Trackers({n: f"https://t.test/{n}" for n in NAMES}, {p: f"https://t.test/{p}" for p in PROGRESS_PERCENT})
VIDEO = Creative("cr-1", "li-1", "video", "https://brand.test/?a=1&b=2", 3, 15, 1280, 720, "https://m.test/a.mp4")
AUDIO = Creative("cr-2", "li-1", "audio", "https://brand.test/", 1, 30, media_url="https://m.test/a.mp3")


def _identity(n: int) -> vast.AdIdentity:
    return vast.AdIdentity(f"record-{n}", "adv-1", "cmp-1", "li-1", f"cr-{n}", "cpm", 2_500_000, "USD", 120)


def _documents() -> dict[str, str]:
    made = {}
    for name, version in VERSIONS.items():
        player = vast.Player(version, skip_offset_s=5)
        made[f"inline-{name}"] = vast.inline(_identity(1), VIDEO, "Title & more", TRACKERS, player)
        made[f"wrapper-{name}"] = vast.wrapper(_identity(2), "https://dsp.test/?a=1&b=2", TRACKERS, player)
        made[f"audio-{name}"] = vast.inline(_identity(2), AUDIO, "Sound", TRACKERS, vast.Player(version))
        if version.has_pods:
            made[f"pod-{name}"] = vast.pod([made[f"inline-{name}"], made[f"wrapper-{name}"]], version)
    return made


DOCUMENTS = _documents()


def _lines(document: str) -> str:
    """One element a line, so that a difference can be read."""
    return document.replace("><", ">\n<")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_as_they_were(name: str) -> None:
    assert _lines(DOCUMENTS[name]) == (GOLDEN / f"{name}.xml").read_text()
    etree.fromstring(DOCUMENTS[name].encode())


def test_no_file_is_left_over() -> None:
    assert {p.stem for p in GOLDEN.iterdir()} == DOCUMENTS.keys()
