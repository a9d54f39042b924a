"""Replay: lines in the order of their time, an own truth, and how a log's clock is stretched; no sockets."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.replay.logs import (
    IPINYOU_CLICK,
    IPINYOU_IMPRESSION,
    TALKINGDATA_CLICK,
    LogLine,
    in_time_order,
    merged,
    read_lines,
)
from infra.replay.truth import read_truth


def ipinyou_line(bid_id: str, time: str, price: str = "201") -> str:
    columns = [
        bid_id,
        time,
        "1",
        "USER1",
        "Mozilla/5.0",
        "10.0.0.*",
        "1",
        "2",
        "3",
        "domain",
        "url",
        "null",
        "slot",
    ]
    columns += ["300", "250", "FirstView", "Na", "0", "10722", "294", price, "null", "2821", "10063"]
    return "\t".join(columns)


def _write(path: Path, lines: list[str], packed: bool = False) -> Path:
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 80))
def test_a_window_sorts_what_it_holds(times: list[int], window: int) -> None:
    lines = [LogLine(t, n, "f", "a", "") for n, t in enumerate(times, 1)]
    out = list(in_time_order(lines, window))
    assert sorted(out) == sorted(lines), "no line is lost or doubled"
    if window >= len(lines):
        assert out == sorted(lines)


@pytest.mark.parametrize("packed", [False, True])
def test_two_files_are_merged_by_time(tmp_path: Path, packed: bool) -> None:
    shown = [ipinyou_line(f"b{n}", f"201310210000{n:02d}000") for n in range(20)]
    random.Random(1).shuffle(shown)
    impressions = _write(tmp_path / "i.tsv", shown, packed)
    clicks = _write(tmp_path / "c.tsv", [ipinyou_line("b5", "20131021000005500")], packed)
    lines = list(merged([(impressions, IPINYOU_IMPRESSION), (clicks, IPINYOU_CLICK)]))
    assert [line.time_ms for line in lines] == sorted(line.time_ms for line in lines)
    (click,) = [n for n, line in enumerate(lines) if line.format == IPINYOU_CLICK.name]
    assert lines[click - 1].text.startswith("b5\t")


def test_lines_without_a_time_keep_their_place_and_number(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "i.tsv",
        ["rubbish", "", ipinyou_line("b1", "20131021000001000"), "short\tline", "b\tnot-a-time"],
    )
    lines = list(read_lines(path, IPINYOU_IMPRESSION))
    assert [line.number for line in lines] == [1, 3, 4, 5], "empty lines are no lines"
    assert len({line.time_ms for line in lines}) == 1


def test_truth_counts_events_repeats_and_malformed_lines(tmp_path: Path) -> None:
    first = ipinyou_line("b1", "20131021000001000", "100")
    impressions = _write(
        tmp_path / "i.tsv",
        [
            first,
            first,  # the same line again: a repeat
            ipinyou_line("b1", "20131021000003000", "100"),  # the same bid logged at another time: an event
            ipinyou_line("b2", "20131021000002000", "-5"),
            ipinyou_line("b3", "2013-10-21"),
            "too\tshort",
        ],
    )
    clicks = _write(tmp_path / "c.tsv", [ipinyou_line(b, "20131021000009000") for b in ("b1", "b9")])
    truth = read_truth([(impressions, IPINYOU_IMPRESSION), (clicks, IPINYOU_CLICK)])
    assert (truth.impressions, truth.clicks, truth.duplicates) == (2, 2, 1)
    assert truth.spend_micros == 2 * 100 * 10
    assert truth.clicks_without_impression == 1
    assert truth.malformed == {"i.tsv:4", "i.tsv:5", "i.tsv:6"}


def test_truth_of_clicks_with_installs(tmp_path: Path) -> None:
    header = "ip,app,device,os,channel,click_time,attributed_time,is_attributed"
    path = _write(
        tmp_path / "t.csv",
        [
            header,
            "1,2,1,13,497,2017-11-07 9:30,,0",
            "1,2,1,13,497,2017-11-07 9:30,,0",  # an identical line is another click
            "1,2,1,13,497,2017-11-07 9:31,2017-11-07 10:00,1",
            "1,2,1,13,497,2017-11-07 9:32,,1",  # attributed, but when?
            "1,2,1,13,x,2017-11-07 9:32,,0",
        ],
    )
    truth = read_truth([(path, TALKINGDATA_CLICK)])
    assert (truth.clicks, truth.conversions, truth.impressions) == (3, 1, 0)
    assert truth.malformed == {"t.csv:5", "t.csv:6"}
