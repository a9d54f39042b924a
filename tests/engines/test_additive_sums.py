"""The running sums of one key: few numbers of many columns, beside a dictionary."""

from __future__ import annotations

import random

import pytest

from tests.samples.flink_java import FlinkJava

COLUMNS = 200


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava()


@pytest.mark.parametrize("used", [1, 6, 7, 60])
def test_sums_and_maxima_are_those_of_their_columns(flink: FlinkJava, used: int) -> None:
    draw = random.Random(used)
    row = flink.jvm.org.apache.flink.table.types.logical.utils.LogicalTypeParser.parse(
        "ROW<`minute` BIGINT>", flink.jvm.java.lang.ClassLoader.getSystemClassLoader()
    )
    columns = flink.new("AdditiveColumns", row, flink.jvm.java.util.HashMap())
    sums = flink.new("Sums", 1, b"key", columns)
    added: dict[int, int] = {}
    greatest: dict[int, int] = {}
    for _ in range(used * 5):
        column, number = draw.choice(range(0, COLUMNS, COLUMNS // used)), draw.randrange(-(2**40), 2**40)
        if column % 3:
            added[column] = added.get(column, 0) + number
            flink.call("Sums", "add", sums, column, number)
        else:
            greatest[column] = max(greatest.get(column, number), number)
            flink.call("Sums", "greater", sums, column, number)
    found = {
        flink.call("Sums", "column", sums, at): flink.call("Sums", "number", sums, at)
        for at in range(flink.call("Sums", "count", sums))
    }
    assert found == added | greatest
