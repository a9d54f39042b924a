"""What the Java functions keep, byte for byte, so that no change of it goes unnoticed: a savepoint would be misread.

When a change is meant: the layout's byte goes up, where there is one, the bytes here are replaced, and CHANGELOG.md
says that a savepoint of before does not fit.
"""

from __future__ import annotations

import pytest

from jobs.streaming.application import JOBS
from jobs.streaming.settings import Settings
from jobs.streaming.views import java
from tests.samples.flink_java import FlinkJava

T0_MS = 1_780_000_000_000
TABLE_OF_IDS = (
    "010000000201234567000000006a18a5010000000000000000000000000000000000000000000000000000000000000000000000"
    "000123456789abcdef6a18a500000000000000000000000000000000000000000000000000000000000000000000000000"
)
DUE = "000000020123456789abcdef0000000000000005"
OPEN_ADS = "efcdab896745230103018844709e010000214365870000000002008844709e010000ff8744709e0100000000000002000000"
CLOCKS = "018844709e010000008844709e010000"


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava(java([build(Settings()) for build in JOBS.values()]))


def test_a_table_of_ids(flink: FlinkJava) -> None:
    one = flink.call("SeenIds", "add", None, None, 0x0123456789ABCDEF, T0_MS, 0)
    two = flink.call("SeenIds", "add", None, bytes(one), 0x0123456700000000, T0_MS + 1, 0)
    assert bytes(two).hex() == TABLE_OF_IDS


def test_which_lives_are_due(flink: FlinkJava) -> None:
    one = flink.call("DueLives", "add", None, None, 0x0123456789ABCDEF)
    assert bytes(flink.call("DueLives", "add", None, bytes(one), 5)).hex() == DUE


def test_a_campaigns_spend(flink: FlinkJava) -> None:
    ads = flink.new("OpenAds", None)
    flink.call("OpenAds", "putWin", ads, 0x0123456789ABCDEF, T0_MS, T0_MS - 1, 2**33)
    flink.call("OpenAds", "put", ads, 0x0123456789ABCDEF, 3, T0_MS + 1)
    flink.call("OpenAds", "putWin", ads, 0x87654321, T0_MS, T0_MS - 1, 2**33)
    assert bytes(flink.field("OpenAds", "bytes", ads)).hex() == OPEN_ADS
    clocks = flink.new("SpendClocks", None)
    flink.call("SpendClocks", "hear", clocks, True, T0_MS)
    flink.call("SpendClocks", "hear", clocks, False, T0_MS + 1)
    kept = bytes(flink.call("SpendClocks", "packed", clocks))
    assert kept.hex() == CLOCKS
    again = flink.new("SpendClocks", kept)
    assert flink.call("SpendClocks", "bothMs", again, 86_400_000) == T0_MS
