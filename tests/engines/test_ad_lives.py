"""Parts of the function ad_lives by themselves: types of events by their texts, and which lives are due together."""

from __future__ import annotations

import random

import pytest

from jobs.streaming.application import JOBS
from jobs.streaming.settings import Settings
from jobs.streaming.views import java
from schemas.events import EVENT_TYPES, SOURCES
from tests.samples.flink_java import FlinkJava


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava(java([JOBS["ad_sessions"](Settings())]))


def test_a_known_text_is_found_and_nothing_else(flink: FlinkJava) -> None:
    known = [*(kind.name for kind in EVENT_TYPES), *SOURCES, "ß", "a", "aa"]
    found = flink.new("KnownTexts", flink.array(flink.jvm.String, known))
    rng = random.Random(7)
    others = {"", "impressions", "Click", "clicks", "cück"}
    for text in known:  # one character more, less, or another: the same length and ends among them
        at = rng.randrange(len(text))
        others |= {text[:at] + text[at + 1 :], text[:at] + "x" + text[at + 1 :], text + text[-1]}
    for text in [*known, *sorted(others - set(known))]:
        binary = flink.jvm.org.apache.flink.table.data.binary.BinaryStringData.fromString(text)
        number = flink.call("KnownTexts", "number", found, binary)
        assert number == (known.index(text) if text in known else -1), text


def test_lives_that_are_due_together_are_all_kept(flink: FlinkJava) -> None:
    rng = random.Random(3)
    keys = [rng.getrandbits(64) - 2**63 for _ in range(50)]
    kept: bytes | None = None
    for number, key in enumerate(keys):
        assert flink.call("DueLives", "count", None, kept) == number
        kept = bytes(flink.call("DueLives", "add", None, kept, key))
    assert [flink.call("DueLives", "key", None, kept, n) for n in range(len(keys))] == keys
